"""A payer reads what systems delegated, published and the platform released: no row, no small group."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import Any, TypeGuard

import numpy as np
import psycopg
import pytest
from wardkey_core.journal_reader import Event

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.support.journals import journal_of
from wardkey.access.measures import recheck, release
from wardkey.embedded import Cluster
from wardkey.errors import WouldReveal

DIABETES = """
    select city, case when age < 40 then '0-39' when age < 65 then '40-64' else '65+' end as age_band,
           count(*) filter (where ssn like '9%') as numerator,
           count(*) filter (where ssn not like '9%') as complement
      from (select p.city, p.ssn, extract(year from age(period.ends, p.birth_date)) as age
              from patients as p cross join period) as p
     group by 1, 2  -- the latter is made of a sealed column
"""
BANDS = {"0-39": 2000, "40-64": 1970, "65+": 1940}  # years of birth
CITIES = ("East", "West")
QUARTERS = (("2025-01-01", "2025-03-31"), ("2025-04-01", "2025-06-30"))
SYSTEMS = 5


@dataclass(frozen=True)
class Network:
    """A database with a payer and systems, of which each counts so many by group."""

    database: Database
    wardkey: Wardkey
    payer: str
    systems: dict[str, dict[tuple[str, str], tuple[int, int]]]

    def run(self, *words: str, code: int = 0) -> str:
        done = self.wardkey(*words, "--dsn", self.database.dsn(), code=code)
        return done.stdout + done.stderr

    def as_payer(self, query: str) -> list[Any]:
        with self.database.tenant(self.payer, subject="actuary", role="ANALYST") as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def network(cluster: Cluster, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    rng = random.Random(7)
    with clone(cluster, template) as database:
        systems = {
            database.new_tenant(): {
                group: (rng.choice((3, 15, 25, 40)), rng.choice((9, 30, 60)))
                for group in product(CITIES, BANDS)
            }
            for _ in range(SYSTEMS)
        }
        made = Network(database, Wardkey(cluster.home.path), database.new_tenant(), systems)
        measure = tmp_path_factory.mktemp("measure") / "diabetes.sql"
        measure.write_text(DIABETES)
        made.run("access", "measures", "register", "diabetes", str(measure), "--floor", "11")
        made.run("access", "delegation", "register", made.payer)
        for slug, counts in systems.items():
            with database.tenant(slug, subject="admin", role="ADMIN") as system:
                for (city, band), pair in counts.items():
                    for prefix, count in zip("91", pair, strict=True):
                        system.execute(
                            "insert into patients (name, ssn, birth_date, city)"
                            " select 'x', %s || n, make_date(%s, 1, 1), %s from generate_series(1, %s) as n",
                            [prefix, BANDS[band], city, count],
                        )
                system.execute("select ward.delegate(%s, '{diabetes}')", [made.payer])
                for first, last in QUARTERS:
                    system.execute("select ward.publish_measures(daterange(%s, %s, '[]'))", [first, last])
        for quarter in QUARTERS:
            made.run("access", "measures", "release", *quarter)
        yield made


def test_what_is_shown_is_what_was_counted(network: Network) -> None:
    columns = "system, group_values, numerator, complement, systems, rate, first_day::text"
    rows = network.as_payer(f"select {columns} from ward.measures")
    assert {row[6] for row in rows} == {first for first, _ in QUARTERS}
    cells = {(row[0], row[1]["city"], row[1]["age_band"]): row[2:4] for row in rows if row[0]}
    assert cells
    for (system, *group), counts in cells.items():
        assert counts == network.systems[system][tuple(group)] and min(counts) >= 11
    totals = {tuple(sorted(row[1].values())): row[2:6] for row in rows if row[0] is None}
    assert totals
    for group, (ill, well, systems, rate) in totals.items():
        counts = [
            pair
            for own in network.systems.values()
            for place, pair in own.items()
            if not group or tuple(sorted(place)) == group
        ]
        assert (ill, well) == (sum(pair[0] for pair in counts), sum(pair[1] for pair in counts))
        assert systems == SYSTEMS and float(rate) == pytest.approx(ill / (ill + well), abs=1e-4)


def test_who_looked_is_told_to_each_system_and_stays(network: Network) -> None:
    """Also of a transaction that only reads and is rolled back; once a transaction."""
    told = {network.database.tenant_id(slug) for slug in network.systems}
    with journal_of(network.database) as journal:
        with network.database.tenant(network.payer, subject="night.owl", role="VIEWER") as payer:
            payer.execute("begin read only")
            for _ in range(3):
                payer.execute("select count(*) from ward.measures")
            payer.execute("rollback")
        messages = journal.read(lambda seen: sum(is_look(one) for one in seen) >= len(told))
    looks = [one for one in messages if is_look(one)]
    assert {one.tenant for one in looks} == told and len(looks) == len(told)
    who = {"payer": network.payer, "subject": "night.owl", "role": "VIEWER"}
    assert all(one.detail == who for one in looks)
    assert {one.texts["database_role"] for one in looks} == {f"tenant_{network.payer}"}
    assert all("subject" not in one.texts for one in looks)  # who may be somebody else there


def is_look(message: object) -> TypeGuard[Event]:
    return isinstance(message, Event) and message.operation == "measures_read"


def test_a_payer_and_others_reach_nothing_else(network: Network) -> None:
    system = next(iter(network.systems))
    refused = psycopg.errors.InsufficientPrivilege
    for slug in (network.payer, system):
        with network.database.tenant(slug, subject="x", role="ADMIN") as connection:
            for query in (
                "select * from ward_internal.measure_cells",
                "select * from ward.publications",
                "select * from ward.delegations",
                f"select * from tenant_{system if slug == network.payer else network.payer}.patients",
                "select ward.register_measure('mine', 'select 1', 11)",
                "select ward.register_payer('acme')",
                "select * from ward_internal.run_measure('select 1', 'x', '[2025-01-01,2025-04-01)')",
                "select ward_internal.report_to('{}', 'x', '{}')",
            ):
                with pytest.raises(refused):
                    connection.execute(query)
    with network.database.tenant(system, subject="x", role="ADMIN") as connection:
        assert not connection.execute("select * from ward.measures").fetchall()  # nobody delegated to it
    with network.database.tenant(network.payer) as nobody, pytest.raises(psycopg.Error) as error:
        nobody.execute("select * from ward.measures")
    assert error.value.sqlstate == "WK001"


def test_counts_of_hidden_cells_are_forgotten(network: Network) -> None:
    with network.database.admin() as admin:
        (hidden,) = admin.execute(
            "select count(*) from ward_internal.measure_cells where numerator is null"
        ).fetchone()
        (least,) = admin.execute(
            "select min(least(numerator, complement)) from ward_internal.measure_cells"
        ).fetchone()
    assert hidden and least >= 11
    assert f"none of {hidden} hidden cells" in network.run("access", "measures", "check")


def test_a_system_revokes_from_the_next_transaction_on(network: Network) -> None:
    slug = next(iter(network.systems))
    query = "select coalesce(system, 'total'), count(*) from ward.measures group by 1"
    whole = dict(network.as_payer(query))
    with (
        network.database.tenant(network.payer, subject="actuary", role="ANALYST") as payer,
        network.database.tenant(slug, subject="admin", role="ADMIN") as system,
    ):
        assert dict(payer.execute(query).fetchall()) == whole
        system.execute("select ward.revoke_delegation(%s)", [network.payer])
        left = dict(payer.execute(query).fetchall())
        assert left == {name: count for name, count in whole.items() if name not in (slug, "total")}
        assert not system.execute("select * from ward.delegated").fetchall()
        system.execute("select ward.delegate(%s, '{diabetes}')", [network.payer])
        assert dict(payer.execute(query).fetchall()) == whole
    with network.database.admin() as admin:
        admin.execute("select ward.suspend_tenant(%s)", [slug])
        try:
            assert dict(network.as_payer(query)) == left
        finally:
            admin.execute("select ward.resume_tenant(%s)", [slug])
        kinds = admin.execute("select kind from ward.events where slug = %s order by id", [slug]).fetchall()
    own = [kind for (kind,) in kinds if "deleg" in kind or kind.startswith("measure")]
    assert [kind for kind in own if kind != "measures read"] == [
        *("delegated", "measures published", "measures published", "measure released", "measure released"),
        *("delegation revoked", "delegated"),
    ]


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("ward.publish_measures('[2025-01-01,2025-04-01)')", "WK266"),  # twice
        ("ward.publish_measures('[2025-03-31,2025-05-01)')", "WK266"),  # a part of it
        ("ward.publish_measures(daterange(current_date - 9, current_date + 1))", "WK265"),
        ("ward.publish_measures('[2025-01-01,)')", "WK265"),
        ("ward.publish_measures('empty')", "WK265"),
        ("ward.publish_measures(null)", "WK265"),
        ("ward.publish_measures('[2024-01-01,2024-04-01)', '{asthma}')", "WK267"),
        ("ward.publish_measures('[2024-01-01,2024-04-01)', '{}')", "WK267"),
        ("ward.delegate('acme', '{diabetes}')", "WK267"),
        ("ward.delegate('nobody', '{diabetes}')", "WK267"),
        ("ward.delegate(@payer@, '{asthma}')", "WK204"),
        ("ward.delegate(@payer@, '{}')", "WK204"),
        ("ward.delegate(@payer@, null)", "WK204"),
        ("ward.revoke_delegation('acme')", "WK267"),
    ],
)
def test_what_a_system_cannot_do_is_one_clear_error(network: Network, call: str, sqlstate: str) -> None:
    slug = next(iter(network.systems))
    with network.database.tenant(slug, subject="admin", role="ADMIN") as system:
        before = system.execute("select * from ward.delegated").fetchall()
        with pytest.raises(psycopg.Error) as error:
            system.execute(f"select {call.replace('@payer@', repr(network.payer))}")
        assert (error.value.sqlstate, bool(error.value.diag.message_hint)) == (sqlstate, True)
        assert system.execute("select * from ward.delegated").fetchall() == before
    with network.database.tenant(slug, subject="v", role="EVALUATOR") as system:
        with pytest.raises(psycopg.Error) as error:
            system.execute(f"select {call.replace('@payer@', repr(network.payer))}")
        assert error.value.sqlstate == "WK212"


def test_a_system_sees_its_own_delegations_only(network: Network) -> None:
    """Also by the errors of a condition that is looked at before the view's own."""
    with network.database.tenant(next(iter(network.systems)), subject="admin", role="ADMIN") as system:
        assert system.execute("select payer, measure from ward.delegated").fetchall() == [
            (network.payer, "diabetes")
        ]
    with network.database.tenant("acme", subject="admin", role="ADMIN") as stranger:
        assert not stranger.execute("select * from ward.delegated where payer::integer > 0").fetchall()


