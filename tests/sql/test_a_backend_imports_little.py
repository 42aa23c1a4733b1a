"""A backend's first login imports none of the modules that made it slow: docs/performance.md."""

from __future__ import annotations

from wardkey_pg.together import LIBRARIES, MODULES

from tests.support.database import Database

_SLOW = {
    "_hashlib", "base64", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools",
    "hashlib", "hmac", "json", "operator", "random", "re", "socket", "threading", "typing", "uuid",
    "warnings",
    "cryptography.exceptions", "cryptography.hazmat.bindings._rust", "cryptography.hazmat.primitives",
    "cryptography.utils",
    "wardkey_core.administration", "wardkey_core.journal_reader", "wardkey_pg.masks",
}  # fmt: skip
_MODULES = """
create function public.modules() returns setof text language plpython3u as
  'import sys; return list(sys.modules)';
create function public.together() returns setof text language plpython3u as $$
  import sys
  return [name for name, module in sys.modules.items() if module.__spec__ and not module.__spec__.loader]
$$;
grant usage on schema public to tenant_acme;"""


def test_the_first_login_and_field_import_nothing_slow(shared: Database) -> None:
    with shared.admin() as connection:
        connection.execute(_MODULES)
        at_start = {name for (name,) in connection.execute("select public.modules()")}
    with shared.admin() as connection:
        connection.execute("set session authorization tenant_acme; set search_path = tenant_acme, pg_catalog")
        with connection.transaction():
            connection.execute("select ward.login(%s)", [shared.token("acme")])
            connection.execute("insert into patients (id, name) values (1, 'Ada')")
            assert connection.execute("select name from patients").fetchall() == [("Ada",)]
            imported = {name for (name,) in connection.execute("select public.modules()")}
            together = {name for (name,) in connection.execute("select public.together()")}
    assert "wardkey_pg.entry" in imported
    assert {name for name in LIBRARIES if name.startswith("cryptography.")} < imported
    assert (imported - at_start) & _SLOW == set()
    ours = {name for name in imported if name.startswith("wardkey_")} - {"wardkey_pg"}
    assert ours < together == {*MODULES}
