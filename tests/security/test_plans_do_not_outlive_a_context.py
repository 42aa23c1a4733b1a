"""ATTACKS 7, 8: plans made for one context, role or process and used in another."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from tests.support.database import parallel_mode
from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

PARALLEL = (
    "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;"
    f"{parallel_mode('regress')}; set max_parallel_workers_per_gather = 2"
)


def test_context_functions_tell_the_truth_about_themselves(calm: Wards) -> None:
    labels = calm.admin.execute(
        """select proname, provolatile, proparallel from pg_proc
            where pronamespace = 'ward'::regnamespace
              and proname ~ '^(try_)?(tenant_id|claims|subject|role|unseal)$|^unseal_bytes$'"""
    ).fetchall()
    assert len(labels) == 8
    assert all(volatility == "s" and parallel == "r" for _, volatility, parallel in labels)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan", "auto"])
def test_generic_plan_asks_for_the_context_each_time(wards: Wards, mode: str) -> None:
    with wards.attacker(None) as connection:
        connection.execute(f"set plan_cache_mode = {mode}")
        connection.execute("prepare mine(bigint) as select name from patients where id >= $1 order by id")
        with refused("WK001"):
            connection.execute("execute mine(1)")
        for _ in range(7):
            with connection.transaction():
                connection.execute("select ward.login(%s)", [wards.token()])
                assert connection.execute("execute mine(1)").fetchall() == [("Ann Alpha",), ("Al Able",)]
            with refused("WK001"):
                connection.execute("execute mine(1)")


def test_plan_is_not_reused_across_roles(wards: Wards) -> None:
    with wards.database.admin() as connection:
        connection.execute("set session authorization tenant_globex")
        connection.execute("select ward.login_session(%s)", [wards.token("globex")])
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute("prepare theirs as select ssn from tenant_globex.patients where ssn is not null")
        assert connection.execute("execute theirs").fetchall() == [(SECRET,)]
        connection.execute("select ward.logout()")
        connection.execute("set session authorization tenant_acme")
        connection.execute("select ward.login_session(%s)", [wards.token()])
        with refused():
            connection.execute("execute theirs")


def test_parallel_scan_sees_all_rows_or_none(wards: Wards) -> None:
    query = "select count(*), count(name), count(distinct name) from patients"
    with wards.attacker() as connection:
        connection.execute(
            "insert into patients (id, name) select n, 'p' || n from generate_series(10, 509) n"
        )
    with wards.attacker(None) as connection:
        connection.execute(PARALLEL)
        with connection.transaction():
            connection.execute("select ward.login(%s)", [wards.token()])
            assert connection.execute(query).fetchone() == (502, 502, 502)
        with refused("WK001"):
            connection.execute(query)


def test_a_session_that_is_logged_in_makes_no_parallel_plans(wards: Wards) -> None:
    """Its context is renewed from the registry in each transaction, which a parallel plan does not allow."""
    with wards.attacker() as connection:
        connection.execute(PARALLEL.replace("regress", "off"))
        connection.execute("set max_parallel_workers_per_gather = 0")
        assert connection.execute("select count(*) from patients").fetchone() == (2,)
    with wards.attacker() as connection:
        assert connection.execute("show max_parallel_workers_per_gather").fetchone() == ("0",)
        connection.execute(PARALLEL)  # against the rule: an error, or all rows where the leader asks (18)
        with suppress(psycopg.errors.InvalidTransactionState):
            assert connection.execute("select count(*) from patients").fetchone() == (2,)


def test_the_attack_works_with_an_immutable_context_function(wards: Wards) -> None:
    wards.admin.execute(
        f"""
        create function public.frozen_tenant() returns text language plpgsql immutable as
          'begin return current_setting(''app.tenant'', true); end';
        create table public.notes (tenant text, body text);
        insert into public.notes values ('globex', '{SECRET}'), ('acme', 'own');
        alter table public.notes enable row level security;
        create policy own on public.notes using (tenant = public.frozen_tenant());
        grant select on public.notes to ward_tenant
        """
    )
    with wards.attacker(None) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute("set app.tenant = 'globex'")
        connection.execute("prepare stale as select body from public.notes")
        assert connection.execute("execute stale").fetchall() == [(SECRET,)]
        connection.execute("set app.tenant = 'acme'")
        assert connection.execute("execute stale").fetchall() == [(SECRET,)]


def test_the_attack_works_with_a_parallel_safe_context_function(wards: Wards) -> None:
    """Memory of the leader is not that of a worker: rows get lost."""
    wards.admin.execute(
        """
        create function public.mine() returns boolean language plpython3u stable parallel safe as
          'return GD.get("mine", False)';
        create function public.set_mine() returns void language plpython3u as 'GD["mine"] = True';
        create table public.notes as select n from generate_series(1, 5000) n;
        alter table public.notes enable row level security;
        create policy own on public.notes using (public.mine());
        grant select on public.notes to ward_tenant;
        """
    )
    with wards.attacker(None) as connection:
        connection.execute("select public.set_mine()")
        assert connection.execute("select count(*) from public.notes").fetchone() == (5000,)
        connection.execute(PARALLEL)
        connection.execute("set parallel_leader_participation = off")
        assert connection.execute("select count(*) from public.notes").fetchone() == (0,)
