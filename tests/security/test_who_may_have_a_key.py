"""Who can have a key and who cannot: an application its own tenant's on its token; who keeps keys, none."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import ColumnKey, commitment, key_aad
from wardkey_core.errors import KeyDestroyed, KeyRefused, WardError

from tests.faults.cells import SECRET, Cell, read, running
from tests.kms.benches import GcpBench
from tests.kms.conftest import cloud_kms, gcpkms_bench  # noqa: F401
from tests.support.database import Database
from tests.support.keepers import field, stranger_asks
from wardkey.kms import KekRef, KmsDenied, open_kms

NIL = "00000000-0000-0000-0000-000000000000"
CHOSEN = bytes(range(32))


@pytest.fixture
def cell(database: Database, gcpkms_bench: GcpBench) -> Iterator[Cell]:  # noqa: F811
    with running(database, gcpkms_bench) as made:
        yield made


@pytest.fixture
def slug(cell: Cell) -> str:
    return cell.new_tenant()


@pytest.fixture
def tenant(cell: Cell, slug: str) -> str:
    return str(cell.id(slug))


def provision(cell: Cell, key: dict[str, Any], tenant: str) -> dict[str, Any]:
    """Have version 2 made, under the KEK of version 1."""
    kek = {"kek": key["kek"], "kek_version": key["kek_version"]}
    return cell.keeper.ask(op="provision", tenant=tenant, version=2, **kek)


def sealed_fields(cell: Cell, slug: str) -> tuple[bytes, bytes, bytes]:
    """Return what a superuser has of the tenant's secret: column id, row id, sealed value."""
    query = f"""
        select uuid_send(c.id), int8send(p.id), p.ssn from sealed_{slug}.patients p,
        ward_internal.sealed_columns c where c.name = 'ssn' and p.id = 1"""
    with cell.database.admin() as admin:
        row = admin.execute(query).fetchone()
    assert row
    return row


def test_an_application_has_its_own_tenants_key_only(cell: Cell, slug: str, tenant: str) -> None:
    other = cell.new_tenant(secret="of the other")
    theirs = str(cell.id(other))
    own_token, own_key, their_key = cell.database.token(slug), cell.key(slug), cell.key(other)
    ask = cell.keeper.ask
    assert ask(op="release", classes=["clinical"], tenant=tenant, token=own_token, **own_key)["classes"]
    attempts: list[dict[str, Any]] = [
        {"tenant": theirs, "token": own_token, **their_key},
        {"tenant": tenant, "token": own_token, **their_key},
        {"tenant": tenant, "token": own_token, **own_key, "version": 2},
        {"tenant": NIL, "token": own_token, **own_key},
        {"tenant": tenant, **own_key},
        {"tenant": tenant, "token": own_token, **own_key, "kek": their_key["kek"]},
    ]
    for attempt in attempts:
        with pytest.raises(KeyRefused):
            ask(**{"op": "release", "classes": ["clinical"], **attempt})
    with cell.connect(slug) as connection:
        assert read(connection) == SECRET


def leaves(value: object) -> Iterator[object]:
    """The names and values of an answer."""
    if isinstance(value, dict):
        yield from value
        value = [*value.values()]
    if isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


def test_no_answer_without_a_token_opens_a_value(cell: Cell, slug: str, tenant: str) -> None:
    """All that the keeper does for who has the database's uid, or an administrator's: nothing is a DEK."""
    key, ask = cell.key(slug), cell.keeper.ask
    newer = cell.keks.rotate(UUID(tenant))
    answers = [
        provision(cell, key, tenant),
        ask(op="rewrap", tenant=tenant, to_kek=newer.name, to_kek_version=newer.version, **key),
        ask(op="status"),
    ]
    for text in (answer[name] for answer in answers for name in ("wrapped", "commitment") if name in answer):
        data = base64.b64decode(text)
        for start in range(len(data) - 31):
            made = commitment(data[start : start + 32], UUID(tenant).bytes, 1)
            assert made != base64.b64decode(key["commitment"])
    assert all(len(str(value)) < 44 for value in leaves(answers[2]))  # a key in base64 has as many
    # What is resealed is sealed under a key that nobody was given either.
    two = answers[0]
    names = ("version", "kek", "kek_version", "wrapped", "commitment")
    (resealed,) = cell.keeper.reseal(
        [key, {name: two[name] for name in names}], field(*sealed_fields(cell, slug)), tenant=tenant
    )
    assert resealed and SECRET.encode() not in resealed
    with pytest.raises(KeyRefused):
        ask(
            op="release",
            classes=["clinical"],
            tenant=tenant,
            token="",
            **{name: two[name] for name in names},
        )


