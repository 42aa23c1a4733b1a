"""Each tenant's numbers are what it did, behind its own token, and say nothing that identifies anybody."""

from __future__ import annotations

import hashlib
import re
import socket
import time

import psycopg
import pytest
from wardkey_core.errors import NoContext, WrongTenant

from tests.metrics.conftest import SLUGS, Service, use
from tests.scribe.scribes import wait_for
from tests.support.database import Connection
from wardkey.metrics import registry, tokens
from wardkey.metrics.http import MOST_HEAD
from wardkey.metrics.service import FRESH


def test_numbers_are_what_the_tenant_did(service: Service) -> None:
    for name, expected in {
        "wardkey_transactions_total": 2,
        "wardkey_logins_total": 1,
        "wardkey_rows_opened_total": 3,
        "wardkey_fields_opened_total": 6,
        "wardkey_fields_sealed_total": 8,
        "wardkey_login_seconds_count": 2,
    }.items():
        assert service.value("north", name) == expected, name
        assert service.value("south", name) == 0, name
    assert service.value("north", "wardkey_rows_written_total", operation="insert") == 4
    assert service.value("north", "wardkey_events_total", event="key_released") >= 1
    created = service.value("north", "wardkey_key_created_timestamp_seconds", key="data")
    assert time.time() - 3600 < created < time.time()
    assert service.value("north", "wardkey_key_due_timestamp_seconds", key="data") == created + 365 * 86400


def test_the_platform_tells_of_its_services(service: Service) -> None:
    for name in ("keeper", "scribe"):
        assert service.value(None, "wardkey_up", service=name) == 1
    assert service.value(None, "wardkey_tenants", status="active") >= 2
    assert service.value(None, "wardkey_release_seconds_count") >= 1
    assert service.value(None, "wardkey_kms_seconds_count") >= 1
    assert service.value(None, "wardkey_slot_bytes", part="kept") >= 0
    for name in ("wardkey_backup_timestamp_seconds", "wardkey_backup_proven_timestamp_seconds"):
        assert service.value(None, name) == 0  # never


def test_each_refusal_counts_also_those_that_one_entry_stands_for(
    service: Service, admin: Connection
) -> None:
    """A minute's refusals of one kind are two entries at most; the second one comes when the backend ends."""
    database = service.database
    others = database.token("north")
    with database.tenant("south") as connection:
        for _ in range(5):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute("select ward.login(%s)", [others])
            assert caught.value.sqlstate == WrongTenant.sqlstate
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("select * from visits")
        assert caught.value.sqlstate == NoContext.sqlstate
    counted = (
        "select value from ward_internal.counts where tenant_id = %s and name = 'refusals' and label = %s"
    )
    wait_for(admin, 5, counted, database.tenant_id("south"), "tenant")
    _wait_fresh()
    assert service.value("south", "wardkey_refusals_total", kind="tenant") == 5
    assert service.value("south", "wardkey_refusals_total", kind="no_context") == 0  # a password alone


def test_series_and_labels_are_bounded(service: Service) -> None:
    """And so they are whatever happens: labels that are not listed are an error."""
    every = registry.every()
    assert sum(metric.series for metric in every if metric.is_of_tenants) <= registry.MOST_SERIES
    for slug in (None, *SLUGS):
        families = service.families(slug)
        samples = [sample for family in families.values() for sample in family.samples]
        assert len({(each.name, *each.labels.items()) for each in samples}) == len(samples)
        assert slug is None or len(samples) <= registry.MOST_SERIES
        known = {metric.name: metric for metric in every if metric.is_of_tenants == (slug is not None)}
        for family in families.values():
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if name != "le"}
                assert set(labels.values()) <= set(known[family.name].labels)
    metric = next(each for each in every if each.name == "wardkey_refusals")
    with pytest.raises(ValueError, match="does not list"):
        metric.family({'"} 1\nmade_up{x="': 1.0})


def test_nothing_identifies_a_person_a_row_or_a_tenant(service: Service) -> None:
    for slug in (None, *SLUGS):
        _, text = service.get(tokens.path(slug), service.tokens[slug])
        for secret in ("dr.who", "patient", "visits", "select", "north", "south", "tenant_"):
            assert secret not in text.replace("all tenants", "").lower(), secret
        for tenant in SLUGS:
            assert str(service.database.tenant_id(tenant)) not in text


