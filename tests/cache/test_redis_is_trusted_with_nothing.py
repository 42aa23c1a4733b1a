"""Whatever Redis does, nothing wrong is served: the database is asked, and the log says so."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.caches import CachedDatabase, until
from tests.support.journals import journal_of
from tests.support.redis_server import RedisServer
from wardkey.cache import base, config, users
from wardkey.cache.sealed import marks_name, values_prefix
from wardkey.errors import CacheError


@pytest.fixture
def mine(place: CachedDatabase) -> str:
    token = place.database.token("acme", tenant="acme")
    place.until_hit(token)
    return token


def names(place: CachedDatabase) -> set[bytes]:
    prefix = values_prefix(str(place.database.tenant_id("acme"))).encode()
    return set(spy(place).scan_iter(prefix + b"*"))


def spy(place: CachedDatabase):
    """Return a connection of somebody who has taken over Redis."""
    place.admin().execute_command("ACL SETUSER", "spy", "on", ">spy", "~*", "+@all")
    return place.server.connect("spy", "spy")


def place_of(place: CachedDatabase, mine: str, name: str) -> bytes:
    before = names(place)
    place.until_hit(mine, name)
    (made,) = names(place) - before
    return made


def add(place: CachedDatabase) -> None:
    with place.database.tenant("acme", role="ADMIN") as connection:
        connection.execute("insert into patients (name) values ('Ada')")


def test_nothing_can_be_read_in_redis(place, mine):
    secret = [["a secret"]]
    place.until_hit(mine, "a name", query="select 'a secret'")
    redis = spy(place)
    everything = b"".join(name + (redis.get(name) or b"") for name in redis.scan_iter())
    for told in ("a secret", "a name", "acme", "ADMIN", mine):
        assert told.encode() not in everything
    assert place.get(mine, "a name", query="select 'a secret'") == secret


def test_altered_swapped_and_foreign_values_are_misses(place, mine):
    one, other = place_of(place, mine, "one"), place_of(place, mine, "other")
    redis = spy(place)
    good = {name: redis.get(name) for name in (one, other)}
    for at in (0, 1, 20, -1):
        bad = bytearray(good[one])
        bad[at] ^= 1
        redis.set(one, bytes(bad))
        assert not place.is_hit(mine, "one")
        assert place.is_hit(mine, "one"), "it is stored again"
    for bad in (good[other], b"", b"\x01", good[one][:-1], b"x" * 100):
        redis.set(one, bad)
        assert not place.is_hit(mine, "one")


def test_an_altered_value_is_an_event(place, mine):
    with journal_of(place.database) as journal:
        spy(place).set(place_of(place, mine, "told"), b"altered")
        while place.is_hit(mine, "told"):
            pass
        events = journal.events("cache_trouble")
    assert [event.detail for event in events] == [{"trouble": "altered"}]


def test_a_value_of_before_is_not_served_again(place, mine):
    name = place_of(place, mine, "replayed")
    old = spy(place).get(name)
    add(place)
    place.until_loaded(mine, "replayed")
    now = place.get(mine, "replayed")
    spy(place).set(name, old)
    assert not place.is_hit(mine, "replayed")
    assert place.get(mine, "replayed") == now


def test_marks_that_are_withheld_serve_for_some_seconds_only(place, mine, monkeypatch):
    monkeypatch.setattr(base, "_FRESH_SECONDS", 3.0)
    name = marks_name(str(place.database.tenant_id("acme")))
    redis = spy(place)
    old = redis.get(name)
    place.end()  # now nobody overwrites them
    add(place)

    def is_served() -> bool:
        redis.set(name, old)
        return place.is_hit(mine)

    until(lambda: not is_served())
    place.begin()
    monkeypatch.undo()
    place.until_hit(mine)


def test_marks_that_the_invalidator_did_not_make_serve_nobody(place, mine):
    name = marks_name(str(place.database.tenant_id("acme")))
    redis = spy(place)
    for bad in (b"", b"x" * 200, redis.get(marks_name(str(place.database.tenant_id("globex"))))):
        until(lambda: redis.set(name, bad) and not place.is_hit(mine))  # noqa: B023 - called at once
    place.until_hit(mine)


def test_an_empty_redis_serves_nobody_until_there_are_marks_again(place, mine):
    spy(place).flushall()
    place.get(mine)
    place.until_hit(mine)


def test_redis_away_slow_full_or_restarted_is_a_miss(place, mine):
    count = place.get(mine)
    os.kill(place.server.pid, signal.SIGSTOP)
    place.cache._timeout = 0.1
    place.cache.close()  # the next connections have the timeout
    assert place.get(mine) == count
    os.kill(place.server.pid, signal.SIGCONT)
    place.until_hit(mine)
    place.server.kill()
    assert place.get(mine) == count
    add(place)
    place.server.start("--maxmemory", "1")
    until(lambda: any("refuses" in line for line in place.said))
    assert place.get(mine) == [[count[0][0] + 1]]
    place.server.kill()
    place.server.start()
    place.cache._timeout = 5
    place.cache.close()
    place.until_hit(mine)
    assert place.get(mine) == [[count[0][0] + 1]]


def test_a_connection_that_redis_ended_is_made_again(place, mine):
    place.until_hit(mine)
    with place.admin() as admin:
        assert admin.client_kill_filter(user=f"wardkey-{place.database.tenant_id('acme')}") >= 1
    hits = place.cache.hits
    place.get(mine)
    assert place.cache.hits == hits + 1


def test_somebody_elses_redis_is_refused_and_left_as_it_was():
    server = RedisServer().start()
    try:
        server.connect().set("theirs", "1")
        with pytest.raises(CacheError, match="somebody else's"):
            users.join(config.parse(server.url), "ours")
        assert server.connect().get("theirs") == b"1"
        server.connect().flushall()
        first = config.parse(server.url)
        users.join(first, "ours").close()
        with pytest.raises(CacheError, match="another wardkey"):
            users.join(first, "another")
        with pytest.raises(CacheError, match="does not let us in"):
            users.join(config.parse(server.url), "ours")
        users.leave(first)
        assert server.connect().ping()
        server.kill()
        with pytest.raises(CacheError, match="cannot be reached"):
            users.join(first, "ours")
    finally:
        server.remove()


@pytest.mark.parametrize(
    "url", ["", "redis://", "http://localhost", "unix://", "redis://h:x", "redis://h?password=hunter2"]
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(CacheError) as refused:
        config.parse(url)
    assert "hunter2" not in str(refused.value)


def test_no_password_is_in_a_url_for_clients():
    made = config.parse("rediss://admin:hunter2@cache.example:6380/2")
    assert made.public_url == "rediss://cache.example:6380/2"
    assert "hunter2" not in repr(made)
    assert config.parse(made.public_url, made).password == made.password
