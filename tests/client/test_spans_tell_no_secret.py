"""Spans of login, release and KMS calls have names, numbers and SQLSTATEs: no token, SQL or value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from wardkey_core.errors import KeyRefused

from tests.support.database import Database
from tests.support.keepers import ACME, GLOBEX, Keeper
from wardkey import Wards, errors, tracing

NAME = "Rosalind Featherstonehaugh"
# A keeper whose spans are written as JSON, by the SDK's own exporter, to stderr.
_TRACED = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
one_line = lambda span: "SPAN " + span.to_json(indent=None) + "\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr, formatter=one_line)))
trace.set_tracer_provider(provider)
from wardkey.keeper.__main__ import SERVICE
sys.exit(SERVICE.main(sys.argv[1:]))
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(tracing, "_api", None)
    tracing.enable()
    exporter.clear()
    yield exporter
    provider.shutdown()


def test_a_login_is_a_span_of_the_client(database: Database, spans: InMemorySpanExporter) -> None:
    token = database.token("acme", subject="ann")
    with Wards(database.dsn("tenant_acme"), max_size=1) as wards:
        with wards.transaction(token) as connection:
            connection.execute("insert into patients (name) values (%s)", [NAME])
        with wards.transaction(token):
            pass
        with pytest.raises(errors.InvalidToken), wards.transaction(token[:-5] + "AAAAA") as connection:
            connection.execute("select 1")
        with pytest.raises(Exception, match="patients_pkey"), wards.transaction(token) as connection:
            connection.execute("insert into patients (id, name) values (1, %s), (1, %s)", [NAME, NAME])
    told = spans.get_finished_spans()
    assert [one.name for one in told] == ["wardkey.login"] * 4
    shares = [dict(one.attributes or {})["wardkey.shares_round_trip"] for one in told]
    assert shares == [True, False, True, True]
    assert [dict(one.attributes or {}).get("wardkey.sqlstate") for one in told] == [None, None, "WK002", None]
    assert [one.status.is_ok for one in told] == [True, True, False, True]
    text = "".join(one.to_json() for one in told)
    assert not any(secret in text for secret in (token, NAME, "insert", "patients"))
    assert not any(one.events for one in told)


def test_release_and_kms_are_spans_of_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDKEY_TRACES", "on")
    keeper = Keeper()
    try:
        keeper.start(program=("-c", _TRACED))
        request = keeper.provision()
        released = keeper.ask(**request)
        with pytest.raises(KeyRefused):
            keeper.ask(**request | {"token": keeper.token(GLOBEX)})
        assert keeper.stop() == 0
        lines = [line[5:] for line in keeper.errors.splitlines() if line.startswith("SPAN ")]
        told: list[dict[str, Any]] = [json.loads(line) for line in lines]
        releases = [one for one in told if one["name"] == "wardkey.release"]
        attributes = [one["attributes"] for one in releases]
        named = {"wardkey.tenant": ACME, "wardkey.key_version": 1, "wardkey.classes": 1}
        assert attributes == [named, named | {"wardkey.sqlstate": "WK103"}]
        assert [one["status"]["status_code"] for one in releases] == ["UNSET", "ERROR"]
        calls = [one for one in told if one["name"] == "wardkey.kms"]
        assert calls and all(one["attributes"]["wardkey.kms"] == "local" for one in calls)
        for one in told:
            allowed = tracing.SPANS.get(one["name"], frozenset()) | {"wardkey.sqlstate"}
            assert one["attributes"].keys() <= allowed and one["events"] == []
        text = "".join(lines)
        secrets = (request["token"], request["wrapped"], *released["classes"].values())
        assert not any(secret in text for secret in secrets)
    finally:
        keeper.remove()


def test_without_it_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_api", None)
    assert tracing.begin("wardkey.login", db_system_name="postgresql") is None
    with tracing.span("wardkey.kms", wardkey_kms="local", wardkey_attempt=1):
        pass
