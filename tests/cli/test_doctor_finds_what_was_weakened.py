"""Each check finds its own weakness and no other check does; what it names as the mend heals it.

Everything happens in one transaction that is rolled back, so that no other test meets a weakened cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Database, clone
from wardkey.doctor import Problem, Server, checks, diagnose
from wardkey.server import Cluster

ANY: set[str] = set()  # more than can be said
LEAF = "{ward}.patients_sealed"
FACE = "{ward}.patients"

# check: what weakens its object, and other checks that cannot but see it too
WEAKENED: dict[str, tuple[str, set[str]]] = {
    "models-there": (
        "insert into ward_internal.models (relation, shape, face) values (123, 124, 'gone')",
        {"leaves-there"},
    ),
    "shapes-follow": (
        "alter event trigger ward_follow_models disable; alter table clinic.patients add column extra int;"
        " alter event trigger ward_follow_models enable always",
        set(),
    ),
    "leaves-there": (f"drop table {LEAF} cascade", set()),
    "leaves-only": (
        "create table clinic.stray partition of clinic.patients default;"
        " select ward_internal.set_row_security('clinic.stray')",
        set(),
    ),
    "faces-there": (f"drop view {FACE}", set()),
    "faces-unchanged": (
        f"create or replace view {FACE} as select id, ''::text as name, ''::text as ssn,"
        f" null::date as birth_date, city, created_at from {LEAF}",
        set(),
    ),
    "triggers-there": (f"drop trigger patients_write on {FACE}", set()),
    "triggers-unchanged": (
        "create or replace function {ward}.patients_write_{slug}() returns trigger language plpgsql"
        " security definer set search_path = pg_catalog, pg_temp as 'begin return new; end'",
        set(),
    ),
    "writes-audited": (f"alter table {LEAF} enable trigger ward_audit", set()),
    "models-followed": ("alter event trigger ward_follow_models enable replica", set()),
    "row-security-enabled": (f"alter table {LEAF} disable row level security", set()),
    "row-security-forced": ("alter table clinic.patients no force row level security", set()),
    "policies-there": (f"drop policy ward_fence on {LEAF}", set()),
    "policies-unchanged": (f"alter policy ward_tenant on {LEAF} using (true)", set()),
    "policies-alone": (f"create policy everybody on {LEAF} using (true)", set()),
    "nobody-exempt": ("create role wk_exempt bypassrls", set()),
    "ward-roles-powerless": ("alter role ward_owner createdb", set()),
    "ward-owner-alone": ("create role wk_member; grant ward_owner to wk_member", set()),
    "ward-roles-in-nothing": ("grant pg_read_all_data to ward_tenant", set()),
    "tenant-roles-powerless": ("alter role {ward} createrole", set()),
    "tenant-roles-in-ward-tenant": ("revoke ward_tenant from {ward}", set()),
    "tenant-roles-in-nothing-else": ("grant pg_monitor to {ward}", set()),
    "tenant-roles-without-members": ("create role wk_member; grant {ward} to wk_member", set()),
    "tenant-roles-own-nothing": (
        "create table clinic.theirs (id int); alter table clinic.theirs owner to {ward}",
        {"tables-protected"},
    ),
    "owners": (f"alter table {LEAF} owner to postgres", set()),
    "tenant-log-settings": ("alter role {ward} in database {database} set log_statement = 'all'", set()),
    "tenant-search-path": ("alter role {ward} in database {database} set search_path = clinic", set()),
    "tenant-own-settings": ("alter role {ward} set work_mem = '1GB'", set()),
    "passwords-scram": (
        "update pg_authid set rolpassword = 'md5' || md5('x') where rolname = '{ward}'",
        set(),
    ),
    "inner-tables-closed": (f"grant select (city) on {LEAF} to {{ward}}", set()),
    "faces-closed": (f"grant trigger on {FACE} to {{ward}}", set()),
    "faces-open": (f"revoke delete on {FACE} from {{ward}}", set()),
    "schemas-closed": ("grant create on schema {ward} to {ward}", set()),
    "tenants-reach-nothing-else": (
        "create table clinic.notes (id int); grant select on clinic.notes to public",
        {"tables-protected"},
    ),
    "shares-open": ("revoke select on clinic.icd10 from ward_tenant", set()),
    "database-closed": ("grant temporary on database {database} to public", set()),
    "database-open": ("revoke connect on database {database} from ward_tenant", set()),
    "statistics-hidden": ("grant select on pg_stat_activity to ward_tenant", set()),
    "columns-hidden": ("grant select (reltuples) on pg_class to public", set()),
    "functions-hidden": ("grant execute on function pg_notify(text, text) to {ward}", set()),
    "inner-functions-closed": (
        "grant execute on function ward_internal.seal(text, bytea, bytea) to ward_tenant",
        set(),
    ),
    "functions-open": ("revoke execute on function ward.role() from ward_tenant", set()),
    "definers-closed": (
        "create function clinic.peek() returns int language sql security definer"
        " set search_path = pg_catalog, pg_temp return 1",
        set(),
    ),
    "parameters-closed": ("grant set on parameter log_statement to {ward}", set()),
    "default-privileges": (
        "alter default privileges in schema clinic grant select on tables to ward_tenant",
        set(),
    ),
    "foreign-servers-closed": (
        "create foreign data wrapper wk_far; create server wk_far foreign data wrapper wk_far;"
        " grant usage on foreign server wk_far to {ward}",
        set(),
    ),
    "definers-pinned": (
        "create function clinic.peek() returns int language sql security definer return 1;"
        " revoke execute on function clinic.peek() from public",
        set(),
    ),
    "definers-temp-last": (
        "create function clinic.peek() returns int language sql security definer"
        " set search_path = pg_temp, pg_catalog return 1;"
        " revoke execute on function clinic.peek() from public",
        set(),
    ),
    "definers-not-superuser": (
        "create function clinic.peek() returns int language sql security definer"
        " set search_path = pg_catalog, pg_temp return 1;"
        " revoke execute on function clinic.peek() from public;"
        " grant execute on function clinic.peek() to {ward}",
        set(),
    ),
    "copies-guarded": (f"create table public.copy as table {LEAF}", set()),
    "tables-protected": ("create table clinic.todo (id int)", set()),
    "active-key": ("update ward_internal.tenant_keys set state = 'decrypt-only'", set()),
    "one-active-key": ("drop index ward_internal.tenant_keys_one_active", set()),
    "own-kek": ("update ward_internal.tenant_keys set kek = 'local:same'", set()),
    "masters-there": ("update ward_internal.tenant_keys set kek = 'master'", set()),
    "key-age": ("update ward_internal.tenant_keys set created_at = now() - interval '366 days'", set()),
    "kek-age": ("update ward_internal.tenant_keys set wrapped_at = now() - interval '366 days'", set()),
    "rotations-finished": (
        "insert into ward_internal.rotations (tenant_id, version, reason, started_at)"
        " select id, 1, 'test', now() - interval '2 days' from ward.tenants",
        set(),
    ),
    "destroyed-keys-gone": (
        "alter table ward_internal.tenant_keys drop constraint tenant_keys_wrapped_until_destroyed",
        set(),
    ),
    "shredded-gone": ("update ward_internal.tenants set status = 'shredded' where slug = '{slug}'", ANY),
    "shredding-finished": (
        "update ward_internal.tenants set status = 'shredding' where slug = '{slug}';"
        " insert into ward_internal.shreddings (tenant_id, code, facts, begun_at)"
        " select id, 'x', '{{}}', now() - interval '2 days' from ward_internal.tenants where slug = '{slug}'",
        set(),
    ),
}
BY_HAND = {
    "tables-protected",
    "own-kek",
    "masters-there",
    "key-age",
    "kek-age",
    "rotations-finished",
    "shredding-finished",
    "passwords-scram",
}
"""Checks whose mend is not a statement to run as it stands."""

ELSEWHERE = {
    "logs-pruned",
    "server-version",
    "pgbouncer-version",
    "other-databases-closed",
    "prepared-transactions",
    "log-keeps-quiet",
    "no-telltale-library",
    "settings-safe",
    "encrypted",
    "authenticated",
    "no-two-phase",
    "checksums",
    "keeper-answers",
    "keeper-version",
    "keeper-socket",
    "keeper-private",
    "kms-files",
    "kms-credentials",
    "issuers-agree",
    "keeper-provider",
    *("scribe-exists", "scribe-at-work", "scribe-required", "scribe-room", "scribe-on-time"),
    "checkpoints-verify",
    "published",
}
"""Checks of what no transaction can weaken: test_doctor_reads_server_and_keeper.py."""

OF_THE_MACHINE = {
    "pgbouncer-version",
    "other-databases-closed",
    "keeper-provider",
    "issuers-agree",
    "scribe-exists",
}
"""Checks whose outcome other tests of the same cluster, or the machine, may change."""


@pytest.fixture(scope="module")
def ill(cluster: Cluster, template: str) -> Iterator[tuple[Database, str]]:
    """A database for the whole module, and the ward in it that is weakened."""
    with clone(cluster, template) as database:
        yield database, f"tenant_{database.new_tenant()}"


@pytest.fixture
def connection(ill: tuple[Database, str]) -> Iterator[psycopg.Connection]:
    with ill[0].admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


def findings(connection: psycopg.Connection, cluster: Cluster) -> dict[str, tuple[Problem, ...]]:
    return {
        finding.check: finding.problems
        for finding in diagnose(Server(connection, cluster.home))
        if finding.outcome != "ok" and finding.check not in OF_THE_MACHINE
    }


def test_nothing_is_found_on_a_healthy_server(cluster: Cluster, connection: psycopg.Connection) -> None:
    assert findings(connection, cluster) == {}


def test_every_check_is_proven() -> None:
    names = [check.name for theme in checks().values() for check in theme]
    assert len(names) == len(set(names))
    assert set(names) == set(WEAKENED) | ELSEWHERE


@pytest.mark.parametrize("check", WEAKENED)
def test_weakness_is_found_and_mended(
    check: str, cluster: Cluster, ill: tuple[Database, str], connection: psycopg.Connection
) -> None:
    database, ward = ill
    weaken, also = WEAKENED[check]
    connection.execute(weaken.format(ward=ward, slug=ward.removeprefix("tenant_"), database=database.name))
    found = findings(connection, cluster)
    assert check in found and (also is ANY or set(found) == {check} | also)
    assert not any(problem.found.startswith("could not") for problem in found[check])
    if check in BY_HAND:
        return
    for problem in found[check]:
        assert problem.mend is not None
        connection.execute(problem.mend)
    assert check not in findings(connection, cluster)
