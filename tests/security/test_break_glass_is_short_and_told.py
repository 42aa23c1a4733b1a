"""Break-glass: who sees more does so on two tokens, for a while, and every entry of it says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from wardkey_core.journal_reader import Event

from tests.support.database import Connection, Database
from tests.support.journals import journal_of
from tests.support.sqlstate import refused

SEEN = "select name, ssn from patients"


class Clinic:
    """One tenant of a database of its own; people log in by name and role."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.slug = database.new_tenant()
        self._open: dict[tuple[str, str], Connection] = {}

    def as_(self, subject: str, role: str) -> Connection:
        """Return the warm session of somebody."""
        if (subject, role) not in self._open:
            self._open[subject, role] = self.database.tenant(self.slug, subject=subject, role=role)
        return self._open[subject, role]

    @property
    def doctor(self) -> Connection:
        return self.as_("dr.grey", "ANALYST")

    @property
    def chief(self) -> Connection:
        return self.as_("chief", "ADMIN")

    def ask(self, **members: Any) -> UUID:
        given = {"p_reason": "unconscious in the emergency room", "p_minutes": 30, **members}
        names = ", ".join(f"{name} => %({name})s" for name in given)
        row = self.doctor.execute(f"select ward.break_glass({names})", given).fetchone()
        assert row
        return UUID(str(row[0]))

    def approve(self, request: UUID, approver: Connection | None = None) -> None:
        (approver or self.chief).execute("select ward.approve_break_glass(%s)", [request])

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()


@pytest.fixture
def clinic(database: Database) -> Iterator[Clinic]:
    """A ward whose SSNs are identifiers, which an ANALYST does not see."""
    with database.admin() as admin:
        admin.execute("update ward_internal.sealed_columns set class = 'identifier' where name = 'ssn'")
    clinic = Clinic(database)
    clinic.chief.execute("insert into patients (name, ssn) values ('Ada', '999-1')")
    yield clinic
    clinic.close()


def sees_nothing(person: Connection) -> None:
    with refused("WK232"):
        person.execute(SEEN)


def test_a_grant_is_for_the_time_that_it_holds(clinic: Clinic) -> None:
    """A warm session sees more at its next transaction, and nothing any more at the next after the end."""
    sees_nothing(clinic.doctor)
    request = clinic.ask(p_classes=["identifier"])
    sees_nothing(clinic.doctor)
    with clinic.doctor.transaction():
        clinic.doctor.execute("select id from patients")
        clinic.approve(request)
        sees_nothing_here(clinic.doctor)
    assert clinic.doctor.execute(SEEN).fetchall() == [("Ada", "999-1")]
    sees_nothing(clinic.as_("dr.house", "ANALYST"))
    with refused("WK006"):
        clinic.doctor.execute("update patients set ssn = '1'")  # it shows, and lets nobody write
    rows = clinic.chief.execute("select subject, state, approver from ward.break_glass_requests()").fetchall()
    assert rows == [("dr.grey", "started", "chief")]
    clinic.doctor.execute("select ward.end_break_glass(%s)", [request])
    sees_nothing(clinic.doctor)
    with refused("WK245"):
        clinic.approve(request)
    rows = clinic.chief.execute("select state, closed_by from ward.break_glass_requests()").fetchall()
    assert rows == [("ended", "dr.grey")]


def sees_nothing_here(person: Connection) -> None:
    """In a transaction that goes on."""
    with pytest.raises(psycopg.Error) as error, person.transaction():
        person.execute(SEEN)
    assert error.value.sqlstate == "WK232"


def test_a_grant_ends_by_itself(clinic: Clinic) -> None:
    clinic.approve(clinic.ask(p_classes=["identifier"]))
    with clinic.database.admin() as admin:
        admin.execute("update ward_internal.break_glass set until = clock_timestamp() + interval '2 s'")
        admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            clinic.doctor.execute(SEEN)
        except psycopg.Error as error:
            assert error.sqlstate in ("WK232", "WK003")
            break
        time.sleep(0.05)
    sees_nothing(clinic.doctor)


def test_rows_of_the_database_grant_nothing(clinic: Clinic) -> None:
    """A superuser writes what an approval would have written; the keeper knows of none."""
    clinic.ask(p_classes=["identifier"])
    with clinic.database.admin() as admin:
        admin.execute(
            "update ward_internal.break_glass set state = 'started', approver = 'chief',"
            " started_at = now(), until = now() + interval '1 h'"
        )
        admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")
    sees_nothing(clinic.doctor)


def test_a_super_admin_has_no_key_without_it(clinic: Clinic) -> None:
    platform = clinic.as_("root", "SUPER_ADMIN")
    sees_nothing(platform)
    row = platform.execute("select ward.break_glass('restoring a row', p_minutes => 5)").fetchone()
    assert row
    clinic.approve(row[0])
    assert platform.execute(SEEN).fetchall() == [("Ada", "999-1")]


def test_a_grant_of_one_class_leaves_the_others_hidden(clinic: Clinic) -> None:
    """Not as if they had been tampered with: WK101 would be a false alarm in the log."""
    platform = clinic.as_("root", "SUPER_ADMIN")
    row = platform.execute("select ward.break_glass('restoring a row', '{identifier}', 5)").fetchone()
    assert row
    clinic.approve(row[0])
    assert platform.execute("select ssn from patients").fetchall() == [("999-1",)]
    sees_nothing(platform)