COUNT = "select city, 1 as numerator, 1 as complement from patients"


@pytest.mark.parametrize(
    ("query", "floor", "sqlstate"),
    [
        (DIABETES, None, "WK264"),
        (DIABETES, 10, "WK264"),
        ("delete from patients returning city, 1 as numerator, 1 as complement", 11, "WK263"),
        (f"with d as (delete from patients returning 1) {COUNT}", 11, "WK263"),
        (f"{COUNT} for update", 11, "WK263"),
        (f"{COUNT}; drop table x", 11, "WK263"),
        (f"{COUNT} where random() < 1", 11, "WK263"),
        (f"{COUNT} where pg_sleep(0) is null", 11, "WK263"),
        (f"{COUNT} where current_setting('a') = 'b'", 11, "WK263"),
        (f"{COUNT} where query_to_xml(city, true, true, '') is null", 11, "WK263"),
        (f"{COUNT} where birth_date < current_date", 11, "WK263"),
        (f"{COUNT} where ward.role() = 'x'", 11, "WK263"),
        (f"{COUNT} where exists (select from pg_authid)", 11, "WK263"),
        (f"{COUNT} where exists (select from ward_internal.tenants)", 11, "WK263"),
        ("select city, 1 as numerator from patients", 11, "WK263"),
        ("select 1 as numerator, 1 as complement from patients", 11, "WK263"),
        ("select city, '1' as numerator, 1 as complement from patients", 11, "WK263"),
        ("select city, 1 as numerator, 1 as complement from nothing", 11, "WK263"),
        ("select", 11, "WK263"),
        (None, 11, "WK263"),
    ],
)
def test_what_is_no_measure_is_refused(
    network: Network, query: str | None, floor: int | None, sqlstate: str
) -> None:
    with network.database.admin() as admin:
        with pytest.raises(psycopg.Error) as error:
            admin.execute("select ward.register_measure('another', %s, %s)", [query, floor])
        assert (error.value.sqlstate, bool(error.value.diag.message_hint)) == (sqlstate, True)
        assert admin.execute("select name from ward.measure_definitions").fetchall() == [("diabetes",)]
        assert admin.execute("select to_regnamespace('ward_probe')").fetchone() == (None,)


