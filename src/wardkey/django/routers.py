"""``WardRouter``: which alias a model is asked through, and which migrates it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings

from .tables import is_shared, is_ward

__all__ = ["WardRouter"]


class WardRouter:
    """Ward and shared models are asked through alias ``wards``, their tables made through ``owner``.

    With other names, or a second database of tenants, make a subclass.
    """

    wards = "wards"
    owner = "owner"
    others = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """What an object leads to is where the object is, unless one is a tenant's and the other nobody's."""
        instance: Any = hints.get("instance")
        is_of_ours = instance is not None and self.routes(type(instance))
        if not self.routes(model):
            return self.others if is_of_ours else None
        return (is_of_ours and instance._state.db) or self.wards

    db_for_write = db_for_read

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool | None:
        """A row of a ward may name one of ``others``, a user for example: no constraint stands behind it."""
        return True if self.routes(type(one)) != self.routes(type(other)) else None

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool | None:
        """What names no model, such as RunSQL, is the owner's in an app that has ward or shared models."""
        if settings.DATABASES[db]["ENGINE"] == "wardkey.django":
            return False
        if "model" in hints:
            ours = self.routes(hints["model"])
        elif model_name is not None:
            ours = self.routes(apps.get_model(app_label, model_name))
        else:
            ours = any(map(self.routes, apps.get_app_config(app_label).get_models()))
        return (db == self.owner) == ours

    def routes(self, model: Any) -> bool:
        """Whether ``model`` is a ward or shared model."""
        return is_ward(model) or is_shared(model)