def test_who_approves_is_another_and_an_admin_of_the_tenant(clinic: Clinic) -> None:
    request = clinic.ask()
    for subject, role in (("dr.grey", "ADMIN"), ("nurse", "EVALUATOR"), ("root", "SUPER_ADMIN")):
        with refused("WK245"):
            clinic.approve(request, clinic.as_(subject, role))
    with clinic.database.tenant("globex", subject="chief", role="ADMIN") as other, refused("WK246"):
        clinic.approve(request, other)
    with clinic.database.tenant(clinic.slug) as nobody, refused("WK001"):
        clinic.approve(request, nobody)
    with clinic.database.admin() as admin:  # what the approver is shown is what was asked for
        admin.execute("update ward_internal.break_glass set reason = 'another'")
    with refused("WK245"):
        clinic.approve(request)


def test_of_two_approvals_at_once_one_holds(clinic: Clinic) -> None:
    request = clinic.ask()
    chiefs = [clinic.as_(f"chief{number}", "ADMIN") for number in range(4)]

    def one(chief: Connection) -> str | None:
        try:
            clinic.approve(request, chief)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    with ThreadPoolExecutor(4) as pool:
        assert sorted(map(str, pool.map(one, chiefs))) == ["None", "WK245", "WK245", "WK245"]


@pytest.mark.parametrize(
    ("members", "sqlstate"),
    [
        ({"p_reason": " "}, "WK212"),
        ({"p_minutes": 61}, "WK246"),
        ({"p_minutes": 0}, "WK246"),
        ({"p_classes": ["identifier", "nonsense"]}, "WK246"),
        ({"p_classes": []}, "WK246"),
        ({"p_emergency": True}, "WK245"),
    ],
)
def test_what_cannot_be_asked_for(clinic: Clinic, members: dict[str, Any], sqlstate: str) -> None:
    with refused(sqlstate):
        clinic.ask(**members)
    assert clinic.chief.execute("select ward.break_glass_requests()").fetchall() == []


def test_each_step_is_told_also_where_the_transaction_is_undone(clinic: Clinic) -> None:
    with journal_of(clinic.database) as journal:
        request = clinic.ask(p_classes=["identifier"])
        with pytest.raises(RuntimeError), clinic.chief.transaction():
            clinic.approve(request)
            raise RuntimeError
        clinic.approve(request)  # the keeper has it already
        clinic.doctor.execute(SEEN)
        clinic.doctor.execute("select ward.end_break_glass(%s)", [request])
        messages = journal.read(lambda some: "break_glass_ended" in str(some))
    told = [one for one in messages if isinstance(one, Event) and one.detail]
    steps = [one for one in told if one.operation.startswith("break_glass_")]
    kinds = [one.operation.removeprefix("break_glass_") for one in steps]
    assert kinds == ["requested", "started", "started", "ended"]
    details = [dict(one.detail or {}) for one in steps]
    assert {detail["grant"] for detail in details} == {str(request)}
    assert [detail.get("dicom") for detail in details] == [None, "110127", "110127", "110138"]
    (login,) = [one for one in told if one.operation == "login" and "break_glass" in (one.detail or {})]
    assert login.texts["purpose"] == f"ETREAT {request}"  # which every entry has that it leads to
    assert (login.detail or {})["dicom"] == "110113"


def test_an_emergency_is_an_alarm_until_it_was_reviewed(clinic: Clinic) -> None:
    clinic.chief.execute("select ward.allow_break_glass(true)")
    with journal_of(clinic.database) as journal:
        request = clinic.ask(p_emergency=True, p_classes=["identifier"])
        (told,) = journal.events("break_glass_started")
    assert (told.detail or {})["alarm"] is True
    assert clinic.doctor.execute(SEEN).fetchall() == [("Ada", "999-1")]
    due = "select review_due - started_at = interval '72 h' from ward.break_glass_grants"
    with clinic.database.admin() as admin:
        assert admin.execute(due).fetchall() == [(True,)]
        review = "select ward.review_break_glass(%s, 'all is well')"
        for subject, role in (("dr.grey", "ADMIN"), ("nurse", "EVALUATOR")):
            with refused("WK212"):
                clinic.as_(subject, role).execute(review, [request])
        clinic.chief.execute(review, [request])
        assert admin.execute(due).fetchall() == [(None,)]


def test_keys_under_a_grant_are_kept_from_one_login_to_the_next(clinic: Clinic) -> None:
    login = "select ward.login(%s)"
    clinic.approve(clinic.ask(p_classes=["identifier"]))
    with (
        clinic.database.tenant(clinic.slug) as doctor,
        journal_of(clinic.database) as journal,
    ):
        tokens = [clinic.database.token(clinic.slug, "dr.grey", "ANALYST") for _ in range(3)]
        for token in tokens:
            with doctor.transaction():
                doctor.execute(login, [token])
                assert doctor.execute(SEEN).fetchall() == [("Ada", "999-1")]
        messages = journal.read(lambda some: len([one for one in some if isinstance(one, Event)]) > 0)
    released = [one for one in messages if isinstance(one, Event) and one.operation == "key_released"]
    assert len(released) == 1, released
