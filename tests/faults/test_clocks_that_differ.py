"""Clocks of issuer, database and keeper differ: some seconds are forgiven, minutes are not."""

from __future__ import annotations

import time

import psycopg
import pytest
from wardkey_core.errors import InvalidToken, TokenExpired

from tests.support.clocks import clock_off
from tests.support.database import Connection
from tests.support.sqlstate import refused

from .cells import SECRET, Cell, fails, read, recovers


def login(cell: Cell, slug: str, token: str) -> Connection:
    connection = psycopg.connect(cell.database.dsn(f"tenant_{slug}"), autocommit=True)
    try:
        connection.execute("select ward.login_session(%s)", [token])
    except psycopg.Error:
        connection.close()
        raise
    return connection


def test_half_a_minute_of_the_issuer_is_forgiven(local_cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = local_cell.new_tenant()
    for off in (-30, 30):
        with login(local_cell, slug, _issued(local_cell, slug, off, monkeypatch)) as connection:
            assert read(connection) == SECRET


def test_five_minutes_of_the_issuer_are_not(local_cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of two minutes is over by then, or not valid yet: database and keeper say the same."""
    slug = local_cell.new_tenant()
    key = local_cell.key(slug)
    for off, error in ((-300, TokenExpired), (300, InvalidToken)):
        token = _issued(local_cell, slug, off, monkeypatch)
        with refused(error.sqlstate):
            login(local_cell, slug, token)
        with pytest.raises(error):
            local_cell.keeper.ask(
                op="release", classes=["clinical"], tenant=str(local_cell.id(slug)), token=token, **key
            )


def test_half_a_minute_between_database_and_keeper_is_forgiven(local_cell: Cell) -> None:
    slug = local_cell.new_tenant()
    for off in (-30, 30):
        _restart(local_cell, off)
        with local_cell.connect(slug) as connection:
            assert read(connection) == SECRET


def test_a_keeper_of_another_time_refuses_and_the_database_says_so(local_cell: Cell) -> None:
    """The database believes the token, the keeper does not: nothing opens."""
    slug = local_cell.new_tenant()
    for off, error in ((-300, InvalidToken), (1200, TokenExpired)):
        _restart(local_cell, off)
        with local_cell.connect(slug) as connection:
            told = fails(connection, error.sqlstate)
            assert "token" in told and SECRET not in told
            assert connection.execute("select city from patients").fetchall() == [("Ogden",)]
            _restart(local_cell, 0)
            assert recovers(connection) == SECRET


def _restart(cell: Cell, off: int) -> None:
    cell.keeper.stop()
    with clock_off(off):
        cell.start()


def _issued(cell: Cell, slug: str, off: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a token of two minutes by an issuer whose clock is off."""
    now = time.time
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: now() + off)
        return cell.issuer.sign_token(cell.id(slug), "dr.grey", "ADMIN", 120)