def test_a_name_means_one_measure_for_good(network: Network) -> None:
    with network.database.admin(autocommit=False) as admin:
        for statement, sqlstate in (
            ("select ward.register_measure('diabetes', 'select 1', 11)", "WK263"),
            ("select ward.remove_measure('asthma')", "WK204"),
        ):
            with pytest.raises(psycopg.Error) as error, admin.transaction():
                admin.execute(statement)
            assert error.value.sqlstate == sqlstate
        admin.execute("select ward.remove_measure('diabetes')")
        with pytest.raises(psycopg.Error) as error, admin.transaction():
            admin.execute("select ward.register_measure('diabetes', %s, 11)", [DIABETES])
        assert error.value.sqlstate == "WK263"
        admin.rollback()


def test_a_period_is_released_once_and_by_all(network: Network) -> None:
    assert "WK266" in network.run("access", "measures", "release", *QUARTERS[0], code=1)
    assert "WK204" in network.run("access", "measures", "release", "2023-01-01", "2023-03-31", code=1)
    first, *others = network.systems
    with network.database.tenant(first, subject="admin", role="ADMIN") as system:
        system.execute("select ward.publish_measures('[2024-01-01,2024-04-01)')")
    refused = network.run("access", "measures", "release", "2024-01-01", "2024-03-31", code=1)
    assert "WK211" in refused and others[0] in refused
    network.run("access", "measures", "release", "2024-01-01", "2024-03-31", "--incomplete")
    with (
        network.database.tenant(others[0], subject="admin", role="ADMIN") as system,
        pytest.raises(psycopg.Error) as error,
    ):
        system.execute("select ward.publish_measures('[2024-01-01,2024-04-01)')")
    assert error.value.sqlstate == "WK266"
    shown = network.as_payer("select system from ward.measures where first_day = '2024-01-01'")
    assert {system for (system,) in shown} <= {first}  # no total of one


