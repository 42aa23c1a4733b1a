"""With its own credential of Redis a tenant reaches nothing of another, whatever command it tries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.caches import CachedDatabase, cached
from tests.support.database import clone
from wardkey.cache import users
from wardkey.cache.sealed import OWNER, marks_name, user_of, values_prefix


@pytest.fixture(scope="module")
def place(cluster, template) -> Iterator[CachedDatabase]:
    with clone(cluster, template) as database, cached(database) as place:
        for slug in ("acme", "globex"):
            place.until_hit(database.token(slug, tenant=slug))
        yield place


@pytest.fixture
def spy(place: CachedDatabase) -> redis.Redis:
    place.admin().execute_command("ACL SETUSER", "spy", "on", ">spy", "~*", "&*", "+@all")
    return place.server.connect("spy", "spy")


@pytest.fixture
def acme(place: CachedDatabase) -> redis.Redis:
    """A connection with acme's credential, as its clients have it."""
    with place.database.tenant("acme", role="ADMIN") as connection:
        (ticket,) = connection.execute("select ward.request_cache_ticket()").fetchone()
    return place.server.connect(user_of(ticket["tenant"]), ticket["password"])


def commands(spy: redis.Redis) -> list[tuple[str, int]]:
    """Return every command that the server knows, subcommands too, and how many words it has at least."""
    with spy.client() as client:
        client.set_response_callback("COMMAND", lambda answer, **_: answer)
        listed: list[Any] = client.execute_command("COMMAND")
    every = [*listed, *(each for command in listed for each in command[9])]
    return sorted((bytes(each[0]).decode(), abs(each[1])) for each in every)


def test_no_command_reaches_another_tenant(place, spy, acme):
    victim = str(place.database.tenant_id("globex"))
    (value,) = spy.scan_iter(values_prefix(victim) + "*")
    stored, known = spy.get(value), commands(spy)
    assert len(known) > 300
    answered = {}
    for name, arity in known:
        words = name.replace("|", " ").split()
        for key in (value.decode(), marks_name(victim), OWNER):
            try:
                answer = acme.execute_command(*words, *[key] * max(arity - len(words), 0))
            except (redis.RedisError, IndexError, TypeError) as error:
                answer = error
                if isinstance(error, redis.ConnectionError):
                    acme.connection_pool.disconnect()
            if not (isinstance(answer, redis.exceptions.NoPermissionError)):
                answered.setdefault(name, answer)
            assert stored not in repr(answer).encode() and bytes(stored) != answer
    allowed = {"ping", "auth", "hello", "quit", "reset", "set", "mget", "get"}
    wrong = {name: answer for name, answer in answered.items() if name not in allowed}
    unanswered = {name: each for name, each in wrong.items() if not isinstance(each, redis.RedisError)}
    assert not unanswered
    assert spy.get(value) == stored and spy.get(OWNER)


def test_its_own_commands_stop_at_its_own_keys(place, acme):
    mine, theirs = (str(place.database.tenant_id(slug)) for slug in ("acme", "globex"))
    own = values_prefix(mine) + "x"
    assert acme.set(own, "1") and acme.get(own) == b"1" and acme.mget(own, marks_name(mine))[1]
    reaches = (
        lambda: acme.get(values_prefix(theirs) + "x"),
        lambda: acme.mget(own, marks_name(theirs)),
        lambda: acme.set(values_prefix(theirs) + "x", "1"),
        lambda: acme.set(marks_name(mine), "forged"),
        lambda: acme.get(OWNER),
        lambda: acme.get(f"w:{mine[:-1]}*:v:"),
        lambda: acme.set(f"w:{theirs}", "1"),
    )
    for reach in reaches:
        with pytest.raises(redis.exceptions.NoPermissionError):
            reach()


def test_the_default_user_and_guessed_passwords_are_let_in_nowhere(place, acme):
    for user, password in ((None, None), ("default", ""), (users.OWN, "x"), (users.OWN, "")):
        with pytest.raises(redis.AuthenticationError):
            place.server.connect(user, password).ping()
    victim = user_of(str(place.database.tenant_id("globex")))
    with place.database.tenant("acme", role="ADMIN") as connection:
        (ticket,) = connection.execute("select ward.request_cache_ticket()").fetchone()
    with pytest.raises(redis.AuthenticationError):
        acme.execute_command("AUTH", victim, ticket["password"])


def test_a_rule_that_is_wider_would_be_found(place, spy, acme):
    """The attack finds what it looks for, where the user may do more."""
    user = user_of(str(place.database.tenant_id("acme")))
    victim = values_prefix(str(place.database.tenant_id("globex")))
    with pytest.raises(redis.exceptions.NoPermissionError):
        acme.scan(0)
    spy.execute_command("ACL SETUSER", user, "+scan")
    assert any(victim in name.decode() for name in acme.scan_iter(count=1000)), "SCAN goes by no key pattern"
    spy.execute_command("ACL SETUSER", user, "-scan")


def test_a_key_rotation_ends_the_former_password(place, acme):
    assert acme.ping()
    with place.database.admin() as admin:
        admin.execute("select ward.flush_cache('acme')")  # whatever makes keys or rights stale does
    place.until_hit(place.database.token("acme", tenant="acme"))
    with pytest.raises(redis.AuthenticationError):
        while True:
            acme.connection_pool.disconnect()
            acme.ping()
