"""From a row that a clinic writes to a message: by backend, scribe, publisher, and in the schema's form."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from wardkey_core.log import entry

from tests.publisher.publishers import Publisher, verified, wait_published, wait_until
from tests.scribe.scribes import Scribe
from tests.support.database import Database
from tests.support.kafka import Kafka, Message
from tests.support.keepers import Keeper

NAME = "Rosalind Featherstonehaugh"


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    document = json.loads((files("wardkey.publisher") / "event.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


@pytest.fixture
def published(database: Database, kafka: Kafka, publisher: Publisher) -> Iterator[dict[str, list[Message]]]:
    """What became of a patient of acme who is written, changed, read and deleted."""
    keeper = Keeper().start()
    scribe = Scribe(database, keeper)
    try:
        scribe.start()
        publisher.start()
        with database.admin() as admin:
            wait_until(lambda: admin.execute("select 1 from ward_internal.scribe_state").fetchone())
            with database.tenant("acme", subject="dr.grey") as acme:
                acme.execute(
                    "insert into patients (city, name, birth_date) values ('Boston', %s, '1971-03-04')",
                    [NAME],
                )
                acme.execute("update patients set birth_date = '1971-03-05' where city = 'Boston'")
                assert acme.execute("select name from patients where city = 'Boston'").fetchone() == (NAME,)
                acme.execute("delete from patients where city = 'Boston'")
            tenant = database.tenant_id("acme")
            sealed = (
                "select (select size from ward_internal.audit_trees as r where r.tenant_id = b.tenant_id)"
                " from (select tenant_id, unnest(ids) as id from ward_internal.audit_batches) as b"
                " join ward_internal.audit_log as e using (tenant_id, id) where tenant_id = %s"
                " group by tenant_id having bool_or(operation = 'read') and bool_or(operation = 'delete')"
                " and bool_or(operation = 'key_released')"
            )
            wait_until(lambda: admin.execute(sealed, [tenant]).fetchone())
            (size,) = admin.execute(sealed, [tenant]).fetchone() or (0,)
            admin.execute("select pg_notify('wardkey_checkpoint', %s)", [str(tenant)])
            signed = "select 1 from ward_internal.audit_checkpoints where tenant_id = %s and size >= %s"
            wait_until(lambda: admin.execute(signed, [tenant, size]).fetchone())
            acme_topic = wait_published(admin, tenant)
            platform = wait_published(admin, UUID(int=0))
        yield {"acme": kafka.read(acme_topic), "platform": kafka.read(platform)}
    finally:
        print(scribe.errors)
        scribe.remove()
        keeper.remove()


def test_messages_are_sealed_verify_and_fit_the_schema(
    published: dict[str, list[Message]], schema: jsonschema.Draft202012Validator, database: Database
) -> None:
    acme = published["acme"]
    assert NAME.encode() not in b"".join(message.value for message in acme)
    assert b"1971-03" not in b"".join(message.value for message in acme)
    writes = [document for message in acme if (document := json.loads(message.value)).get("kind") == "write"]
    assert [document["operation"] for document in writes] == ["insert", "update", "delete"]
    for image in (json.loads(writes[0]["new"]), json.loads(writes[2]["old"])):
        assert image["city"] == "Boston" and image["name"].startswith("\\x01")
        assert image["birth_date"].startswith("\\x01")
    kinds = {json.loads(message.value).get("operation", message.kind) for message in acme}
    assert kinds >= {"checkpoint", "login", "read", "key_released", "insert", "update", "delete"}, kinds
    report = verified(acme, database.tenant_id("acme"))
    assert report.ok and report.checkpoints, report
    for message in (*acme, *published["platform"]):
        schema.validate(json.loads(message.value))
    for broken in broken_ones(acme):
        assert not schema.is_valid(broken), broken


def broken_ones(messages: list[Message]) -> Iterator[Any]:
    one = next(json.loads(m.value) for m in messages if m.kind == "entry" and b'"new"' in m.value)
    checkpoint = next(json.loads(m.value) for m in messages if m.kind == "checkpoint")
    for member in ("format", "tenant", "id", "at", "kind", "operation"):
        yield {name: value for name, value in one.items() if name != member}
    changes: dict[str, Any] = {
        "format": 2, "tenant": "acme", "id": 7, "at": "2026-03-01T10:00:00Z", "kind": "other",
        "operation": "Insert", "context": "c", "statement": "7", "columns": "name", "old": {}, "new": None,
        "unknown": "member", "transaction": 7,
    }  # fmt: skip
    for name, value in changes.items():
        yield one | {name: value}
    for name, value in {"root": "00", "size": -1, "key": None, "at": "today", "settled": ""}.items():
        changed = copy.deepcopy(checkpoint)
        changed["checkpoint"][name] = value
        yield changed
    yield checkpoint | {"signature": "none"}
    yield checkpoint | one
    yield {"missing": {"leaf": "00" * 32, "position": 1, "tenant": one["tenant"], "why": "because"}}
    yield []


def test_schema_knows_the_members_of_an_entry(schema: jsonschema.Draft202012Validator) -> None:
    known = schema.schema["$defs"]["entry"]
    assert set(known["properties"]) == set(entry._MEMBERS)
    assert set(known["required"]) == set(entry._REQUIRED)
    valid = {
        "missing": {
            "leaf": "00" * 32, "position": 1, "tenant": str(UUID(int=0)), "why": "large",
        }
    }  # fmt: skip
    schema.validate(valid)
