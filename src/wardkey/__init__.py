"""wardkey: every tenant its own ward, every ward its own key, inside PostgreSQL.

``wardkey.connect(dsn)`` opens the client library; the exceptions it raises are in ``wardkey.errors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wardkey_pg import __version__

if TYPE_CHECKING:
    from .client import Ward, connect

__all__ = ["Ward", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    # The client needs psycopg; the keeper and `wardkey --help` should not wait for it.
    if name in ("Ward", "connect"):
        from . import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
