"""Control file, Python module, package, built scripts and database name one version."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
import wardkey_pg

import wardkey
from tests.support.database import Database
from wardkey.errors import VersionMismatch
from wardkey.install import resources
from wardkey.install.extension import prepare_extension


def test_control_file_package_and_scripts_have_the_modules_version() -> None:
    ours = wardkey_pg.__version__
    control = (resources.sql() / "wardkey.control").read_text()
    assert re.findall(r"default_version = '(.+)'", control) == [ours]
    assert wardkey.__version__ == version("wardkey") == ours
    assert f"wardkey--{ours}.sql" in resources.extension_files()


def test_every_update_leads_to_this_version() -> None:
    files = [
        name.removesuffix(".sql").split("--")[1:] for name in resources.extension_files() if "--" in name
    ]
    updates = {names[0]: names[1] for names in files if len(names) == 2}
    for start in updates:
        seen = start
        while seen in updates:
            seen = updates[seen]
        assert seen == wardkey_pg.__version__


def test_database_has_the_modules_version(database: Database) -> None:
    query = (
        "select extversion, default_version from pg_extension join pg_available_extensions on name = extname"
    )
    with database.admin() as admin:
        row = admin.execute(f"{query} where extname = 'wardkey'").fetchone()
        assert row == (wardkey_pg.__version__, wardkey_pg.__version__)
        bodies = admin.execute("select prosrc from pg_proc where prosrc like '%bind(\"%'").fetchall()
    assert bodies
    assert {row for (body,) in bodies for row in re.findall(r'bind\("([^"]+)"', body)} == {
        wardkey_pg.__version__
    }


@pytest.mark.parametrize(
    ("function", "caller"),
    [("ward.try_tenant_id()", "ward.tenant_id()"), ("ward.try_claims()", "ward.role()")],
)
def test_another_modules_version_is_a_clear_error(database: Database, function: str, caller: str) -> None:
    import psycopg

    with database.admin() as admin:
        row = admin.execute("select pg_get_functiondef(%s::regprocedure)", [function]).fetchone()
        assert row
        admin.execute(row[0].replace(f'"{wardkey_pg.__version__}"', '"0.0.1"'))
        with pytest.raises(psycopg.Error) as failed:
            admin.execute(f"select {caller}")
    assert failed.value.sqlstate == "WK301"
    assert "0.0.1" in str(failed.value) and wardkey_pg.__version__ in str(failed.value)


def test_a_version_that_no_update_leads_from_is_named(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("update pg_extension set extversion = '0.0.1' where extname = 'wardkey'")
        with pytest.raises(VersionMismatch, match=f"0.0.1.* to {wardkey_pg.__version__}") as refused:
            prepare_extension(admin)
    assert refused.value.hint and "--home" in refused.value.hint
