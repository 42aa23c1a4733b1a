"""A value is served until its tables are written or who sees what changes, and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from threading import Event
from typing import Any

import psycopg
import pytest
from wardkey_core.journal_reader import Counts, decode

from tests.support.caches import CachedDatabase, until
from tests.support.journals import Journal, journal_of
from wardkey import AsyncWards, Wards, errors
from wardkey.access import budgets
from wardkey.cache import AsyncCache
from wardkey.keeper.budgets import BUDGETS_FILE

NAMES = "select id, name, ssn from patients order by id"


def token(place: CachedDatabase, slug: str = "acme", **claims: Any) -> str:
    return place.database.token(slug, tenant=slug, **claims)


def add(place: CachedDatabase, slug: str = "acme") -> None:
    with place.database.tenant(slug, role="ADMIN") as connection:
        connection.execute("insert into patients (name, ssn) values ('Ada', '999-01-0001')")


def test_a_value_is_served_from_redis_until_its_table_is_written(place):
    mine = token(place)
    place.until_hit(mine)
    before = place.get(mine)[0][0]
    add(place, "globex")
    place.get(mine, "another", "select 1")
    assert place.is_hit(mine), "another tenant wrote"
    add(place)
    place.until_loaded(mine)
    assert place.get(mine) == [[before + 1]]


def test_a_fill_that_did_not_see_a_commit_is_not_served_after_it(place):
    """It reads, somebody writes, the write is marked, and only then the value is stored."""
    mine = token(place)
    place.until_hit(mine, "other")
    place.until_hit(mine, "late")
    add(place)
    place.until_loaded(mine, "other")
    place.until_loaded(mine, "late")
    add(place)

    def loader(connection: Any) -> int:
        (count,) = connection.execute("select count(*) from patients").fetchone()
        if not late:
            late.append(count)
            add(place)
            place.until_loaded(mine, "other")
        return int(count)

    late: list[int] = []
    until(lambda: place.is_hit(mine, "other"))
    name = "slow"
    assert place.cache.get_or_load(mine, name, loader) == late[0]
    assert place.cache.get_or_load(mine, name, loader) == late[0] + 1


def test_a_commit_that_waits_is_marked_when_others_see_it(place):
    """Its record is decoded before: a fill that began then did not see it, and read marks without it."""
    mine = token(place)
    place.until_hit(mine, "waiting")
    count = place.get(mine, "waiting")[0][0]
    with place.database.tenant("acme", role="ADMIN") as connection:
        connection.execute("begin")
        connection.execute("insert into patients (name) values ('Bob')")
        assert place.get(mine, "waiting") == [[count]]
        connection.execute("commit")
    place.until_loaded(mine, "waiting")
    assert place.get(mine, "waiting") == [[count + 1]]


def test_a_value_is_its_subjects_and_shared_ones_are_their_roles(place):
    ann, bob = token(place, subject="ann"), token(place, subject="bob")
    analyst = token(place, subject="ann", role="ANALYST")
    theirs = token(place, "globex", subject="ann")
    place.until_hit(ann, "page")
    assert not place.is_hit(bob, "page")
    place.until_hit(ann, "all", shared=True)
    assert place.is_hit(bob, "all", shared=True)
    assert not place.is_hit(analyst, "all", shared=True)
    assert not place.is_hit(theirs, "all", shared=True)
    with place.database.admin() as admin:
        admin.execute("select ward.add_row_rule('clinic.patients', '{ADMIN}', 'id > 0', 'positive')")
    place.until_loaded(bob, "all", shared=True)
    place.until_hit(ann, "all", shared=True)
    assert not place.is_hit(token(place, subject="dan"), "all", shared=True), (
        "a row rule may show others other rows"
    )
    with place.database.admin() as admin:
        admin.execute("select ward.drop_row_rule('clinic.patients', 'positive')")


@pytest.mark.parametrize(
    "change",
    [
        "select ward.set_policy('VIEWER', 'note', 'mask')",
        "select ward.flush_cache('acme')",
        "select ward.set_cache_policy('acme', 200)",
    ],
)
def test_what_changes_who_sees_what_makes_all_values_useless(place, change):
    mine = token(place)
    place.until_hit(mine)
    with journal_of(place.database) as journal:
        with place.database.admin() as admin:
            admin.execute(change)
        place.until_loaded(mine)
        place.until_hit(mine)
        troubles = journal.events("cache_trouble", patience=0)
    assert not [each for each in troubles if each.detail == {"trouble": "away"}], (
        "its password was changed only"
    )


def test_a_suspended_tenant_is_served_nothing(place):
    slug = place.database.new_tenant()
    mine = token(place, slug)
    place.until_hit(mine)
    with place.database.admin() as admin:
        admin.execute("select ward.suspend_tenant(%s)", [slug])

    def is_refused() -> bool:
        try:
            place.get(mine)
        except errors.TenantNotActive:
            return True
        return False

    until(is_refused)
    identity = place.database.tenant_id(slug)
    with place.admin() as redis:
        until(lambda: f"wardkey-{identity}" not in redis.acl_users())


def test_what_was_sealed_is_cached_by_policy_only_and_each_hit_is_journalled(place):
    mine = token(place, subject="carol")
    add(place)
    with place.database.admin() as admin:
        admin.execute("select ward.set_cache_policy('acme')")
    place.until_hit(mine, "count")
    page = place.get(mine, "page", query=NAMES)
    assert not place.is_hit(mine, "page", query=NAMES), "sealed columns were opened"
    with place.database.admin() as admin:
        admin.execute("select ward.set_cache_policy('acme', 300, true)")
    place.until_hit(mine, "page", query=NAMES)
    with journal_of(place.database) as journal:
        assert place.is_hit(mine, "page", query=NAMES)
        reads = journal.reads(len(page))
        assert reads == {str(row[0]): {"name", "ssn"} for row in page}
        place.cache._tickets.clear()
        with place.database.admin() as admin:
            honey = "select ward.add_honey('acme', 'clinic.patients', %s, false)"
            admin.execute(honey, [[str(page[0][0])]])
        place.until_loaded(mine, "page", query=NAMES)
        assert not place.is_hit(mine, "page", query=NAMES), "somebody may open a honey row"
    with place.database.admin() as admin:
        admin.execute("select ward.drop_honey('acme', 'clinic.patients', %s)", [[str(page[0][0])]])
        admin.execute("select ward.set_cache_policy('acme')")


@pytest.mark.parametrize(
    "reads",
    ['{"a": 1}', '[["x", ["name"], ["00"]]]', '[[1, 2, 3]]', '[["{model}", ["nothing"], ["00"]]]',
     '[["{model}", ["name"], []]]', '[["{model}", ["name"], ["zz"]]]', '[["{model}", [], ["00"]]]'],
)  # fmt: skip
def test_what_is_no_read_is_refused(place, reads):
    with place.database.admin() as admin:
        admin.execute("select ward.set_cache_policy('globex', 300, true)")
        (model,) = admin.execute("select id from ward_internal.models where face = 'patients'").fetchone()
    with (
        place.database.tenant("globex", role="ADMIN") as connection,
        pytest.raises(psycopg.Error) as refused,
    ):
        told = [token(place, "globex"), reads.replace("{model}", str(model))]
        connection.execute("select ward.read_cached(%s, %s)", told)
    assert refused.value.sqlstate == "WK212"


def test_a_hit_on_what_was_sealed_logs_in(place):
    """A value in Redis is of no use to a token that the database refuses, whatever ticket its client has."""
    mine, others = token(place, "globex", subject="erin"), token(place, "acme")
    with place.database.admin() as admin:
        admin.execute("select ward.set_cache_policy('globex', 300, true)")
    add(place, "globex")
    place.until_hit(mine, "page", query=NAMES)
    with place.database.tenant("globex") as connection:
        for given, sqlstate in ((mine + "x", "WK002"), (None, "WK002"), (others, "WK004")):
            with pytest.raises(psycopg.Error) as refused:
                connection.execute("select ward.read_cached(%s, '[]')", [given])
            assert refused.value.sqlstate == sqlstate
            assert connection.execute("select ward.tenant_id()").fetchone() == (None,), "no context is left"
        connection.execute("select ward.read_cached(%s, '[]')", [mine])
        assert connection.execute("select ward.tenant_id()").fetchone() == (None,), (
            "it ends with the statement"
        )
    tickets = place.cache._tickets
    forged = mine[:-8] + ("A" * 8 if mine[-8:] != "A" * 8 else "B" * 8)
    tickets[sha256(forged.encode()).digest()] = tickets[sha256(mine.encode()).digest()]
    place.until_hit(mine, "page", query=NAMES)
    with pytest.raises(errors.InvalidToken):
        place.get(forged, "page", query=NAMES)

    async def load(connection: Any) -> Any:
        return [list(row) for row in await (await connection.execute(NAMES)).fetchall()]

    async def hit(journal: Journal) -> None:
        async with AsyncWards(place.database.dsn("tenant_{tenant}")) as wards:
            cache = AsyncCache(wards, timeout=5)
            cache._tickets.update(tickets)
            with pytest.raises(errors.InvalidToken):
                await cache.get_or_load(forged, "page", load)
            while cache.hits < 2:
                journal.read(patience=0)
                page = await cache.get_or_load(mine, "page", load)
            assert len(journal.reads(len(page))) == len(page)
            await cache.close()

    with journal_of(place.database) as journal:
        asyncio.run(hit(journal))


def honey(place: CachedDatabase, row: int) -> Iterator[None]:
    with place.database.admin() as admin:
        admin.execute("select ward.add_honey('globex', 'clinic.patients', %s, false)", [[str(row)]])
        yield
        admin.execute("select ward.drop_honey('globex', 'clinic.patients', %s)", [[str(row)]])


def budget(place: CachedDatabase, row: int) -> Iterator[None]:
    keeper = place.database.cluster.home.keeper
    with place.database.admin() as admin:
        budgets.set_(admin, keeper, "globex", "ADMIN", "clinic.patients", 1_000_000)
        yield
        budgets.drop(admin, keeper, "globex", "ADMIN", "clinic.patients")
    (keeper / BUDGETS_FILE).unlink()


@pytest.mark.parametrize("guarded", [honey, budget])
def test_reads_that_are_watched_or_counted_are_none_out_of_the_cache(place, guarded):
    mine, reads, journal = token(place, "globex", role="ADMIN"), [], place.cache._read
    with place.database.admin() as admin:
        admin.execute("select ward.set_cache_policy('globex', 300, true)")
    add(place, "globex")
    place.cache._read = lambda secret, told: (reads.append(told), journal(secret, told))
    place.until_hit(mine, "guarded", query=NAMES)
    place.cache._read = journal
    read = "select ward.read_cached(%s, %s)"
    with place.database.tenant("globex") as connection:
        connection.execute(read, [mine, reads[-1]])
        with contextmanager(guarded)(place, place.get(mine, "guarded", query=NAMES)[0][0]):
            with connection.transaction():
                connection.execute("select ward.login(%s)", [mine])
                connection.execute(NAMES)  # budgets come with keys
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(read, [mine, reads[-1]])
            assert refused.value.sqlstate == "WK212"
        connection.execute(read, [mine, reads[-1]])


def test_hits_are_told_with_the_next_ticket_and_counted(place):
    mine = token(place, subject="frank")
    place.until_hit(mine, "counted")
    place.cache._tickets.clear()  # what was told of others' hits is told
    place.until_hit(mine, "counted")
    (digest,) = place.cache._tickets
    place.cache._unsaid.clear()
    while sum(place.cache._unsaid.values()) < 3:
        place.get(mine, "counted")
    wards = Wards(place.database.dsn("tenant_{tenant}"))
    with journal_of(place.database) as journal:
        place.cache._wards, before = wards, place.cache._wards
        place.cache._tickets[digest] = replace(place.cache._tickets[digest], asked_at=float("-inf"))
        place.get(mine, "counted")
        place.cache._wards = before
        wards.close()
        told: list[Counts] = []

        def is_told() -> bool:
            told.extend(one for one in map(decode, contents(journal)) if isinstance(one, Counts))
            return any(one.hits for one in told)

        until(is_told)
    assert sum(one.hits for one in told) == 3
    assert sum(place.cache._unsaid.values()) <= 1


def contents(journal: Journal) -> list[bytes]:
    return [message.content for message in journal.messages()]


def test_many_who_want_the_same_load_it_once(place):
    mine, go = token(place), Event()
    place.until_hit(mine)

    def loader(connection: Any) -> int:
        loads.append(1)
        assert go.wait(30)
        return int(connection.execute("select 7").fetchone()[0])

    loads: list[int] = []
    with ThreadPoolExecutor(6) as threads:
        results = [threads.submit(place.cache.get_or_load, mine, "many", loader) for _ in range(6)]
        until(lambda: any(flight.users == 6 for flight in place.cache._flights.values()))
        go.set()
        assert [result.result(60) for result in results] == [7] * 6
    assert len(loads) == 1


def test_the_same_for_asyncio(place):
    mine = token(place)
    place.until_hit(mine)

    async def loader(connection: Any) -> Any:
        loads.append(1)
        return await (await connection.execute("select count(*) from patients")).fetchone()

    async def main() -> None:
        async with AsyncWards(place.database.dsn("tenant_{tenant}")) as wards:
            cache = AsyncCache(wards, timeout=5)
            first = await asyncio.gather(*(cache.get_or_load(mine, "asyncio", loader) for _ in range(8)))
            assert len(set(map(tuple, first))) == 1 and len(loads) == 1
            await asyncio.to_thread(add, place)
            while await cache.get_or_load(mine, "asyncio", loader) == first[0]:
                await asyncio.sleep(0.01)
            await cache.close()

    loads: list[int] = []
    asyncio.run(main())


def test_what_cannot_be_cached_is_said(place):
    mine = token(place)
    place.until_hit(mine)
    with pytest.raises(errors.CacheError, match="no model table 'nothing'"):
        place.get(mine, tables=["nothing"])
    with pytest.raises(errors.CacheError, match="cannot be made into text"):
        place.cache.get_or_load(mine, "date", lambda connection: object())
    with pytest.raises(errors.InvalidToken):
        place.get("a.b.c")


def test_a_table_that_is_named_counts_like_one_that_is_queried(place):
    mine = token(place)
    place.until_hit(mine, "named", query="select 1", tables=["patients"])
    add(place)
    place.until_loaded(mine, "named", query="select 1", tables=["patients"])