def test_reseal_to_a_key_of_ones_own_choice_is_refused(cell: Cell, slug: str, tenant: str) -> None:
    """He knows the DEK he asks to seal under; he would have to wrap it, and no credential of his can."""
    key, kek = cell.key(slug), KekRef(cell.key(slug)["kek"], cell.key(slug)["kek_version"])
    orchestrator = open_kms(cell.bench.admin_uri, cell.bench.admin_directory)
    with pytest.raises(KmsDenied):
        orchestrator.wrap(kek, CHOSEN, key_aad(UUID(tenant).bytes, 2, "default"))
    with pytest.raises(KmsDenied):
        orchestrator.unwrap(kek, base64.b64decode(key["wrapped"]), key_aad(UUID(tenant).bytes, 1, "default"))
    made = base64.b64encode(commitment(CHOSEN, UUID(tenant).bytes, 2)).decode()
    forged = AESGCM(CHOSEN).encrypt(bytes(12), CHOSEN, key_aad(UUID(tenant).bytes, 2, "default"))
    fields = field(*sealed_fields(cell, slug))
    other = cell.key(cell.new_tenant())
    chosen: list[dict[str, Any]] = [
        {"wrapped": base64.b64encode(forged).decode(), "commitment": made},
        {"wrapped": base64.b64encode(CHOSEN).decode(), "commitment": made},
        {"wrapped": key["wrapped"], "commitment": made},
        {"wrapped": other["wrapped"], "kek": other["kek"], "commitment": made},
        {"kek": "local:" + tenant, "kek_version": "1", "commitment": made},
        {"commitment": made, "master": 1, "salt": base64.b64encode(CHOSEN).decode()},
    ]
    for choice in chosen:
        with pytest.raises(WardError):
            cell.keeper.reseal([key, {**key, "version": 2, **choice}], fields, tenant=tenant)


def test_a_fields_owner_cannot_be_changed(cell: Cell, slug: str, tenant: str) -> None:
    """Another tenant's values do not open under his keys, nor are they resealed."""
    attacker = cell.new_tenant()
    own = str(cell.id(attacker))
    names = ("version", "kek", "kek_version", "wrapped", "commitment")
    two = provision(cell, cell.key(attacker), own)
    keys = [cell.key(attacker), {name: two[name] for name in names}]
    assert cell.keeper.reseal(keys, field(*sealed_fields(cell, slug)), tenant=own) == [b""]
    with pytest.raises(WardError):
        cell.keeper.reseal([cell.key(slug), keys[1]], field(*sealed_fields(cell, slug)), tenant=own)
    token = cell.database.token(attacker)
    answer = cell.keeper.ask(op="release", classes=["clinical"], tenant=own, token=token, **keys[0])
    key = base64.b64decode(answer["classes"]["clinical"])
    column, row, value = sealed_fields(cell, slug)
    for stranger in (UUID(own), UUID(tenant)):
        opener = ColumnKey(key, stranger.bytes, 3, 1, column)
        with pytest.raises(InvalidTag):
            opener.decrypt(value[5:17], value[17:], opener.aad_prefix + row)


@pytest.mark.parametrize("op", ["rewrap", "provision"])
def test_no_key_is_wrapped_under_another_tenants_kek(cell: Cell, slug: str, tenant: str, op: str) -> None:
    """A user of that KEK could open it there."""
    other = cell.key(cell.new_tenant())
    kek = {"kek": other["kek"], "kek_version": other["kek_version"]}
    to = {f"to_{name}": value for name, value in kek.items()}
    request = {**cell.key(slug), **to} if op == "rewrap" else {"version": 2, **kek}
    with pytest.raises(KeyRefused):
        cell.keeper.ask(op=op, tenant=tenant, **request)


