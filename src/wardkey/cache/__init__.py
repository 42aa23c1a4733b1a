"""The cache: what a tenant's clients have read, sealed, in Redis, until a table that it came from is written.

::

    cache = wardkey.cache.Cache(wards)
    page = cache.get_or_load(token, "patients, page 1", lambda connection: connection.execute(…).fetchall())

Redis is trusted with nothing but to be there. Names are HMACs, values AES-256-GCM under a key that the
keeper releases for tenant and role. Whether a value still holds is told by *marks*, which the *invalidator*
writes, an own process that decodes the WAL: which of a tenant's tables were written last, and when it
looked. Whatever is missing, late, altered or another's is a miss: the loader reads from the database.

A value is right because of an order. The client reads the marks, then begins the transaction that loads. The
invalidator marks a table when a commit that wrote it is visible to new snapshots, not before. So a load that
did not see the commit read marks without it, and its value is older than the mark.

``sealed``: names and bytes · ``users``: Redis's users · ``base``, ``clients``: what applications call ·
``invalidator``: the process, ``config``: where it finds Redis
"""

from typing import Any

__all__ = ["AsyncCache", "Cache"]


def __getattr__(name: str) -> Any:
    """Import the clients when they are asked for: the embedded server needs ``config`` alone."""
    if name in __all__:
        from . import clients

        return getattr(clients, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
