"""The client library: one object for all tenants, over psycopg 3 and its pools.

::

    wards = wardkey.Wards("postgresql://tenant_{tenant}@db/wardkey")
    with wards.transaction(token) as connection:
        connection.execute("select name from patients where id = %s", [7])

Each transaction is of the tenant that its token names, unverified: the database decides. BEGIN, the login and
the first statement go in one round trip; the context ends with the transaction. Errors of class WK are raised
as the classes of ``wardkey.errors``, others of a statement as psycopg does. No exception, nor a frame of it
in wardkey or psycopg, holds the token or a parameter.

``tokens``: what of a token the client reads · ``dsn``: the template · ``connection``: psycopg's connections
with a login before the first statement · ``ledger``: how many connections each tenant's pool may have ·
``base``: the pools, ``wards`` and ``async_wards``: how they wait · ``retrying``: what is worth another try
"""

from .async_wards import AsyncWards
from .connection import AsyncWardConnection, WardConnection
from .retrying import retry
from .tokens import tenant_of
from .wards import Wards

__all__ = ["AsyncWardConnection", "AsyncWards", "WardConnection", "Wards", "retry", "tenant_of"]
