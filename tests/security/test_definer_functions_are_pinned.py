"""ATTACKS 13, 19: what runs with others' rights cannot be steered, and nobody may call it by default."""

from __future__ import annotations

import pytest

from .conftest import SECRET, Wards

OURS = "n.nspname in ('ward', 'ward_internal') or n.nspname ~ '^tenant_'"


def test_every_definer_function_has_a_pinned_path_with_pg_temp_last(calm: Wards) -> None:
    loose = calm.admin.execute(
        f"""select p.oid::regprocedure, proconfig from pg_proc p join pg_namespace n on n.oid = pronamespace
             where ({OURS}) and prosecdef
               and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)"""
    ).fetchall()
    assert loose == []


def test_no_gate_for_tenants_runs_as_a_superuser(calm: Wards) -> None:
    query = f"""select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace
        join pg_roles r on r.oid = proowner
        where ({OURS}) and prosecdef and rolsuper
          and has_function_privilege('tenant_acme', p.oid, 'execute')"""
    assert calm.admin.execute(query).fetchall() == []


def test_public_may_execute_nothing_of_ours(calm: Wards) -> None:
    """PostgreSQL grants EXECUTE to PUBLIC on each new function."""
    query = f"""select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace,
        aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
        where ({OURS}) and acl.grantee = 0"""
    assert calm.admin.execute(query).fetchall() == []


def test_tenants_may_execute_what_is_listed_and_nothing_else(calm: Wards) -> None:
    query = f"""select proname from pg_proc p join pg_namespace n on n.oid = pronamespace
        where ({OURS}) and has_function_privilege('tenant_acme', p.oid, 'execute')"""
    assert {row[0] for row in calm.admin.execute(query).fetchall()} == {
        "login", "login_session", "renew_session", "renew_keys", "logout", "tenant_id", "subject",
        "role", "request_rotation", "narrow_policy", "restore_policy",
        "unseal", "unseal_bytes", "upsert", "parse_array",
        "audit_entries", "audit_acts", "audit_coverage",
        "audit_of_key", "audit_activity", "audit_anomalies", "audit_export",
        "nextval", "currval", "lastval", "setval", "pg_get_serial_sequence",
        "require_context", "is_context_required", "take_refusal", "raise_refusal", "raise_if_refused",
        "raise_no_context",
        "try_tenant_id", "try_claims", "try_logout", "try_unseal", "try_unseal_text",
        "face_constraints",
        "delegate", "revoke_delegation", "publish_measures", "read_measures",
        "request_cache_ticket", "begin_fill", "end_fill", "read_cached",
        "claim", "try_claim", "rule_claim", "tenant_unless", "is_ruled",
        "break_glass", "approve_break_glass", "deny_break_glass", "end_break_glass", "review_break_glass",
        "allow_break_glass", "break_glass_requests",
    }  # fmt: skip


def test_functions_of_the_owner_are_nobodys_by_default(wards: Wards) -> None:
    """A default for one schema would do nothing: only the global one takes PUBLIC's EXECUTE away."""
    wards.admin.execute(
        "set role ward_owner; create function tenant_globex.f() returns int language sql as 'select 1'"
    )
    wards.admin.execute("reset role; grant usage on schema tenant_globex to tenant_acme")
    wards.refuses("select tenant_globex.f()")
    wards.admin.execute(
        "alter default privileges in schema ward_model revoke execute on functions from public"
    )
    wards.admin.execute("create function ward_model.f() returns int language sql as 'select 1'")
    wards.admin.execute("grant usage on schema ward_model to tenant_acme")
    with wards.attacker() as connection:  # the attack works where only the schema's default was revoked
        assert connection.execute("select ward_model.f()").fetchone() == (1,)


def test_face_trigger_cannot_be_called_or_reused(calm: Wards) -> None:
    for slug in ("acme", "globex"):
        calm.refuses(f"select tenant_{slug}.patients_write_{slug}()", "42501", "0A000")


def test_callers_path_does_not_reach_into_login_and_faces(wards: Wards) -> None:
    """Even a tenant that could make objects (a careless DBA's TEMP) does not get them looked at."""
    wards.admin.execute(f"grant temporary on database {wards.database.name} to tenant_acme")
    with wards.attacker(None) as connection:
        connection.execute(
            """
            create temp table tenants (id uuid, status text, key_epoch int, login_role name);
            create temp table issuers (issuer text, document jsonb, generation bigint);
            create temp table patients (tenant_id uuid, id bigint, name bytea);
            create temp table now (x int);
            set search_path = pg_temp, tenant_acme, ward, pg_catalog
            """
        )
        connection.execute("select ward.login_session(%s)", [wards.token()])
        connection.execute("insert into tenant_acme.patients (id, name) values (7, 'Seven')")
        assert connection.execute("select count(*) from tenant_acme.patients").fetchone() == (3,)
        for table in ("tenants", "issuers", "patients"):
            assert connection.execute(f"select count(*) from pg_temp.{table}").fetchone() == (0,)


@pytest.mark.parametrize("path", [None, "pg_catalog, public"])
def test_the_attack_works_on_an_unpinned_function_and_on_one_without_pg_temp(
    wards: Wards, path: str | None
) -> None:
    """A path that does not name pg_temp has it first, for tables."""
    wards.admin.execute(
        f"""
        create table public.settings (tenant text);
        insert into public.settings values ('acme');
        create table public.notes (tenant text, body text);
        insert into public.notes values ('globex', '{SECRET}');
        create function public.own_notes() returns setof text language plpgsql security definer
          {f"set search_path = {path}" if path else ""}
          as 'begin return query select body from public.notes join settings using (tenant); end';
        alter event trigger ward_refuse_grants disable;
        grant temporary on database {wards.database.name} to tenant_acme
        """
    )
    with wards.attacker() as connection:
        connection.execute("set search_path = public")
        connection.execute("create temp table settings as select 'globex'::text as tenant")
        connection.execute("grant select on settings to public")
        assert connection.execute("select public.own_notes()").fetchall() == [(SECRET,)]
    wards.admin.execute("alter function public.own_notes() set search_path = pg_catalog, public, pg_temp")
    with wards.attacker() as connection:
        connection.execute("create temp table settings as select 'globex'::text as tenant")
        assert connection.execute("select public.own_notes()").fetchall() == []


def test_the_attack_works_on_a_view_of_a_superuser(wards: Wards) -> None:
    """ATTACKS 13: such a view reads past every policy, forced or not."""
    wards.admin.execute("create view public.everybody as select city from clinic.patients")
    wards.admin.execute("grant select on public.everybody to ward_tenant")
    with wards.attacker() as connection:
        assert ("Shelbyville",) in connection.execute("select * from public.everybody").fetchall()
    wards.admin.execute("alter view public.everybody owner to ward_owner")
    with wards.attacker() as connection:
        assert ("Shelbyville",) not in connection.execute("select * from public.everybody").fetchall()


def test_no_view_in_a_ward_belongs_to_anybody_but_the_owner(calm: Wards) -> None:
    query = """select c.oid::regclass from pg_class c join pg_namespace n on n.oid = relnamespace
        where nspname ~ '^tenant_' and relowner <> 'ward_owner'::regrole"""
    assert calm.admin.execute(query).fetchall() == []
