"""A sealed export has all it takes to open it, but the KEK; with that, wardkey is not needed.

The decoder is that of ``tests/vectors``: it shares no code with wardkey.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.vectors import decode
from wardkey.embedded import Cluster
from wardkey.kms import KekRef, open_kms

_TABLES = """
create table clinic.visits (
  day date, "place of" uuid, room text, number smallint, note text, picture bytea, "when" timestamptz,
  primary key (room, number, "place of")
);
select ward.protect('clinic.visits', seal => '{note, picture, when}');
create table clinic.letters (code text primary key, body text);
select ward.protect('clinic.letters', seal => '{body}');
"""


@pytest.fixture(scope="module")
def ward(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(_TABLES)
        with database.tenant("acme", role="ADMIN") as acme:
            acme.execute(
                "insert into patients (name, birth_date) values ('Ada Lovelace', '1815-12-10'), ('', null)"
            )
            acme.execute(
                "insert into visits values ('2026-01-01', gen_random_uuid(), 'ä', -3, 'a note', '\\x00ff',"
                " '2026-01-01 1:00+2')"
            )
            acme.execute("insert into letters values ('é,\"', 'a letter')")
        yield database


@pytest.fixture(scope="module")
def exported(ward: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("export") / "acme"
    Wardkey(ward.cluster.home.path)(
        "tenant", "export", "acme", "--to", str(target), "--sealed", "--dsn", ward.dsn()
    )
    return target


@pytest.fixture(scope="module")
def manifest(exported: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((exported / "manifest.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def data_keys(ward: Database, manifest: dict[str, Any]) -> dict[int, bytes]:
    """The data keys by version, as the holder of the KEK unwraps them."""
    kms = open_kms("local:", ward.cluster.home.keeper)
    tenant, keys = UUID(manifest["tenant"]["id"]).bytes, {}
    for key in manifest["keys"]:
        additional = decode.key_additional_data(tenant, key["version"], "default")
        dek = kms.unwrap(KekRef(key["kek"], key["kek_version"]), bytes.fromhex(key["wrapped"]), additional)
        assert decode.commitment(dek, tenant, key["version"]).hex() == key["commitment"]
        keys[key["version"]] = dek
    return keys


def _row_id(parts: list[dict[str, str]], row: dict[str, str]) -> bytes:
    """As the manifest's rules say."""
    forms = {
        "int8": lambda text: int(text).to_bytes(8, "big", signed=True),
        "uuid": lambda text: UUID(text).bytes,
        "text": str.encode,
    }
    fields = [forms[part["as"]](row[part["column"]]) for part in parts]
    return fields[0] if len(fields) == 1 else b"".join(map(decode.prefixed, fields))


def _opened(
    exported: Path, manifest: dict[str, Any], data_keys: dict[int, bytes], name: str
) -> list[dict[str, bytes]]:
    """The table's rows with their sealed columns, decoded."""
    (table,) = [table for table in manifest["tables"] if table["table"] == name]
    tenant, opened = UUID(manifest["tenant"]["id"]).bytes, []
    with (exported / table["file"]).open(newline="") as file:
        for row in csv.DictReader(file):
            opened.append(
                {
                    column["name"]: decode.decode(
                        sealed := bytes.fromhex(row[column["name"]].removeprefix("\\x")),
                        data_keys[int.from_bytes(sealed[2:5], "big")],
                        tenant,
                        UUID(column["sealed"]).bytes,
                        _row_id(table["row_id"], row),
                        manifest["classes"][str(sealed[1])].encode(),
                    )
                    for column in table["columns"]
                    if column["sealed"] and row[column["name"]]
                }
            )
    return opened


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("patients", [{"name": b"Ada Lovelace", "birth_date": b"1815-12-10"}, {"name": b""}]),
        ("visits", [{"note": b"a note", "picture": b"\x00\xff", "when": b"2025-12-31 23:00:00+00"}]),
        ("letters", [{"body": b"a letter"}]),
    ],
)
def test_independent_decoder_opens_it(
    exported: Path,
    manifest: dict[str, Any],
    data_keys: dict[int, bytes],
    table: str,
    rows: list[dict[str, bytes]],
) -> None:
    assert _opened(exported, manifest, data_keys, table) == rows


def test_it_holds_no_plaintext_and_no_key(exported: Path, data_keys: dict[int, bytes]) -> None:
    data = b"".join(path.read_bytes() for path in exported.iterdir())
    assert b"Springfield" in data  # city is not sealed
    for secret in (b"Ada", b"1815-12", b"a note", b"a letter"):
        assert secret not in data
    for dek in data_keys.values():
        assert dek not in data and dek.hex().encode() not in data


def test_only_the_owner_may_read_it_and_it_is_recorded(ward: Database, exported: Path) -> None:
    assert exported.stat().st_mode & 0o077 == 0
    with ward.admin() as admin:
        query = "select detail from ward.events where kind = 'exported' and tenant_id = %s"
        (detail,) = admin.execute(query, [ward.tenant_id("acme")]).fetchone() or ({},)
    assert detail["sealed"] is True and detail["rows"] == {"letters": 1, "patients": 2, "visits": 1}
