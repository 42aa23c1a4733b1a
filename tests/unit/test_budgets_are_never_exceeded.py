"""Whatever the order of leases, ends of backends, restarts and clocks: no more than the budget is opened."""

from __future__ import annotations

import base64
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core import wire
from wardkey_core.administration import Unsupported
from wardkey_core.errors import (
    BudgetExhausted,
    KeeperUnavailable,
    KeysChanged,
    LoginsEnded,
    WardError,
)
from wardkey_core.identity import subject_digest
from wardkey_core.journal_reader import Event
from wardkey_core.tokens import Claims
from wardkey_pg import budgets as purses
from wardkey_pg.budgets import Purse

from tests.support.backend import ACME, Backend, SocketKeeper, frame, release_any
from tests.support.tokens import ISSUER
from tests.unit.test_reads_are_noted_once_a_statement import NAME, NEW, NOTE, SSN, TABLE, column, read, rows
from wardkey.daemon.service import ServiceError
from wardkey.keeper import counters as counters_module
from wardkey.keeper import grants
from wardkey.keeper.budgets import Budget, read_budgets, write_budgets
from wardkey.keeper.counters import COUNTERS_FILE, Counters
from wardkey.keeper.requests import Settled

TENANT, MODEL = UUID(ACME), UUID(int=7)
CLAIMS = Claims("issuer", "dr.grey", ACME, "VIEWER", 0.0, 0.0, "1")
WINDOW = 600


def budget(rows: int = 100, *, distinct: bool = False, **members: Any) -> Budget:
    return Budget(TENANT, "VIEWER", MODEL, rows, distinct, WINDOW)