def test_release_and_publication_wait_for_each_other(network: Network) -> None:
    """So what is released is all that was published, and nothing is published behind it."""
    first = next(iter(network.systems))
    day = date(2021, 1, 1), date(2021, 3, 31)
    publish = "select ward.publish_measures('[2021-01-01,2021-04-01)')"
    with (
        network.database.tenant(first) as system,
        network.database.admin(autocommit=False) as admin,
    ):
        system.execute("begin")
        system.execute("select ward.login(%s)", [network.database.token(first)])
        system.execute(publish)
        admin.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable), admin.transaction():
            release(admin, *day, incomplete=True)
        system.execute("commit")
        (made,) = release(admin, *day, incomplete=True)
        assert made.measure == "diabetes" and made.cells
        other = list(network.systems)[1]
        with network.database.tenant(other, subject="admin") as late:
            late.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                late.execute(publish)
            admin.commit()
            with pytest.raises(psycopg.Error) as error:
                late.execute(publish)
            assert error.value.sqlstate == "WK266"


def test_of_a_system_that_goes_no_count_is_left(network: Network) -> None:
    system = network.database.tenant_id(next(iter(network.systems)))
    counted = """
        select count(numerator) from ward_internal.measure_cells
        join ward_internal.publications on id = publication_id where system_id = %s"""
    delegated = "select count(*) from ward_internal.delegations where system_id = %s"
    with network.database.admin(autocommit=False) as admin:
        assert admin.execute(counted, [system]).fetchone() != (0,)
        admin.execute("select ward_internal.forget_measures(%s)", [system])
        for query in (counted, delegated):
            assert admin.execute(query, [system]).fetchone() == (0,)
        recheck(admin)
        admin.rollback()


def test_a_release_that_would_tell_shows_nothing(network: Network) -> None:
    """Somebody put a total into the table, of one system: it tells each of its hidden cells."""
    with network.database.admin(autocommit=False) as admin:
        admin.execute("""
            insert into ward_internal.measure_totals
            select gen_random_uuid(), measure, period, group_values, array[system_id], 0, 0
            from ward_internal.publications join ward_internal.measure_cells on publication_id = id
            where numerator is null and released_at is not null limit 1""")
        with pytest.raises(WouldReveal):
            recheck(admin)
        admin.rollback()


