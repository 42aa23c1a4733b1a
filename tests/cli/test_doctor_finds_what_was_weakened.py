"""Each check finds its own weakness and no other check does; what it names as the fix heals it.

Everything happens in one transaction that is rolled back, so that no other test meets a weakened cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Database, clone
from wardkey.doctor import Problem, Server, checks, diagnose
from wardkey.embedded import Cluster

ANY: set[str] = set()  # more than can be said
RULE = "select ward.add_row_rule('clinic.patients', '{{VIEWER}}', 'id = 1', 'portal'); "
LEAF = "sealed_{slug}.patients"
FACE = "{ward}.patients"

_UNFOLLOWED = (
    "alter event trigger ward_follow_models disable; {}; alter event trigger ward_follow_models enable always"
)
# check: what weakens its object, and other checks that cannot but see it too
WEAKENED: dict[str, tuple[str, set[str]]] = {
    "models-there": (
        "insert into ward_internal.models (relation, shape, face, row_form) values (123, 124, 'gone', 't')",
        {"leaves-there"},
    ),
    "shapes-follow": (
        _UNFOLLOWED.format("alter table clinic.patients add column extra int"),
        set(),
    ),
    "models-sound": (
        _UNFOLLOWED.format("alter table clinic.patients add constraint seen check (name <> 'x')"),
        set(),
    ),
    "leaves-there": (f"drop table {LEAF} cascade", ANY),
    "finds-there": (
        "select ward.add_search('clinic.patients', 'ssn', '{{exact}}');"
        " do 'begin perform ward_internal.drop_find(''patients'', ''{ward}''); end'",
        set(),
    ),
    "searches-built": (
        "select ward.add_search('clinic.patients', 'ssn', '{{exact}}'); insert into"
        " ward_internal.pending_searches select t.id, s.id from ward_internal.tenants as t,"
        " ward_internal.searches as s where t.slug = '{slug}'",
        set(),
    ),
    "wards-unchanged": (f"drop trigger patients_write on {FACE}", {"others-alone"}),
    "shapes-alone": (
        _UNFOLLOWED.format("create rule r as on insert to ward_model.clinic__patients do instead nothing"),
        set(),
    ),
    "row-rules-stand": (
        RULE + "alter policy ward_rule_portal on ward_model.clinic__patients using (true)",
        set(),
    ),
    "row-rules-cover": (
        RULE + "create table clinic.visits (id int primary key, patient_id bigint references"
        " ward_model.clinic__patients); select ward.protect('clinic.visits')",
        set(),
    ),
    "masks-chosen": ("select ward.classify('clinic.patients', 'name', 'quasi')", set()),
    "functions-unchanged": ("alter function ward.logout() stable", set()),
    "sql-functions-unchanged": (
        "create or replace function ward_internal.quoted_name(p_name name) returns text language sql"
        " immutable strict parallel safe set search_path = pg_catalog, pg_temp return p_name",
        ANY,
    ),
    "registry-unchanged": ("drop index ward_internal.tenant_keys_one_active", set()),
    "event-triggers": ("alter event trigger ward_follow_models enable replica", set()),
    "event-triggers-alone": (
        "create function clinic.f() returns event_trigger language plpgsql as 'begin end';"
        " create event trigger wk_mine on sql_drop execute function clinic.f()",
        set(),
    ),
    "others-alone": ("create function ward.f() returns int language sql return 1", {"extension-grants"}),
    "extension-owners": ("alter function ward.login(text) owner to postgres", ANY),
    "extension-grants": ("grant execute on function ward.unprotect to ward_tenant", set()),
    "ward-functions-closed": ("grant execute on function {ward}.patients_write_{slug}() to public", set()),
    "leaves-only": (
        _UNFOLLOWED.format("create table clinic.stray partition of clinic.patients default")
        + "; select ward_internal.set_row_security('clinic.stray')",
        set(),
    ),
    "nobody-exempt": ("create role wk_exempt bypassrls", set()),
    "ward-roles-powerless": ("alter role ward_owner createdb", set()),
    "ward-services-powerless": ("alter role ward_publisher createrole", set()),
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
    "owners": ("alter table ward_model.clinic__patients owner to postgres", set()),
    "tenant-log-settings": ("alter role {ward} in database {database} set log_statement = 'all'", set()),
    "tenant-search-path": ("alter role {ward} in database {database} set search_path = clinic", set()),
    "tenant-own-settings": ("alter role {ward} set work_mem = '1GB'", set()),
    "passwords-scram": (
        "update pg_authid set rolpassword = 'md5' || md5('x') where rolname = '{ward}'",
        set(),
    ),
    "inner-tables-closed": ("grant select (city) on ward_model.clinic__patients to {ward}", set()),
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
    "invalidator-at-work": ("select ward.set_cache('redis://cache.invalid')", set()),
    "unpublished": ("create publication wk_p for table clinic.patients", set()),
    "registry-whole": (
        "insert into ward_internal.rotation_requests (tenant_id, reason, requested_by)"
        " values (gen_random_uuid(), 'x', 'y'); insert into ward_internal.shares values (123);"
        " insert into ward_internal.sealed_columns (model_id, name) select id, 'x' from ward_internal.models",
        ANY,
    ),
    "tables-protected": ("create table clinic.todo (id int)", set()),
    "active-key": ("update ward_internal.tenant_keys set state = 'decrypt-only'", set()),
    "own-kek": ("update ward_internal.tenant_keys set kek = 'local:same'", set()),
    "masters-there": ("update ward_internal.tenant_keys set kek = 'master'", set()),
    "regions-kept": (
        "update ward_internal.tenants set region = 'us' where slug = '{slug}'",
        {"keeper-regions"},
    ),
    "key-age": ("update ward_internal.tenant_keys set created_at = now() - interval '366 days'", set()),
    "kek-age": ("update ward_internal.tenant_keys set wrapped_at = now() - interval '366 days'", set()),
    "baa-in-force": ("select ward.set('require_baa', 'on')", set()),
    "baa-lasts": (
        "select ward.add_baa('{slug}', 'x', 'y', 'z', sha256(''), current_date - 9, current_date + 9)",
        set(),
    ),
    "break-glass-reviewed": (
        "insert into ward_internal.break_glass (id, tenant_id, issuer, subject, role, classes, minutes,"
        " reason, emergency, state, started_at, until) select gen_random_uuid(), id, 'i', 'dr.x', 'VIEWER',"
        " '{{note}}', 5, 'r', true, 'started', now() - interval '80 h', now() - interval '79 h'"
        " from ward.tenants limit 1",
        set(),
    ),
    "rotations-finished": (
        "insert into ward_internal.rotations (tenant_id, version, reason, started_at)"
        " select id, 1, 'test', now() - interval '2 days' from ward.tenants",
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
    "invalidator-at-work",
    "break-glass-reviewed",
    "baa-in-force",
    "baa-lasts",
    "row-rules-cover",
    "tables-protected",
    "own-kek",
    "masters-there",
    "regions-kept",
    "key-age",
    "kek-age",
    "rotations-finished",
    "searches-built",
    "shredding-finished",
    "passwords-scram",
}
"""Checks whose fix is not a statement to run as it stands."""

ELSEWHERE = {
    "logs-pruned",
    "searches-tell-little",
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
    "policies-agree",
    "budgets-agree",
    "keeper-provider",
    "keeper-regions",
    *("scribe-exists", "scribe-at-work", "scribe-required", "scribe-room", "scribe-on-time"),
    "checkpoints-verify",
    *("powers-known", "registry-accounted", "journal-whole"),
    "published",
}
"""Checks of what no transaction can weaken, of the server, the keeper, the scribe and of earlier runs."""

OF_THE_MACHINE = {
    "pgbouncer-version",
    "other-databases-closed",
    "keeper-provider",
    "issuers-agree",
    "policies-agree",
    "budgets-agree",
    "scribe-exists",
}
"""Checks whose outcome other tests of the same cluster, or the machine, may change."""


@pytest.fixture(scope="module")
def ill(cluster: Cluster, template: str) -> Iterator[tuple[Database, str]]:
    """A database for the whole module, and the ward in it that is weakened."""
    with clone(cluster, template) as database:
        yield database, f"tenant_{database.new_tenant()}"


@pytest.fixture(scope="module")
def backend(ill: tuple[Database, str]) -> Iterator[psycopg.Connection]:
    with ill[0].admin(autocommit=False) as connection:
        yield connection


@pytest.fixture
def connection(backend: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """In a transaction of the test's own; in one backend, whose caches are filled once."""
    yield backend
    backend.rollback()


def findings(connection: psycopg.Connection, cluster: Cluster) -> dict[str, tuple[Problem, ...]]:
    server = Server(connection, cluster.home)
    outcomes = (
        check.run(theme, server)
        for theme, members in checks().items()
        for check in members
        if check.name not in OF_THE_MACHINE
    )
    return {finding.check: finding.problems for finding in outcomes if finding.outcome != "ok"}


def test_nothing_is_found_on_a_healthy_server(cluster: Cluster, connection: psycopg.Connection) -> None:
    reported = {one.check for one in diagnose(Server(connection, cluster.home)) if one.outcome != "ok"}
    assert reported <= OF_THE_MACHINE


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
    reported = findings(connection, cluster)
    assert check in reported and (also is ANY or set(reported) == {check} | also)
    assert not any(problem.detail.startswith("could not") for problem in reported[check])
    if check in BY_HAND:
        return
    for problem in reported[check]:
        assert problem.fix is not None
        connection.execute(problem.fix)
    (mended,) = (one for members in checks().values() for one in members if one.name == check)
    assert mended.run("", Server(connection, cluster.home)).outcome == "ok"