class World:
    """A keeper on a file and backends with purses, under clocks that the test moves."""

    def __init__(self, path: Path, limit: Budget) -> None:
        self.path = path
        self.limit = limit
        self.passed = 1_000.0  # seconds that have really passed
        self.wall = 1_000_000_000.0
        self.opened: list[tuple[float, int]] = []
        self.purses: dict[int, Purse] = {}
        self.is_away = False
        self.counters = Counters(path, print)

    def draw(self, settled: Any, row: bytes | None) -> wire.Leased:
        if self.is_away:
            raise KeeperUnavailable
        given = json.loads(json.dumps(settled))
        lease = self.counters.lease(
            self.limit, CLAIMS, msgspec.convert(given, Settled) if given else None, row
        )
        members = (lease.id, lease.rows, lease.seconds, lease.left, lease.limit, lease.salt, lease.is_known)
        return wire.Leased(*members, lease.alert)

    def open(self, backend: int, row: int) -> None:
        purse = self.purses.setdefault(backend, Purse())
        name = row.to_bytes(8, "big")
        try:
            if not purse.take(name):
                purse.ensure(name, self.draw)
        except WardError:
            return
        self.opened.append((self.passed, row))

    def leave(self, backend: int, *, killed: bool) -> None:
        purse = self.purses.pop(backend, None)
        settled = purse.settled() if purse else None
        if settled and not killed and not self.is_away:
            self.counters.settle(msgspec.convert(settled, Settled))

    def restart(self) -> None:
        self.counters = Counters(self.path, print)

    def pass_(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += seconds

    def set_back(self, seconds: float) -> None:
        self.wall -= seconds

    def turn(self, what: tuple[Any, ...]) -> None:
        name, *members = what
        if name == "away":
            self.is_away = members[0]
        elif name == "leave":
            self.leave(members[0], killed=members[1])
        else:
            getattr(self, name)(*members)

    @property
    def most(self) -> int:
        """What may have been opened: a budget for each window that can have passed."""
        return self.limit.rows * (1 + int((self.passed - 1_000) // WINDOW))


BACKENDS = st.integers(0, 3)
TURNS = st.one_of(
    st.tuples(st.just("open"), BACKENDS, st.integers(1, 60)),
    st.tuples(st.just("open"), BACKENDS, st.integers(1, 60)),
    st.tuples(st.just("open"), BACKENDS, st.integers(1, 10_000)),
    st.tuples(st.just("leave"), BACKENDS, st.booleans()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("pass_"), st.sampled_from([1.0, 45.0, 299.0, 601.0])),
    st.tuples(st.just("set_back"), st.sampled_from([1.0, 3_600.0, 86_400.0])),
    st.tuples(st.just("away"), st.booleans()),
)


@settings(max_examples=80)
@given(turns=st.lists(TURNS, max_size=120), rows=st.integers(1, 40), distinct=st.booleans())
def test_no_order_of_events_opens_more(turns: list[tuple[Any, ...]], rows: int, distinct: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made: list[World] = []
        clock = SimpleNamespace(time=lambda: made[0].wall, monotonic=lambda: made[0].passed)
        start = SimpleNamespace(time=lambda: 1_000_000_000.0, monotonic=lambda: 1_000.0)
        defaults = (lambda: made[0].wall if made else 1_000_000_000.0,)
        with (
            patch.object(grants, "time", start),
            patch.object(grants.SteadyClock.__init__, "__defaults__", defaults),
        ):
            made.append(World(Path(directory) / COUNTERS_FILE, budget(rows, distinct=distinct)))
            with patch.object(grants, "time", clock), patch.object(purses, "time", clock):
                for turn in turns:
                    made[0].turn(turn)
                    assert _counted(made[0], distinct) <= made[0].most


def _counted(world: World, distinct: bool) -> int:
    return len({row for _, row in world.opened}) if distinct else len(world.opened)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made: list[World] = []
    clock = SimpleNamespace(
        time=lambda: made[0].wall if made else 1e9, monotonic=lambda: made[0].passed if made else 1e3
    )
    monkeypatch.setattr(grants, "time", clock)
    monkeypatch.setattr(purses, "time", clock)
    monkeypatch.setattr(grants.SteadyClock.__init__, "__defaults__", (clock.time,))
    made.append(World(tmp_path / COUNTERS_FILE, budget()))
    return made[0]


def use_up(world: World) -> int:
    before = len(world.opened)
    for row in range(1, 300):
        world.open(0, row)
    return len(world.opened) - before


def test_a_window_opens_again_when_it_has_passed_and_never_before(world: World) -> None:
    assert use_up(world) == 100
    world.set_back(86_400)
    assert use_up(world) == 0
    world.restart()
    world.pass_(WINDOW - 1)
    assert use_up(world) == 0
    world.set_back(86_400)
    world.restart()
    assert use_up(world) == 0
    world.pass_(2 * 86_400 + WINDOW)
    assert use_up(world) == 100


def test_a_lease_is_over_in_a_minute_and_with_its_window(world: World) -> None:
    world.open(0, 1)
    world.is_away = True
    world.pass_(59)
    world.open(0, 2)
    world.pass_(2)
    world.open(0, 3)
    assert len(world.opened) == 2


def test_what_a_killed_backend_had_leased_stays_counted(world: World) -> None:
    for backend in range(8):
        world.open(backend, 1)
        world.leave(backend, killed=True)
    assert use_up(world) == 100 - sum((6, 5, 5, 5, 4, 4, 4, 4))


def test_a_lease_is_settled_once_and_not_with_more_than_it_was_of(world: World) -> None:
    leased = world.draw(None, None)
    for used, seen in ((leased.rows + 1, []), (-1, []), (1, [b"12345678"] * 2)):
        with pytest.raises(Unsupported):
            world.counters.settle(Settled(lease=leased.lease, used=used, seen=seen))
    settled = Settled(lease=leased.lease, used=0)
    for _ in range(3):
        world.counters.settle(settled)
    assert world.counters.usage(TENANT)[0]["spent"] == 0


def test_dropping_and_setting_a_budget_again_forgets_nothing(world: World) -> None:
    use_up(world)
    world.limit = budget(120)
    assert use_up(world) == 20
    world.limit = budget(120, distinct=True)
    assert use_up(world) == 0


def test_the_file_is_written_again_without_what_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.limit = budget(100, distinct=True)
    use_up(world)
    length = world.path.stat().st_size
    world.restart()
    assert world.path.stat().st_size < length and len(world.path.read_bytes().splitlines()) == 1
    assert use_up(world) == 100  # known ones
    monkeypatch.setattr(counters_module, "MOST_LINES", 5)
    world.pass_(WINDOW + 1)
    assert use_up(world) == 100
    assert len(world.path.read_bytes().splitlines()) < 12


@pytest.mark.parametrize("line", ["{}", "rubbish", '{"what": "leased", "time": 1, "window": "x"}'])
def test_with_a_damaged_line_nothing_starts(world: World, line: str) -> None:
    use_up(world)
    with world.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ServiceError, match="is damaged"):
        world.restart()


def test_documents_say_what_they_must(tmp_path: Path) -> None:
    path = tmp_path / "budgets.json"
    assert read_budgets(path) == {}
    write_budgets(path, [budget()])
    assert list(read_budgets(path).values()) == [budget()]
    good = json.loads(path.read_text())["budgets"][0]
    for wrong in (
        {"rows": 0},
        {"rows": 200_000, "distinct": True},
        {"window": 59},
        {"role": "NURSE"},
        {"more": 1},
    ):
        path.write_text(json.dumps({"budgets": [{**good, **wrong}]}))
        with pytest.raises(ValueError):
            read_budgets(path)
    path.write_text(json.dumps({"budgets": [good, good]}))
    with pytest.raises(ValueError, match="one budget"):
        read_budgets(path)


# In a backend


class Bank(SocketKeeper):
    """A keeper that leases ``left`` rows in all, ``size`` at a time, or answers with ``forged`` members."""

    def __init__(self, left: int = 10, size: int = 4) -> None:
        self.left = left
        self.size = size
        self.forged: dict[str, Any] = {}
        self.is_budgeted = True
        super().__init__(self._reply)

    def _reply(self, request: dict[str, Any], connection: socket.socket) -> bytes:
        if request["op"] == "release":
            answer = json.loads(release_any(request, connection)[4:])
            return frame({**answer, **({"budgets": [str(TABLE)]} if self.is_budgeted else {})})
        if request["op"] != "lease":
            return frame({"ok": True})
        rows = min(self.size, self.left)
        self.left -= rows
        members = {"lease": "ab" * 16, "rows": rows, "seconds": 60, "left": 60, "limit": 10, "salt": ""}
        alert = None if rows else "exhausted"
        return frame({"ok": True, **members, "known": False, "alert": alert, **self.forged})

    def asked(self, op: str) -> list[dict[str, Any]]:
        return [each for each in self.requests if each["op"] == op]


@pytest.fixture
def bank(backend: Backend) -> Iterator[Bank]:
    with Bank() as bank:
        backend.settings["keeper_socket"] = bank.path
        backend.columns = [column(NAME, TABLE, "name"), column(NOTE, UUID(int=8), "note")]
        backend.session.login(backend.token())
        backend.statement()
        yield bank


def test_a_backend_asks_once_a_lease(backend: Backend, bank: Bank) -> None:
    for number in range(8):
        assert read(backend, NAME, number) == read(backend, NAME, number) == "Ada"
        backend.statement()
    assert [each.get("settled", {}).get("used") for each in bank.asked("lease")] == [None, 4]
    read(backend, NAME, 8), read(backend, NAME, 9)
    with pytest.raises(BudgetExhausted):
        read(backend, NAME, 10)
    assert len(rows(backend)) == 10  # of what was refused nothing is told to have been read
    told = [one.operation for one in backend.journalled() if isinstance(one, Event)]
    assert told.count("budget_exhausted") == 1


@pytest.mark.parametrize("level", ["row", "statement", "off"])
def test_a_row_counts_once_a_statement(backend: Backend, bank: Bank, level: str) -> None:
    """Whichever columns are opened of it."""
    bank.left = bank.size = 100
    backend.columns = [column(each, TABLE, f"c{each[0]}", level) for each in (NAME, SSN)]
    backend.tenants[ACME]["key_epoch"] += 1
    backend.begin()
    backend.text = b"select * from patients"
    backend.session.login(backend.token())
    for count in (1, 2, 3):
        backend.statement()
        for number in range(4):
            read(backend, NAME, number)
        for number in (*range(4), 0):
            read(backend, SSN, number)
        assert spent(bank, backend) == 4 * count


def spent(bank: Bank, backend: Backend) -> int:
    """Return how many rows the backend has opened of its lease."""
    (purse,) = backend.session._guards._purses.values()  # type: ignore[union-attr]
    return purse._rows - purse._rest


def test_long_row_ids_are_told_by_the_digest_of_others(world: World) -> None:
    """What backends settle of a row is the same, however they remember it."""
    world.limit = budget(3, distinct=True)
    for backend in range(3):
        purse = world.purses.setdefault(backend, Purse())
        for row in (b"short", b"l" * 1_000, b"l" * 999 + b"m"):
            for _ in range(2):
                purse.ensure(row, world.draw)
        world.leave(backend, killed=False)
    assert world.counters.usage(TENANT)[0]["spent"] == 3


def test_other_tables_ask_nobody(backend: Backend, bank: Bank) -> None:
    for number in range(30):
        assert read(backend, NOTE, number) == "Ada"
    assert not bank.asked("lease")


def test_a_forged_answer_opens_nothing(backend: Backend, bank: Bank) -> None:
    for forged in (
        {"rows": -1}, {"rows": 10**9}, {"rows": 501}, {"rows": True}, {"rows": "9"}, {"rows": None},
        {"seconds": 61}, {"seconds": -1}, {"seconds": "60"}, {"left": None}, {"salt": "AA=="}, {"salt": 1},
        {"known": 1}, {"alert": "x"}, {"lease": 1}, {"limit": "many"},
    ):  # fmt: skip
        bank.forged = forged
        with pytest.raises(KeeperUnavailable):
            read(backend, NAME, 1)
    bank.forged, bank.left = {}, 10
    assert read(backend, NAME, 1) == "Ada"


def test_who_is_known_for_another_row_gets_none(backend: Backend, bank: Bank) -> None:
    bank.forged = {"rows": 0, "salt": base64.b64encode(bytes(16)).decode(), "known": False}
    with pytest.raises(BudgetExhausted):
        read(backend, NAME, 1)
    assert len(bank.asked("lease")) == 2 and "row" in bank.asked("lease")[1]


def test_a_column_that_nobody_knows_is_not_opened_beside_a_budget(backend: Backend, bank: Bank) -> None:
    read(backend, NAME, 1)
    with pytest.raises(KeysChanged):
        read(backend, NEW, 1)


def test_what_is_left_is_given_back(backend: Backend, bank: Bank, clock: Any, monkeypatch: Any) -> None:
    read(backend, NAME, 1)
    backend.exit()
    (given,) = bank.asked("settle")
    assert (given["tenant"], given["settled"]["used"]) == (ACME, 1)
    read(backend, NAME, 2)
    monkeypatch.setattr("wardkey_pg.guards.time", clock)
    clock.now += 10_000
    backend.begin()
    backend.session.login(backend.token(sub="somebody else"))
    assert len(bank.asked("settle")) == 2


def test_without_a_budget_nothing_is_guarded(backend: Backend, bank: Bank) -> None:
    bank.is_budgeted = False
    assert read(backend, NAME, 1) == "Ada"
    assert backend.session._guards is None


def test_a_subject_whose_logins_were_ended_is_refused(backend: Backend, bank: Bank) -> None:
    told = Path(bank.path + wire.ENDED_SUFFIX)
    told.write_text(subject_digest(ACME, ISSUER, "somebody else").hex() + "\n")
    token = backend.token()
    backend.session.login(token)
    subject = backend.session._context.claims.subject  # type: ignore[union-attr]
    told.unlink()
    told.write_text(subject_digest(ACME, ISSUER, subject).hex() + "\n")
    backend.begin()
    with pytest.raises(LoginsEnded):
        backend.session.login(token)
    assert backend.session.current() is None
    told.unlink()
    told.write_text("rubbish")
    with pytest.raises(KeeperUnavailable):
        backend.session.login(token)


def test_a_backend_that_could_not_tell_the_keeper_lets_nobody_in_again(backend: Backend, bank: Bank) -> None:
    """Also after the keeper told of somebody else."""
    told = Path(bank.path + wire.ENDED_SUFFIX)
    claims = backend.session._context.claims  # type: ignore[union-attr]
    backend.session._ended.add(claims)
    told.write_text(subject_digest(ACME, ISSUER, "somebody else").hex() + "\n")
    backend.begin()
    with pytest.raises(LoginsEnded):
        backend.session.login(backend.token())
