"""A pool for each tenant, bounded in all and for each; whatever the server does, no connection is lost."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from tests.support.pgbouncer import pgbouncer
from wardkey import Wards, errors

WHO = "select session_user::text, ward.subject()"


@pytest.fixture
def token(database):
    """Makes tokens that name their tenant by slug."""
    return lambda slug, subject="ann", **claims: database.token(slug, subject, tenant=slug, **claims)


def open_connections(dsn: str) -> int:
    port = int(conninfo_to_dict(dsn)["port"])
    connections = psutil.Process().net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.raddr.port == port for c in connections)


def roles_connected(database) -> set[str]:
    query = (
        "select usename from pg_stat_activity where datname = current_database() and usename like 'tenant%'"
    )
    with database.admin() as admin:
        return {role for (role,) in admin.execute(query)}


def test_never_more_connections_than_allowed(database, token):
    slugs = ["acme", "globex", database.new_tenant(), database.new_tenant()]
    tokens = {slug: token(slug) for slug in slugs}
    dsn, seen, counts = database.tcp_dsn("tenant_{tenant}"), [], []

    def work(number: int) -> None:
        for round_ in range(12):
            slug = slugs[(number + round_ * (1 + number % 3)) % 4]
            with wards.transaction(tokens[slug]) as connection:
                seen.append((slug, *connection.execute(WHO).fetchone()))
                counts.append(open_connections(dsn))

    with Wards(dsn, max_size=3, max_per_tenant=2, timeout=60) as wards:
        threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 72
        assert {row[1:] for row in seen} == {(f"tenant_{slug}", "ann") for slug in slugs}
        assert all(role == f"tenant_{slug}" for slug, role, _ in seen)
        assert max(counts) == 3
    assert open_connections(dsn) == 0


def test_a_full_pool_is_a_bounded_wait_and_a_clear_error(database, token):
    with Wards(database.dsn("tenant_{tenant}"), max_size=3, max_per_tenant=2, timeout=0.1) as wards:
        with wards.transaction(token("acme")), wards.transaction(token("acme")):
            with pytest.raises(errors.PoolExhausted, match="its tenant") as caught:
                wards.getconn("acme")
            assert "max_per_tenant" in caught.value.hint
            free = wards.getconn("globex")  # one tenant does not take what is another's
            with pytest.raises(errors.PoolExhausted, match="this process"):
                wards.getconn("globex")
            wards.putconn(free)
        for slug in ("acme", "globex"):
            with wards.transaction(token(slug)) as connection:
                assert connection.execute(WHO).fetchone() == (f"tenant_{slug}", "ann")


def test_least_recently_used_tenant_gives_way(database):
    third = database.new_tenant()
    with Wards(database.tcp_dsn("tenant_{tenant}"), max_size=2) as wards:
        for slug in ("acme", "globex", "acme", third):
            wards.putconn(wards.getconn(slug))
        assert open_connections(database.tcp_dsn("x")) == 2
        kept = wards.getconn("acme")
        assert open_connections(database.tcp_dsn("x")) == 2
        wards.putconn(kept)
        while roles_connected(database) != {"tenant_acme", f"tenant_{third}"}:
            pass  # the backend ends after its client


def test_what_nobody_uses_is_closed(database):
    with Wards(database.dsn("tenant_{tenant}"), max_idle=0.2) as wards:
        connections = [wards.getconn("acme") for _ in range(2)]
        for connection in connections:
            wards.putconn(connection)
        while roles_connected(database):  # with no request at all, one connection after the other
            pass
        wards.putconn(wards.getconn("acme"))
        while "tenant_acme" in roles_connected(database):  # with those of others, the whole pool
            wards.putconn(wards.getconn("globex"))


@pytest.mark.parametrize(
    "slug", ["acme host=evil", "Acme", "a" * 49, "", "acme@evil/x?", "ä", "{tenant}", "acme\n"]
)
def test_a_tenant_is_a_slug_or_nothing_is_connected(database, slug):
    with Wards(database.dsn("tenant_{tenant}")) as wards, pytest.raises(errors.InvalidSlug):
        wards.getconn(slug)


def test_only_the_slugs_place_in_the_dsn_changes(database):
    dsn = make_conninfo(database.dsn("tenant_{tenant}"), application_name="{tenant} of {braces}")
    with Wards(dsn) as wards:
        connection = wards.getconn("acme")
        assert connection.info.get_parameters()["application_name"] == "acme of {braces}"
        assert connection.info.user == "tenant_acme"
        wards.putconn(connection)


def test_tenant_ids_are_looked_up(database):
    ids = {str(database.tenant_id(slug)): slug for slug in ("acme", "globex")}
    for tenants in (ids, ids.get):
        with Wards(database.dsn("tenant_{tenant}"), tenants=tenants) as wards:
            with wards.transaction(database.token("globex")) as connection:
                assert connection.execute(WHO).fetchone() == ("tenant_globex", "tester")
            with pytest.raises(errors.UnknownTenant):
                wards.getconn("00000000-0000-0000-0000-000000000000")


def test_tenant_that_is_suspended_between_two_requests(database, token):
    slug = database.new_tenant()
    mine = token(slug)
    with Wards(database.dsn("tenant_{tenant}"), max_size=1) as wards, database.admin() as admin:
        for _ in range(2):
            with wards.transaction(mine) as connection:
                assert connection.execute(WHO).fetchone() == (f"tenant_{slug}", "ann")
            admin.execute("select ward.suspend_tenant(%s)", [slug])
            with pytest.raises(errors.TenantNotActive), wards.transaction(mine) as connection:
                connection.execute(WHO)
            admin.execute("select ward.resume_tenant(%s)", [slug])


def test_token_that_expires_in_the_life_of_a_pool(database, token):
    with Wards(database.dsn("tenant_{tenant}"), max_size=1) as wards, database.admin() as admin:
        (document,) = admin.execute("select document from ward.issuers").fetchone()
        admin.execute("select ward.add_issuer(%s)", [Jsonb({**document, "max_skew": 0})])
        lifetime, answers = 1, 0
        while not answers:  # a slow machine may need more than a second for its first answer
            short = token("acme", lifetime=lifetime)
            with pytest.raises(errors.TokenExpired) as caught:
                while True:
                    with wards.transaction(short) as connection:
                        connection.execute(WHO)
                        answers += 1
            lifetime *= 2
        assert short not in f"{caught.value!r}{caught.value.hint}"
        with wards.transaction(token("acme")) as connection:
            assert connection.execute(WHO).fetchone() == ("tenant_acme", "ann")


def test_backends_that_ended_while_their_connections_lay_in_the_pool(database, token):
    with Wards(database.dsn("tenant_{tenant}"), max_per_tenant=3) as wards, database.admin() as admin:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(wards.transaction(token("acme"))).execute(WHO)
        end = "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity where datname = %s"
        assert admin.execute(f"{end} and usename = 'tenant_acme'", [database.name]).fetchone() == (3,)
        for _ in range(4):
            with wards.transaction(token("acme")) as connection:
                assert connection.execute(WHO).fetchone() == ("tenant_acme", "ann")


def test_pgbouncer_that_is_restarted(database, token):
    with (
        pgbouncer(database, ["acme"], pool_size=2) as dsns,
        Wards(dsns["acme"], prepare_threshold=None, max_per_tenant=2, timeout=30) as wards,
    ):
        for _ in range(2):
            with wards.transaction(token("acme")) as one, wards.transaction(token("acme", "bob")) as two:
                assert one.execute(WHO).fetchone() == ("tenant_acme", "ann")
                assert two.execute(WHO).fetchone() == ("tenant_acme", "bob")
            with pytest.raises(psycopg.OperationalError), wards.transaction(token("acme")) as connection:
                connection.execute(WHO)
                dsns.restart()
                connection.execute(WHO)


def test_passwords_that_are_rotated(database, caplog):
    slug = database.new_tenant()
    password, wrong = "a new one", "not the right one"

    def current(tenant: str) -> str:
        assert tenant == slug
        return password

    dsn = make_conninfo(database.dsn("tenant_{tenant}"), passfile=os.devnull)
    with (
        database.admin() as admin,
        Wards(dsn, password=current, timeout=5) as wards,
        caplog.at_level(logging.DEBUG),
    ):
        admin.execute(f"alter role tenant_{slug} password '{password}'")
        old = wards.getconn(slug)
        password = wrong
        with pytest.raises(errors.Unreachable, match="password") as caught:
            wards.getconn(slug)
        assert old.execute("select 1").fetchone() == (1,)
        wards.putconn(old)
        admin.execute(f"alter role tenant_{slug} password '{wrong}'")
        wards.putconn(wards.getconn(slug))
        told = f"{caught.value!r}{caught.value.hint}{caplog.text}{wards!r}"
        assert "a new one" not in told
        assert wrong not in told


def test_password_that_cannot_be_read(database):
    def password(_: str) -> str:
        raise OSError("the vault said: hunter2")

    wards = Wards(database.dsn("tenant_{tenant}"), password=password, timeout=5)
    with wards, pytest.raises(errors.Unreachable, match="OSError") as caught:
        wards.getconn("acme")
    assert "hunter2" not in f"{caught.value!r}{caught.value.__context__!r}"


def test_neither_log_nor_repr_has_a_token(database, token, caplog):
    mine = token("acme")
    with caplog.at_level(logging.DEBUG), Wards(database.dsn("tenant_{tenant}"), max_size=1) as wards:
        with wards.transaction(mine) as connection:
            shown = [repr(wards), repr(connection), repr(connection.cursor()), repr(vars(connection))]
            connection.execute(WHO)
        with pytest.raises(ZeroDivisionError), wards.transaction(mine) as connection:
            connection.execute(WHO)
            raise ZeroDivisionError
        with pytest.raises(psycopg.OperationalError), wards.transaction(mine) as connection:
            connection.pgconn.finish()
            connection.execute(WHO)
        shown += [repr(wards), repr(vars(wards))]
    signature = mine.rpartition(".")[2]
    assert "psycopg.pool" in {record.name for record in caplog.records}
    assert signature not in "".join(shown) + caplog.text + "".join(
        repr(vars(record)) for record in caplog.records
    )


def test_nothing_is_given_after_the_end(database):
    wards = Wards(database.dsn("tenant_{tenant}"))
    out: Any = wards.getconn("acme")
    wards.close()
    with pytest.raises(errors.Unreachable, match="closed"):
        wards.getconn("acme")
    wards.putconn(out)
    assert out.closed
