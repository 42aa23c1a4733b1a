"""One change of a tenant's keys at a time, each with its event; requests and shredding say no in time."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire, rotate, states
from tests.support.sqlstate import everything, refused


def _kinds(admin: Connection, slug: str = "acme") -> list[str]:
    query = "select kind from ward.events where slug = %s order by id"
    return [kind for (kind,) in admin.execute(query, [slug]).fetchall()]


def test_of_two_rotations_at_once_one_wins(database: Database, postgresql: Connection) -> None:
    with database.admin(autocommit=False) as first:
        rotate(first)
        with refused("WK213"):
            rotate(postgresql)  # while the other's transaction is open: does not wait
        first.commit()
    with refused("WK213"):
        rotate(postgresql)  # and while rows are resealed
    with refused("WK213"):
        postgresql.execute("select ward.rotate_key('acme', 'second', p_replacing => 1, p_incident => true)")
    reseal(postgresql)
    assert retire(postgresql) == [1]
    assert rotate(postgresql) == 3
    assert states(postgresql) == {1: "retired", 2: "decrypt-only", 3: "active"}


def test_resealing_does_not_keep_an_incident_waiting(database: Database, postgresql: Connection) -> None:
    rotate(postgresql)
    with database.admin(autocommit=False) as worker:
        reseal(worker)
        postgresql.execute("set lock_timeout = '2s'")
        postgresql.execute("select ward.rotate_key('acme', 'incident', p_incident => true)")


def test_a_failed_rotation_changes_nothing(database: Database, postgresql: Connection) -> None:
    postgresql.execute("select ward.set('keeper_socket', '/nonexistent')")
    with database.admin() as admin, refused("WK102"):
        rotate(admin)
    assert states(postgresql) == {1: "active"} and _kinds(postgresql) == ["provisioned"]


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "line\nbreak", "turn\u202eed", None])
def test_a_reason_is_printable_and_short(postgresql: Connection, reason: str | None) -> None:
    with pytest.raises(psycopg.Error) as failed:
        postgresql.execute("select ward.rotate_key('acme', %s)", [reason])
    assert failed.value.sqlstate == "WK212"


def test_each_step_is_an_event_without_secrets(database: Database, postgresql: Connection) -> None:
    rotate(postgresql, reason="Zürich, für den Test")
    postgresql.execute("select ward.pause_rotation('acme'), ward.pause_rotation('acme', false)")
    reseal(postgresql)
    retire(postgresql)
    postgresql.execute("select ward.readmit_key('acme', 1, 'restored a backup')")
    reseal(postgresql)
    retire(postgresql)
    postgresql.execute("select ward.destroy_key('acme', 1, true)")
    assert _kinds(postgresql) == [
        "provisioned", "provisioned", "rotated", "paused", "resumed", "retired",
        "readmitted", "retired", "destroyed",
    ]  # fmt: skip
    told = str(postgresql.execute("select to_jsonb(e) from ward.events e").fetchall())
    row = postgresql.execute(
        "select string_agg(encode(wrapped, 'hex'), ' ') from ward_internal.tenant_keys"
    ).fetchone()
    assert row and not any(wrapped[:40] in told for wrapped in row[0].split())
    assert postgresql.execute("select count(*) from ward.rotations where finished_at is null").fetchone() == (
        0,
    )


def test_an_admin_asks_for_a_rotation_once(database: Database, postgresql: Connection) -> None:
    with database.tenant("acme", subject="ada", role="ADMIN") as ward:
        ward.execute("select ward.request_rotation('a laptop was lost')")
        ward.execute("select ward.request_rotation('it really was')")
        for statement in ("select * from ward_internal.rotation_requests", "select * from ward.events"):
            with refused("42501"):
                ward.execute(statement)
        for reason in ("", "x" * 201, "a\tb", None):
            with refused("WK212"):
                ward.execute("select ward.request_rotation(%s)", [reason])
    query = "select reason, requested_by, version from ward_internal.rotation_requests order by requested_at"
    assert postgresql.execute(query).fetchall() == [("a laptop was lost", "ada", None)]
    assert postgresql.execute("select slug, actor from ward.events where kind = 'requested'").fetchall() == [
        ("acme", "ada")
    ]
    rotate(postgresql)
    assert postgresql.execute(query).fetchall() == [("a laptop was lost", "ada", 2)]
    assert postgresql.execute("select requested_by from ward.rotations").fetchone() == ("ada",)


@pytest.mark.parametrize("role", ["SUPER_ADMIN", "EVALUATOR", "ANALYST", "VIEWER"])
def test_nobody_else_asks_for_a_rotation(database: Database, role: str) -> None:
    with database.tenant("acme", role=role) as ward, refused("WK212"):
        ward.execute("select ward.request_rotation('I would like that')")


def test_nobody_asks_without_a_context(database: Database) -> None:
    with database.tenant("acme") as ward, refused("WK001"):
        ward.execute("select ward.request_rotation('I would like that')")


@pytest.mark.parametrize(
    "statement",
    [
        "select ward.rotate_key('globex', 'mine')",
        "select ward.rotate_master('mine')",
        "select ward.retire_keys('globex')",
        "select ward.destroy_key('globex', 1, true)",
        "select ward.readmit_key('globex', 1, 'mine')",
        "select ward.pause_rotation('globex')",
        "select * from ward.key_rows('globex')",
        "select * from ward.keys",
        "select * from ward.rotations",
        "select * from ward_internal.reseal('globex', null, 0, 1)",
        "select ward_internal.rewrap_key(gen_random_uuid(), 1)",
        "select ward_internal.begin_shredding('globex', '')",
        "select ward_internal.renew_keys()",
    ],
)
def test_a_tenant_may_do_none_of_it(database: Database, statement: str) -> None:
    with database.tenant("acme", role="SUPER_ADMIN") as ward, refused("42501"):
        ward.execute(statement)


def test_settings_have_bounds(postgresql: Connection) -> None:
    for name, good, bad in (
        ("cryptoperiod", "90", "366"),
        ("kek_cryptoperiod", "365", "0"),
        ("grace", "0", "-1"),
        ("most_fields", "2147483648", "4294967297"),
    ):
        postgresql.execute("select ward.set(%s, %s)", [name, good])
        with refused("WK212"):
            postgresql.execute("select ward.set(%s, %s)", [name, bad])


def test_shredding_goes_by_its_steps_and_leaves_a_name(database: Database, postgresql: Connection) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, role="ADMIN") as ward:
        ward.execute("insert into patients (name) values ('Ada'), ('Bob')")
        facts = postgresql.execute("select ward_internal.shredding_facts(%s)", [slug]).fetchone()
        assert facts and facts[0]["tables"] == [{"table": "patients", "rows": 2}]
        code = facts[0]["code"]
        with refused("WK211"):
            postgresql.execute("select ward_internal.begin_shredding(%s, 'x')", [slug])
        with refused("WK211"):
            postgresql.execute("select ward_internal.finish_shredding(%s, '{}')", [slug])
        postgresql.execute("select ward.rotate_key(%s, 'it changed')", [slug])
        with refused("WK211"):  # not what was shown
            postgresql.execute("select ward_internal.begin_shredding(%s, %s)", [slug, code])
        facts = postgresql.execute("select ward_internal.shredding_facts(%s)", [slug]).fetchone()
        assert facts
        begun = [
            postgresql.execute(
                "select ward_internal.begin_shredding(%s, %s)", [slug, facts[0]["code"]]
            ).fetchone()
            for _ in range(2)
        ]
        assert begun[0] == begun[1] and begun[0] and [key["version"] for key in begun[0][0]["keys"]] == [1, 2]
        with refused("WK005"):
            ward.execute("select name from patients")
    for call in (
        "rotate_key(%s, 'x')",
        "retire_keys(%s)",
        "resume_tenant(%s)",
        "repair_tenant(%s)",
        "pause_rotation(%s)",
    ):
        with refused("WK216"):
            postgresql.execute(f"select ward.{call}", [slug])
    with refused("WK216"):
        reseal(postgresql, slug)
    certificate = {"tenant": slug, "signature": "of the keeper"}
    for given in (certificate, {"another": "one"}):
        kept = postgresql.execute(
            "select ward_internal.finish_shredding(%s, %s)", [slug, Jsonb(given)]
        ).fetchone()
        assert kept == (certificate,)
    assert states(postgresql, slug) == {1: "destroyed", 2: "destroyed"}
    gone = "select to_regnamespace(%s), to_regrole(%s)"
    assert postgresql.execute(gone, [f"tenant_{slug}", f"tenant_{slug}"]).fetchone() == (None, None)
    with refused("WK216") as because:
        postgresql.execute("select ward.create_tenant(%s)", [slug])
    assert slug in everything(because.value)
    assert _kinds(postgresql, slug)[-2:] == ["shredding", "shredded"]
    postgresql.execute("create table clinic.later (id int primary key, note text)")
    postgresql.execute("select ward.protect('clinic.later', seal => '{note}')")  # passes it by
    postgresql.execute("alter table clinic.patients add column blood text")


def test_a_dropped_tenant_leaves_its_events_only(database: Database, postgresql: Connection) -> None:
    slug = database.new_tenant()
    rotate(postgresql, slug)
    tenant = database.tenant_id(slug)
    postgresql.execute("select ward.drop_tenant(%s, %s)", [slug, slug])
    for table in ("tenant_keys", "rotations", "rotation_requests"):
        query = f"select count(*) from ward_internal.{table} where tenant_id = %s"
        assert postgresql.execute(query, [tenant]).fetchone() == (0,)
    assert _kinds(postgresql, slug)[-1] == "dropped"