def test_the_master_is_released_to_nobody(cell: Cell) -> None:
    derived = cell.new_tenant(mode="derived")
    tenant, token = str(cell.id(derived)), cell.database.token(derived)
    with cell.database.admin() as admin:
        row = admin.execute(
            "select version, kek, kek_version, encode(wrapped, 'base64') from ward_internal.tenant_keys"
            " where tenant_id = %s",
            [NIL],
        ).fetchone()
        salted = admin.execute(
            "select encode(wrapped, 'base64'), encode(commitment, 'base64') from ward_internal.tenant_keys"
            " where tenant_id = %s",
            [tenant],
        ).fetchone()
    assert row and salted
    names = ("version", "kek", "kek_version", "wrapped")
    master = dict(zip(names, (*row[:3], row[3].replace("\n", "")), strict=True))
    of_nobody = cell.issuer.sign_token(NIL, "admin", "ADMIN")
    salt = salted[0].replace("\n", "")
    ask, own = cell.keeper.ask, {"master": master["version"], "salt": salt}
    master |= {"commitment": salted[1].replace("\n", ""), "classes": ["clinical"]}
    assert ask(op="release", tenant=tenant, token=token, **master, **own)["classes"]["clinical"]
    attempts: list[dict[str, Any]] = [
        {"tenant": NIL, "token": of_nobody, **master},
        {"tenant": NIL, "token": token, **master},
        {"tenant": tenant, "token": token, **master},
        {"tenant": NIL, "token": of_nobody, **master, **own},
    ]
    for attempt in attempts:
        with pytest.raises((KeyRefused, Unsupported)):
            ask(**{"op": "release", "classes": ["clinical"], **attempt})
    # A derived key for the nil tenant, or for another one: a commitment and a salt, no key.
    another = str(cell.id(cell.new_tenant()))
    for whose in (NIL, another):
        request = {**master, "version": 1, "master": master["version"]}
        try:
            answer = ask(op="derive", tenant=whose, **request)
        except WardError:
            continue
        assert set(answer) == {"salt", "commitment"}
        with pytest.raises(KeyRefused):
            more = {"master": master["version"], "salt": answer["salt"]}
            ask(
                op="release",
                classes=["clinical"],
                tenant=whose,
                token=token,
                **{**master, "version": 1},
                **more,
            )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become the server's user")
def test_the_databases_uid_ends_no_key(cell: Cell, slug: str, tenant: str) -> None:
    server, key = cell.database.cluster.home.server_user(), cell.key(slug)
    cell.keeper.socket.chmod(0o666)
    for request in (
        {"op": "kek", "action": "destroy", "kek": key["kek"], "kek_version": key["kek_version"]},
        {"op": "kek", "action": "disable", "kek": key["kek"], "kek_version": key["kek_version"]},
        {"op": "kek", "action": "destroy_all"},
        {"op": "shred", "name": slug},
        {"op": "tombstone", "name": slug, "version": 1},
        {"op": "certify", "statement": "gone"},
    ):
        answer = stranger_asks(cell.keeper, {"tenant": tenant, **request}, uid=server.uid)
        assert answer and answer["sqlstate"] == "WK103", (request, answer)
    cell.forget()
    with cell.connect(slug) as connection:
        assert read(connection) == SECRET


def test_the_release_log_says_who_had_what_when_on_whose_token(cell: Cell, slug: str, tenant: str) -> None:
    log = cell.keeper.directory / "release.log"
    before = len(log.read_text().splitlines())
    cell.forget()
    with cell.connect(slug, subject="dr.house", role="VIEWER") as connection:
        pid = connection.info.backend_pid
        assert read(connection) == SECRET
    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    (line,) = [line for line in lines if line["op"] == "release"]
    server = cell.database.cluster.home.server_user()
    assert (line["tenant"], line["version"], line["outcome"]) == (tenant, 1, "released")
    assert (line["subject"], line["role"], line["issuer"]) == ("dr.house", "VIEWER", cell.issuer.name)
    assert (line["uid"], line["pid"]) == (server.uid, pid) and line["time"].endswith("+00:00")
    assert len(line["jti_sha256"]) == hashlib.sha256().digest_size
    with pytest.raises((KeyRefused, KeyDestroyed)):
        cell.keeper.ask(op="release", classes=["clinical"], tenant=tenant, token="", **cell.key(slug))
    refusal = json.loads(log.read_text().splitlines()[-1])
    assert (refusal["outcome"], refusal["tenant"], refusal["subject"]) == ("refused", tenant, None)
