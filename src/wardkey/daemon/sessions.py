"""Connections of the commands and daemons. Each makes the settings that change what a query means or returns.

They are in the startup packet: there they precede those of database and role, and replace PGOPTIONS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["connect", "import_all"]

_SETTINGS: Final = {
    "search_path": "public",  # as in a database nobody changed; pg_catalog precedes it
    # how values are read and written
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
    "xmloption": "content",
    # what a transaction may do, and how long
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "row_security": "on",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    # what is made
    "check_function_bodies": "on",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "password_encryption": "scram-sha-256",
}
_AFTERWARDS: Final = {
    "transaction_timeout": "0",  # since 17
    "restrict_nonsystem_relation_kind": "",  # since 15.8
    "timezone": "UTC",  # PGTZ and PGDATESTYLE precede the options
    "datestyle": "ISO, YMD",
}
_AS_SUPERUSER: Final = {
    "session_replication_role": "origin",
    "event_triggers": "on",  # since 17
    "lc_messages": "C",
    "plpgsql.variable_conflict": "error",
    "plpgsql.extra_errors": "none",
}
_TO_A_SOCKET: Final = {  # what PGHOSTADDR and similar variables would change
    "hostaddr": "",
    "gssencmode": "disable",
    "channel_binding": "prefer",
    "target_session_attrs": "any",
}


def connect(
    dsn: str,
    name: str,
    *,
    autocommit: bool = False,
    settings: Mapping[str, str] | None = None,
    **parameters: str | int,
) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect with settings of our own, whatever database, role and environment set.

    ``name``: application_name, unless ``dsn`` has one. ``settings``: further ones, or other values.
    ``parameters``: of libpq. Raises psycopg.Error.
    """
    given = conninfo_to_dict(dsn)
    options = [f"-c {key}={value}" for key, value in (_SETTINGS | dict(settings or {})).items()]
    whole: dict[str, Any] = {"application_name": name, "connect_timeout": 10, **given, **parameters}
    whole |= {"client_encoding": "UTF8", "options": " ".join([str(given.get("options") or ""), *options])}
    if str(given.get("host", "")).startswith("/"):
        whole = _TO_A_SOCKET | whole
    connection = psycopg.connect(make_conninfo(**whole), autocommit=True)
    try:
        connection.execute(_rest())
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def _rest() -> sql.Composed:
    """Return the statement that sets what not every server and role takes; a walsender takes it too."""
    rows = [(*item, False) for item in _AFTERWARDS.items()]
    rows += [(*item, True) for item in _AS_SUPERUSER.items()]
    return sql.SQL(
        "select pg_catalog.set_config(name, value, false) from (values {}) as s (name, value, power)"
        " where pg_catalog.current_setting(name, true) <> value"
        " and (not power or pg_catalog.current_setting('is_superuser') = 'on')"
    ).format(sql.SQL(", ").join(sql.SQL("({}, {}, {})").format(*map(sql.Literal, row)) for row in rows))


def import_all() -> None:
    """Import what is imported late, for who cannot read the packages once it is another user."""
    import encodings.idna  # noqa: F401

    psycopg.adapters  # noqa: B018
