"""The committed vectors are what the code makes, and a checker that shares no code with it says the same."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.log import entry, merkle
from wardkey_core.log.checkpoint import Checkpoint, Signed, fingerprint, verify_chain

from tests.audit.logs import Log
from tests.vectors import check_audit
from wardkey.audit.prove import Proof, prove
from wardkey.audit.verify import verify

_DOCUMENT = json.loads((Path(check_audit.__file__).parent / "audit.json").read_text())
_PUBLIC = bytes.fromhex(_DOCUMENT["key"]["public"])
_LOG = Log.of(5, 8, 20, 23)


def _about(vector: dict[str, Any]) -> str:
    return str(vector["about"] if "about" in vector else vector.get("position", vector.get("leaf")))


@pytest.mark.parametrize("vector", _DOCUMENT["entries"], ids=_about)
def test_entries_are_the_vectors(vector: dict[str, Any]) -> None:
    data = entry.encode(vector["entry"])
    assert data == vector["bytes"].encode() == check_audit.canonical(vector["entry"])
    assert entry.decode(data) == vector["entry"]
    assert merkle.leaf_hash(data).hex() == check_audit.leaf(data).hex() == vector["leaf"]


def test_checkpoints_are_the_vectors() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(_DOCUMENT["key"]["private"]))
    chain = []
    for vector in _DOCUMENT["checkpoints"]:
        checkpoint = Checkpoint.decode(vector["bytes"].encode())
        assert checkpoint.digest().hex() == vector["digest"]
        assert (
            key.sign(b"wardkey/1 audit checkpoint\n" + vector["bytes"].encode()).hex() == vector["signature"]
        )
        chain.append(Signed(checkpoint, bytes.fromhex(vector["signature"])))
    assert verify_chain(chain, {fingerprint(_PUBLIC): _PUBLIC}) == chain[-1].checkpoint


@pytest.mark.parametrize("vector", _DOCUMENT["exports"], ids=_about)
def test_exports_are_the_vectors(vector: dict[str, Any]) -> None:
    data = vector["file"].encode()
    report = verify(io.BytesIO(data), keys={fingerprint(_PUBLIC)})
    assert report.ok, report.defect
    assert fingerprint(_PUBLIC).hex() in check_audit.check_export(data)


@pytest.mark.parametrize("vector", _DOCUMENT["proofs"], ids=_about)
def test_proofs_are_the_vectors(vector: dict[str, Any]) -> None:
    data = vector["file"].encode()
    proven = Proof.decode(data).check({fingerprint(_PUBLIC)})
    assert proven["id"] in check_audit.check_proof(data)
    again = prove(io.BytesIO(_DOCUMENT["exports"][0]["file"].encode()), proven["id"])
    assert again.encode() == data and again.position == vector["position"]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 23), st.integers(0, 23), st.data())
def test_checker_and_verifier_agree(one: int, two: int, draw: st.DataObject) -> None:
    """On any part of a log, whole or with lines taken out, doubled or altered."""
    lines = _LOG.export(min(one, two), max(one, two))[:-1].split(b"\n")
    lines = [
        line for line in lines if not line.startswith(b'{"leaves"')
    ]  # the checker does not look at these
    change = draw.draw(st.sampled_from(["none", "remove", "double", "alter"]))
    place = draw.draw(st.integers(0, len(lines) - 1))
    if change == "remove":
        del lines[place]
    elif change == "double":
        lines.insert(place, lines[place])
    elif change == "alter":
        lines[place] = lines[place].replace(b"1", b"2", 1)
    data = b"\n".join(lines) + b"\n"
    try:
        check_audit.check_export(data)
        agreed = True
    except Exception:
        agreed = False
    assert agreed == verify(io.BytesIO(_with_leaves(data))).ok


def _with_leaves(data: bytes) -> bytes:
    made: list[bytes] = []
    block: list[bytes] = []
    for line in data[:-1].split(b"\n"):
        if line.startswith(b'{"a'):
            block.append(check_audit.leaf(line)[:8])
        elif block:
            leaves = check_audit.base64.b64encode(b"".join(block)).decode()
            made.append(check_audit.canonical({"leaves": leaves}))
            block.clear()
        made.append(line)
    return b"\n".join(made) + b"\n"


def test_checker_shares_no_code_with_wardkey() -> None:
    tree = ast.parse(Path(check_audit.__file__).read_text())
    imported = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"__future__", "base64", "hashlib", "json", "sys", "pathlib", "cryptography"}
