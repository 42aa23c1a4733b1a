"""SQLAlchemy 2: one Engine for all tenants, and what models say of their tables.

::

    engine = wardkey.sqlalchemy.engine(wardkey.Wards("postgresql://tenant_{tenant}@db/wardkey"))
    with as_token(token), Session(engine) as session:
        session.scalars(select(Patient).limit(20))

``engines``: whose a transaction is · ``dialect``: how it gets a connection of its tenant · ``reflection``:
keys of faces · ``upserts`` · ``searching`` · ``annotations``
"""

from __future__ import annotations

from .annotations import Plain, Protected, RowRule, Sealed, Shared
from .engines import as_token, async_engine, engine, token
from .searching import find
from .upserts import upsert

__all__ = [
    "Plain",
    "Protected",
    "RowRule",
    "Sealed",
    "Shared",
    "as_token",
    "async_engine",
    "engine",
    "find",
    "token",
    "upsert",
]
