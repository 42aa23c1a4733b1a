"""The committed vectors are what the code makes, and the independent decoder reads them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from wardkey_core import envelope

from tests.vectors import decode

_DIRECTORY = Path(decode.__file__).parent
_DOCUMENT = json.loads((_DIRECTORY / "sealed.json").read_text())


def _about(vector: dict[str, Any]) -> str:
    return str(vector["about"])


def _bytes(vector: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


@pytest.mark.parametrize("vector", _DOCUMENT["sealed"], ids=_about)
def test_decoder_reads_the_vectors(vector: dict[str, Any]) -> None:
    parts = _bytes(vector, "sealed", "dek", "tenant", "column", "row")
    assert decode.decode(*parts, vector["class"].encode()).hex() == vector["plaintext"]


@pytest.mark.parametrize("vector", _DOCUMENT["sealed"], ids=_about)
def test_code_makes_and_opens_the_vectors(vector: dict[str, Any]) -> None:
    dek, tenant, column, row = _bytes(vector, "dek", "tenant", "column", "row")
    plaintext, nonce, sealed = _bytes(vector, "plaintext", "nonce", "sealed")
    version, number = vector["version"], vector["number"]
    of_class = envelope.class_key(dek, tenant, version, vector["class"])
    key = envelope.ColumnKey(of_class, tenant, number, version, column)
    assert key.seal(plaintext, row, nonce).hex() == vector["sealed"]
    assert key.open(sealed, row) == plaintext
    assert envelope.version_of(sealed) == version and envelope.class_of(sealed) == number


@pytest.mark.parametrize("vector", _DOCUMENT["keys"], ids=lambda vector: vector["commitment"][:8])
def test_commitments_and_key_wrapping_are_the_vectors(vector: dict[str, Any]) -> None:
    (dek, tenant), version = _bytes(vector, "dek", "tenant"), vector["version"]
    for module in (envelope.commitment, decode.commitment):
        assert module(dek, tenant, version).hex() == vector["commitment"]
    for wrapping in (envelope.key_aad, decode.key_additional_data):
        assert wrapping(tenant, version, vector["region"]).hex() == vector["additional_data"]


def test_decoder_refuses_what_was_altered() -> None:
    parts = [
        *_bytes(_DOCUMENT["sealed"][0], "sealed", "dek", "tenant", "column", "row"),
        _DOCUMENT["sealed"][0]["class"].encode(),
    ]
    for place in range(len(parts)):
        altered = list(parts)
        altered[place] = bytes([parts[place][0] ^ 1]) + parts[place][1:]
        with pytest.raises(Exception, match=r"^$|not format 1"):
            decode.decode(*altered)


def test_decoder_shares_no_code_with_wardkey() -> None:
    tree = ast.parse(Path(decode.__file__).read_text())
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"__future__", "hashlib", "hmac", "json", "sys", "pathlib", "cryptography"}
