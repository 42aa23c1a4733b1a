"""``wardkey cache``: the invalidator runs while Redis is configured, and Redis is left as it was."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import pytest

from tests.support.caches import until
from tests.support.cli import Wardkey
from tests.support.redis_server import RedisServer
from wardkey.embedded import Cluster


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.remove()


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
    assert wardkey.json("cache", "use", server.url)["started"] and process and not process.alive
    assert wardkey.json("cache", "show")["url"] == server.url
    assert "flushed: all tenants" in wardkey("cache", "flush").stdout
    assert "WK203" in wardkey("cache", "flush", "nobody", code=1).stderr
    assert "WK203" in wardkey("cache", "policy", "nobody", code=1).stderr
    assert "name the tenant" in wardkey("cache", "policy", "--ttl", "5", code=2).stderr
    assert wardkey.json("cache", "policy") == []
    assert wardkey.json("cache", "off") == {"was_configured": True}
    assert not file.exists() and cluster.invalidator.process is None
    assert server.connect().ping(), "its default user is let in again"
    wardkey("cache", "status", code=3)
    assert "no cache" in wardkey("cache", "show", code=1).stderr
    assert "wardkey cache use" in wardkey("cache", "run", code=1).stderr
