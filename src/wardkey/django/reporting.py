"""``WithoutValues``: Django's debug pages and error mails without what a failed request worked on.

Set ``DEFAULT_EXCEPTION_REPORTER_FILTER = "wardkey.django.reporting.WithoutValues"``: parameters of statements
and objects with opened values are among the variables of a traceback's frames.
"""

from __future__ import annotations

from typing import Any

from django.views.debug import SafeExceptionReporterFilter

__all__ = ["WithoutValues"]


class WithoutValues(SafeExceptionReporterFilter):
    """Names of variables and POST parameters in place of their values, also with DEBUG."""

    def is_active(self, request: Any) -> bool:
        return True

    def get_post_parameters(self, request: Any) -> dict[str, str]:
        substitute: str = self.cleansed_substitute
        return dict.fromkeys(getattr(request, "POST", ()), substitute)

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> list[tuple[str, str]]:
        return [(name, self.cleansed_substitute) for name in tb_frame.f_locals]