def test_a_measure_that_does_not_count_in_a_ward_publishes_nothing(network: Network) -> None:
    slug = next(iter(network.systems))
    with network.database.admin() as admin:
        admin.execute("select ward.register_measure('broken', %s, 11)", [COUNT])
    try:
        with network.database.tenant(slug, subject="admin", role="ADMIN") as system:
            system.execute("select ward.delegate(%s, '{broken}')", [network.payer])
            with pytest.raises(psycopg.Error) as error:  # a group twice
                system.execute("select ward.publish_measures('[2022-01-01,2022-04-01)')")
            assert error.value.sqlstate == "WK269"
            system.execute("select ward.revoke_delegation(%s, '{broken}')", [network.payer])
        with network.database.admin() as admin:
            assert not admin.execute("select * from ward.publications where measure = 'broken'").fetchall()
    finally:
        with network.database.admin() as admin:
            admin.execute("select ward.remove_measure('broken')")


def test_commands_list_what_there_is(network: Network) -> None:
    assert "diabetes" in network.run("access", "measures", "list")
    listed = network.run("access", "delegation", "list")
    assert all(slug in listed for slug in (network.payer, *network.systems))
    assert QUARTERS[0][0] in network.run("access", "measures", "published")


def test_ten_thousand_queries_tell_no_cell_below_the_floor(network: Network) -> None:
    """Each answer is an equation about what the systems counted; one system's counts are known before."""
    rng = random.Random(17)
    names = [*network.systems, None]
    quarters = [first for first, _ in QUARTERS]
    unknown = list(product(network.systems, quarters, CITIES, BANDS))
    column = {place: number for number, place in enumerate(unknown)}
    truth = np.array([network.systems[system][city, band] for system, _, city, band in unknown])
    rows = network.as_payer("select system, first_day::text, group_values from ward.measures")
    members_of = [np.array([float(of_row(place, *row)) for place in unknown]) for row in rows]
    equations, answers = [], []
    with network.database.tenant(network.payer, subject="actuary", role="ANALYST") as payer:
        payer.execute("begin")
        payer.execute("select ward.login(%s)", [network.database.token(network.payer, "actuary", "ANALYST")])
        for _ in range(10_000):
            some, when = rng.sample(names, rng.randrange(1, 4)), rng.sample(quarters, rng.randrange(1, 3))
            city = rng.choice((None, *CITIES))
            answer = payer.execute(
                "select coalesce(sum(numerator), 0), coalesce(sum(complement), 0) from ward.measures"
                " where coalesce(system, '') = any (%s) and first_day::text = any (%s)"
                " and (%s::text is null or group_values ->> 'city' = %s)",
                [[name or "" for name in some], when, city, city],
            ).fetchone()
            equation = np.zeros(len(unknown))
            for (system, quarter, group), members in zip(rows, members_of, strict=True):
                if system in some and quarter in when and city in (None, group.get("city")):
                    equation += members
            equations.append(equation)
            answers.append(answer)
    matrix = np.array(equations)
    assert np.array_equal(matrix @ truth, np.array(answers, dtype=float))  # the equations are what was asked
    known = next(iter(network.systems))
    own = np.array(
        [
            [float(number == column[place]) for number in range(len(unknown))]
            for place in unknown
            if place[0] == known
        ]
    )
    _, sizes, basis = np.linalg.svd(np.vstack([matrix, own]), full_matrices=False)
    length = np.square(basis[sizes > 1e-7]).sum(axis=0)
    determined = [place for place in unknown if length[column[place]] > 1 - 1e-9 and place[0] != known]
    assert determined and all(min(truth[column[place]]) >= 11 for place in determined)
    assert any(min(truth[column[place]]) < 11 for place in unknown if place[0] != known)


def of_row(place: tuple[str, ...], system: str | None, quarter: str, group: dict[str, str]) -> bool:
    """Whether the count of a system, quarter, city and age band is in a row of ward.measures."""
    return (
        system in (None, place[0])
        and quarter == place[1]
        and all(
            group.get(name, value) == value
            for name, value in zip(("city", "age_band"), place[2:], strict=True)
        )
    )
