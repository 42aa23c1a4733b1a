"""A row's plaintext leaves after its message, which names every column opened of it; one is enough."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.envelope import ColumnKey
from wardkey_core.errors import AuditUnavailable, OpenFailed, RoleMayNotWrite, WrongTenant
from wardkey_core.journal_reader import Event, Read, decode
from wardkey_pg import reads as reads_module
from wardkey_pg.reads import Column, Reads
from wardkey_pg.sealing import make_unseal, open_slowly

from tests.support.backend import ACME, Backend, SocketKeeper, class_of

TABLE, OTHER = UUID(int=7), UUID(int=8)
NAME, SSN, NOTE, NEW = (bytes((number,)) * 16 for number in range(1, 5))
_KEYS = {
    column: ColumnKey(class_of(ACME), UUID(ACME).bytes, 3, 1, column) for column in (NAME, SSN, NOTE, NEW)
}


def column(identity: bytes, model: UUID, name: str, level: str = "row") -> dict[str, str]:
    return {
        "id": str(UUID(bytes=identity)), "model_id": str(model), "name": name, "level": level, "form": "i"
    }  # fmt: skip


def sealed(identity: bytes, row: int) -> bytes:
    return _KEYS[identity].seal(b"Ada", row.to_bytes(8, "big"), bytes(12))


def read(backend: Backend, identity: bytes, row: int) -> str:
    """Read as SQL does: through the hot path first."""
    unseal = make_unseal(backend.session, lambda *args: open_slowly(backend.session, *args))
    return unseal(sealed(identity, row), identity, row.to_bytes(8, "big")).decode()


def rows(backend: Backend) -> list[tuple[str | None, str]]:
    """Return row and columns of each message about a read."""
    return [(one.row, one.columns) for one in backend.journalled() if isinstance(one, Read)]


@pytest.fixture
def ward(backend: Backend, keeper: SocketKeeper) -> Iterator[Backend]:
    backend.columns = [
        column(NAME, TABLE, "name"),
        column(SSN, TABLE, '"s,s n"'),
        column(NOTE, OTHER, "note"),
    ]
    backend.session.login(backend.token())
    backend.statement()
    yield backend


def test_a_row_is_noted_once(ward: Backend) -> None:
    for _ in range(3):
        assert read(ward, NAME, 1) == "Ada"
    assert rows(ward) == [("1", "name")]
    (noted,) = [one for one in ward.journalled() if isinstance(one, Read)]
    assert (str(noted.tenant), noted.model, noted.statement) == (ACME, TABLE, ward.statement_start())
    login = [one for one in ward.journalled() if isinstance(one, Event) and one.operation == "login"]
    assert [one.context for one in login] == [noted.context]


def test_each_statement_notes_it_again(ward: Backend) -> None:
    for _ in range(3):
        read(ward, NAME, 1)
        ward.statement()
    assert rows(ward) == [("1", "name")] * 3


def test_the_same_text_again_costs_one_message_a_row(ward: Backend) -> None:
    ward.text = b"select * from patients where id = $1"
    for _ in range(3):
        ward.statement()
        for identity in (NAME, SSN):
            read(ward, identity, 1)
    ward.text = b"select name from patients where id = $1"
    ward.statement()
    read(ward, NAME, 1)
    both = 'name,"s,s n"'
    assert rows(ward) == [("1", "name"), ("1", both), ("1", both), ("1", both), ("1", "name")]


@pytest.mark.parametrize(
    "text", [b"fetch 10 from c", b"execute q", b"select 1; fetch c", b"call f()", b"do ''"]
)
def test_a_text_that_does_not_name_its_tables_promises_no_columns(ward: Backend, text: bytes) -> None:
    ward.text = text
    for identity in (NAME, SSN):
        ward.statement()
        read(ward, identity, 1)
    assert rows(ward) == [("1", "name"), ("1", '"s,s n"')]


def test_tables_are_apart(ward: Backend) -> None:
    read(ward, NAME, 1)
    read(ward, NOTE, 1)
    assert [(one.model, one.columns) for one in ward.journalled() if isinstance(one, Read)] == [
        (TABLE, "name"),
        (OTHER, "note"),
    ]


def test_a_column_the_backend_does_not_know_is_noted_by_its_id(ward: Backend) -> None:
    read(ward, NEW, 1)
    (noted,) = [one for one in ward.journalled() if isinstance(one, Read)]
    assert (noted.model, noted.columns, noted.row) == (None, str(UUID(bytes=NEW)), "\\x" + "00" * 7 + "01")


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([NAME, SSN, NOTE, NEW]), st.integers(0, 4)), st.sampled_from([0, 1, 2])
    ),
    max_size=40,
)


@given(_STEPS)
def test_before_every_plaintext_there_is_a_message_that_names_it(
    steps: list[tuple[bytes, int] | int],
) -> None:
    messages: list[bytes] = []

    class Journal:
        journal = journal_later = staticmethod(messages.append)

    columns = {
        NAME: Column(TABLE.bytes, "name", "row", "i"),
        SSN: Column(TABLE.bytes, "ssn", "row", "i"),
        NOTE: Column(OTHER.bytes, "note", "row", "i"),
    }
    reads = Reads(Journal(), UUID(ACME).bytes, b"c" * 16, columns)
    statement = 1
    reads.restart(statement)
    for step in steps:
        if isinstance(step, int):  # a statement; 1 and 2 are texts
            statement += 1
            reads.restart(statement, step or None)
            continue
        identity, number = step
        row = number.to_bytes(8, "big")
        opener = reads.openers.get((identity, _KEYS[identity].header))
        if opener is None:
            reads.note(identity, _KEYS[identity], row)
        elif opener[2] is not None and opener[3] is not None and row not in opener[2]:
            opener[3](row)
        known = columns.get(identity)
        wanted = (known.name, str(number)) if known else (str(UUID(bytes=identity)), f"\\x{row.hex()}")
        of_this = [decode(message) for message in messages]
        assert any(
            isinstance(one, Read)
            and one.statement == statement
            and one.row == wanted[1]
            and wanted[0] in one.columns.split(",")
            for one in of_this
        )
    assert len(messages) <= len(steps)


def test_rows_held_are_bounded_and_none_is_lost(ward: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "_MOST_ROWS", 100)
    for row in range(1000):
        read(ward, NAME, row)
    assert [row_id for row_id, _ in rows(ward)] == [str(row) for row in range(1000)]
    reads = ward.session.reading()
    assert len(reads._begun.models[TABLE.bytes].rows) <= 100


def test_the_first_messages_go_to_disk_at_once_but_not_all_the_time(
    ward: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_module, "time", ward.clock)
    late = []
    for pause in (0, 0.1, 0.15, 0, 1):
        ward.clock.now += pause
        ward.statement()
        ward.later.clear()
        for row in range(50):
            read(ward, NAME, row)
        late.append(len(ward.later))
    assert late == [18, 50, 18, 50, 18]


@pytest.mark.parametrize(
    ("level", "expected"), [("statement", [(None, "name"), (None, 'name,"s,s n"')]), ("off", [])]
)
def test_levels(ward: Backend, level: str, expected: list[tuple[str | None, str]]) -> None:
    ward.columns = [column(NAME, TABLE, "name", level), column(SSN, TABLE, '"s,s n"', level)]
    ward.tenants[ACME]["key_epoch"] += 1
    ward.session.login(ward.token())
    ward.text = b"select name, ssn from patients"
    for _ in range(2):
        ward.statement()
        for row in range(3):
            assert [read(ward, NAME, row), read(ward, SSN, row)] == ["Ada", "Ada"]
    assert rows(ward) == 2 * expected


def test_nothing_is_opened_that_the_message_could_not_be_written_about(
    ward: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(message: bytes) -> None:
        raise RuntimeError("no journal")

    monkeypatch.setattr(ward, "journal", full)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            read(ward, NAME, 1)


def test_what_does_not_open_is_no_read_and_is_reported(ward: Backend) -> None:
    read(ward, NAME, 1)
    with pytest.raises(OpenFailed):
        open_slowly(ward.session, sealed(NAME, 1), NAME, (2).to_bytes(8, "big"))
    assert rows(ward) == [("1", "name")]
    last = ward.journalled()[-1]
    assert isinstance(last, Event) and last.operation == "tampered"
    assert last.detail == {"investigate": True, "row": "2", "model": str(TABLE), "column": "name"}


def test_a_login_is_journalled_once_for_a_token_and_its_circumstances(ward: Backend) -> None:
    def logins() -> list[str | None]:
        journalled = [one for one in ward.journalled() if isinstance(one, Event) and one.operation == "login"]
        return [one.texts.get("purpose") for one in journalled]

    token = ward.token(sub="dr.house")
    ward.begin()
    ward.session.login(token)
    assert logins() == [None, None]  # the fixture's is another
    for _ in range(3):
        ward.begin()
        ward.session.login(token)
    assert logins() == [None, None]
    ward.stated = "treatment"
    ward.begin()
    ward.session.login(token)
    assert logins() == [None, None, "treatment"]
    ward.begin()
    ward.session.login(ward.token(purpose="research"))
    assert logins()[-1] == "research"
    assert [one for one in ward.journalled() if isinstance(one, Event)][-1].detail.get("purpose") is None  # type: ignore[union-attr]


def test_reads_of_a_pooled_connection_name_the_login_they_are_of(ward: Backend) -> None:
    for subject in ("dr.grey", "dr.house", "dr.grey"):
        ward.begin()
        ward.session.login(ward.token(sub=subject))
        read(ward, NAME, 1)
    events = [one for one in ward.journalled() if isinstance(one, Event) and one.operation == "login"]
    subject_of = {one.context: one.texts["subject"] for one in events}
    reads = [one for one in ward.journalled() if isinstance(one, Read)]
    assert [subject_of[one.context] for one in reads] == ["dr.grey", "dr.house", "dr.grey"]


def test_a_standby_and_a_missing_slot_let_nobody_in(backend: Backend) -> None:
    backend.standby = True
    with pytest.raises(AuditUnavailable):
        backend.session.login(backend.token())
    assert backend.session.current() is None
    backend.standby = False
    backend.settings["audit_slot"] = "wardkey_audit"
    backend.tenants[ACME]["key_epoch"] += 1  # settings are read with keys
    with pytest.raises(AuditUnavailable):
        backend.session.login(backend.token())
    backend.slots.add("wardkey_audit")
    backend.session.login(backend.token())
    backend.slots.clear()
    backend.session.login(backend.token())  # not looked for at every login
    backend.clock.now += 11
    with pytest.raises(AuditUnavailable):
        backend.session.login(backend.token())


def test_refusals_are_journalled_without_claims(ward: Backend) -> None:
    ward.session.report_refusal(RoleMayNotWrite())
    ward.session.logout()
    ward.session.report_refusal(WrongTenant())
    ward.session.report_refusal(AuditUnavailable())  # nobody was refused anything
    one, two = (event for event in ward.journalled()[-2:] if isinstance(event, Event))
    assert (one.operation, one.detail and one.detail["sqlstate"]) == ("refusal", "WK006")
    assert str(one.tenant) == ACME and one.context is not None
    assert (two.tenant, two.context, two.texts["database_role"]) == (None, None, "tenant_acme")
