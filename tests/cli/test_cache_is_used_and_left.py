"""``wardkey cache``: the invalidator runs while Redis is configured, and Redis is left as it was."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.caches import until
from tests.support.cli import Wardkey
from tests.support.redis_server import RedisServer
from wardkey.doctor import Problem, Server, checks
from wardkey.embedded import Cluster


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.remove()


def problems(cluster: Cluster) -> tuple[Problem, ...]:
    (check,) = (each for theme in checks().values() for each in theme if each.name == "invalidator-at-work")
    with psycopg.connect(cluster.dsn()) as connection:
        return check.run("", Server(connection, cluster.home)).problems


def test_cache_is_used_shown_and_left(cluster: Cluster, server: RedisServer) -> None:
    wardkey = Wardkey(cluster.home.path)
    with_password = f"unix://u:hunter2@{server.url.removeprefix('unix://')}"
    assert "hunter2" not in wardkey("cache", "use", with_password, code=1).stderr
    assert wardkey.json("cache", "use", server.url) == {"url": server.url, "started": True}
    file = cluster.home.invalidator / "cache.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_uid == cluster.home.invalidator_user().uid
    until(lambda: wardkey.try_out("cache", "status").returncode == 0)
    process = cluster.invalidator.process
    status = wardkey.json("status")["invalidator"]
    assert process and status["pid"] == process.pid and status["configured"] and status["trouble"] is None
    assert "invalidator running for 0:0" in wardkey("status").stdout
    assert problems(cluster) == ()
    assert wardkey.json("cache", "use", server.url)["started"] and process and not process.alive
    assert wardkey.json("cache", "show")["url"] == server.url
    cluster.invalidator.stop()
    assert "invalidator not running" in wardkey("status", code=3).stdout
    assert [problem.fix for problem in problems(cluster)] == ["wardkey up"]
    assert "flushed: all tenants" in wardkey("cache", "flush").stdout
    assert "WK203" in wardkey("cache", "flush", "nobody", code=1).stderr
    assert "WK203" in wardkey("cache", "policy", "nobody", code=1).stderr
    assert "name the tenant" in wardkey("cache", "policy", "--ttl", "5", code=2).stderr
    assert wardkey.json("cache", "policy") == []
    assert wardkey.json("cache", "off") == {"was_configured": True}
    assert problems(cluster) == () and "invalidator" not in wardkey("status").stdout
    assert not file.exists() and cluster.invalidator.process is None
    assert server.connect().ping(), "its default user is let in again"
    wardkey("cache", "status", code=3)
    assert "no cache" in wardkey("cache", "show", code=1).stderr
    assert "wardkey cache use" in wardkey("cache", "run", code=1).stderr
