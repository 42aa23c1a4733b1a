"""wardkey: every tenant its own ward, every ward its own key, inside PostgreSQL.

``wardkey.Wards(dsn)`` is the client library, ``AsyncWards`` the same for asyncio; the exceptions it raises
are in ``wardkey.errors``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wardkey_pg import __version__

if TYPE_CHECKING:
    from .client import AsyncWards, Wards, retry, tenant_of

__all__ = ["AsyncWards", "Wards", "__version__", "retry", "tenant_of"]


def __getattr__(name: str) -> Any:
    # The client needs psycopg; the keeper and `wardkey --help` should not wait for it.
    if name in __all__:
        from . import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
