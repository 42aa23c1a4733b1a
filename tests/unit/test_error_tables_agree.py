"""SQL, PL/Python and the client name the same conditions by the same SQLSTATEs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest
from wardkey_core import administration
from wardkey_core import errors as inside
from wardkey_core.administration import BY_SQLSTATE

from tests.support.extension_script import full_script
from wardkey import errors as client

_SQL = Path(__file__).parents[2] / "sql"
_SOURCES = [path.read_text() for path in sorted(_SQL.glob("functions/**/*.sql"))]
_TABLE: dict[str, str] = json.loads(re.findall(r"return '(.*)'::jsonb ->> p_condition;", full_script())[0])


def _condition(cls: type[inside.WardError]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


def test_every_condition_of_sql_is_a_class_of_that_name() -> None:
    assert len(_TABLE) > 10
    for condition, sqlstate in _TABLE.items():
        assert _condition(BY_SQLSTATE[sqlstate]) == condition


def test_every_administration_error_is_a_condition_of_sql() -> None:
    """The others are raised in Python."""
    classes = administration.AdministrationError.__subclasses__()
    assert {_condition(cls): cls.sqlstate for cls in classes} == _TABLE


def test_sql_raises_no_condition_that_is_not_there() -> None:
    raised = {name for text in _SOURCES for name in re.findall(r"ward_internal\.fail\(\s*'(\w+)'", text)}
    assert raised and raised <= _TABLE.keys()
    named = {code for text in _SOURCES for code in re.findall(r"errcode = '(WK\w+)'", text)}
    assert named <= set(_TABLE.values())


def test_sqlstates_are_unique_and_of_the_class() -> None:
    leaves = [
        cls
        for cls in _all(inside.WardError)[1:]
        if "sqlstate" in vars(cls) and cls.__module__ in (inside.__name__, administration.__name__)
    ]
    assert len({cls.sqlstate for cls in leaves}) == len(leaves) == len(BY_SQLSTATE)
    assert all(re.fullmatch(r"WK[0-4]\d\d", sqlstate) for sqlstate in BY_SQLSTATE)


def test_the_client_exports_every_class() -> None:
    for cls in BY_SQLSTATE.values():
        assert getattr(client, cls.__name__) is cls
        assert cls.__name__ in client.__all__


@pytest.mark.parametrize("sqlstate", sorted(BY_SQLSTATE))
def test_the_client_maps_every_sqlstate(sqlstate: str) -> None:
    class Diagnostics:
        message_primary = "message"
        message_hint = None

    class Error(psycopg.DatabaseError):
        diag = Diagnostics()  # type: ignore[assignment]

    error = Error()
    error.sqlstate = sqlstate
    assert type(client.ward_error(error)) is BY_SQLSTATE[sqlstate]


def test_texts_are_short_and_lower_case() -> None:
    for cls in BY_SQLSTATE.values():
        for text in (cls.default_message, cls.default_hint or "x"):
            assert text[0].islower() or text.startswith("VIEWER")
            assert len(text) <= 120 and not text.endswith(".")


def _all(cls: type[inside.WardError]) -> list[type[inside.WardError]]:
    return [cls] + [one for child in cls.__subclasses__() for one in _all(child)]