@pytest.mark.parametrize("slug", [None, *SLUGS])
def test_a_token_reads_its_own_path_only(service: Service, slug: str | None) -> None:
    refused = service.get("/metrics/nobody", "wrong")
    assert refused == (401, "")
    for path in [*map(tokens.path, (None, *SLUGS)), "/metrics/nobody", "/metrics/north/", "/metrics/%6eorth"]:
        for token in (service.tokens[slug], service.tokens[slug] + "x", "", "é", None):
            if path == tokens.path(slug) and token == service.tokens[slug]:
                assert service.get(path, token)[0] == 200
            else:
                assert service.get(path, token and token.encode().decode("latin-1")) == refused, path


def test_the_database_has_the_digest_only(service: Service, admin: Connection) -> None:
    digests = {bytes(row[0]) for row in admin.execute("select sha256 from ward_internal.metrics_tokens")}
    for token in service.tokens.values():
        assert len(token) > 40 and hashlib.sha256(token.encode()).digest() in digests
    log = admin.execute("select detail::text from ward_internal.audit_log where operation like 'metrics%'")
    assert not any(token in (row[0] or "") for row in log for token in service.tokens.values())


def test_a_replaced_token_and_a_gone_tenant_read_nothing(service: Service, admin: Connection) -> None:
    slug = service.database.new_tenant()
    first = tokens.make(admin, slug)
    path = tokens.path(slug)
    _wait_fresh()
    assert service.get(path, first)[0] == 200
    second = tokens.make(admin, slug)
    assert _later(service, path, second, 200) and service.get(path, first)[0] == 401
    tokens.drop(admin, slug)
    assert _later(service, path, second, 401)
    third = tokens.make(admin, slug)
    assert _later(service, path, third, 200)
    with service.database.tenant(slug) as connection:
        use(connection, service.database.token(slug))
    tenant = service.database.tenant_id(slug)
    admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    assert _later(service, path, third, 401)
    for table in ("counts", "metrics_tokens"):
        query = f"select count(*) from ward_internal.{table} where tenant_id = %s"
        wait_for(admin, 0, query, tenant)


def test_only_operators_make_tokens(service: Service, admin: Connection) -> None:
    with service.database.tenant("north", role="ADMIN") as connection:
        for call in ("set_metrics_token('south', ''::bytea)", "drop_metrics_token(null)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select ward.{call}")
    with pytest.raises(psycopg.Error, match="no such tenant"):
        tokens.make(admin, "nobody")
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("select ward.set_metrics_token('north', 'short')")


def test_who_is_slow_or_talks_nonsense_holds_up_nobody(service: Service) -> None:
    """Each of these is answered or left; who asks meanwhile is answered."""
    silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(50)]
    for connection in silent[::2]:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert service.get("/health")[0] == 204
    for sent, expected in (
        (b"\x16\x03\x01 no HTTP\r\n\r\n", rb"HTTP/1\.1 400 "),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 2 * MOST_HEAD + b"\r\n\r\n", rb"HTTP/1\.1 431 "),
        (b"GET /" + b"x" * 2 * MOST_HEAD, rb"HTTP/1\.1 431 "),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx", rb"HTTP/1\.1 401 "),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", rb"HTTP/1\.1 405 "),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", rb"HTTP/1\.1 404 "),
    ):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.settimeout(30)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))
            assert re.match(expected, answer), answer[:80]
            assert answer.endswith(b"\r\n\r\n")
    for connection in silent:  # left after a while, without an answer
        connection.settimeout(60)
        assert connection.recv(100) == b""
        connection.close()


def _wait_fresh() -> None:
    time.sleep(FRESH + 0.1)  # what is told is as old as that


def _later(service: Service, path: str, token: str, status: int) -> bool:
    """Wait until the answer is this: what is told may be some seconds old."""
    deadline = time.monotonic() + 30
    while (answer := service.get(path, token)[0]) != status:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    return True
