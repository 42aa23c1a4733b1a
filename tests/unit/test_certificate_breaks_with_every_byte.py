"""A certificate of destruction verifies offline, as it was signed and in no other form."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from wardkey.keeper.signing import SigningKey
from wardkey.tenants.certificate import BadCertificate, Certificate, fingerprint, statement_text

_STATEMENT = {
    "what": "certificate of destruction",
    "tenant": {"id": "0b6f0000-0000-4000-8000-00000000000a", "slug": "acme", "name": 'Klinik "Ä" \u2028 😀'},
    "tables": [{"table": "patients", "rows": 12_345_678_901}, {"table": "visits", "rows": 0}],
    "keks": [],
    "operator": None,
}
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def _signed(directory: Path, statement: dict[str, object]) -> Certificate:
    signature, public_key = SigningKey(directory / "signing.key").certify(statement_text(statement))
    return Certificate(statement, signature, public_key)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return _signed(tmp_path, _STATEMENT)


def _holds(data: bytes, trusted: bytes | None = None) -> bool:
    try:
        Certificate.parse(data).verify(trusted)
    except BadCertificate:
        return False
    return True


def test_it_verifies_and_says_what_was_signed(certificate: Certificate) -> None:
    read = Certificate.parse(certificate.to_bytes())
    read.verify()
    read.verify(certificate.public_key)
    assert read.statement == _STATEMENT


def test_every_changed_byte_breaks_it(certificate: Certificate) -> None:
    data = certificate.to_bytes()
    assert _holds(data)
    draw = random.Random(7)
    for place in range(len(data)):
        for other in {data[place] ^ 1, data[place] ^ 0x20, draw.randrange(256)} - {data[place]}:
            changed = data[:place] + bytes((other,)) + data[place + 1 :]
            assert not _holds(changed), (place, changed[place - 5 : place + 5])
        assert not _holds(data[:place] + data[place + 1 :]), place
        assert not _holds(data[:place] + b" " + data[place:]), place


def test_a_valid_document_in_another_form_is_refused(certificate: Certificate) -> None:
    document = certificate.document()
    for other in (
        json.dumps(document).encode(),
        json.dumps(document, indent=1, sort_keys=True).encode() + b"\n",  # not ASCII as \u…
        certificate.to_bytes() + b"\n",
        certificate.to_bytes().replace(b'"operator": null', b'"operator": "x",\n  "operator": null'),
        b"\xef\xbb\xbf" + certificate.to_bytes(),
    ):
        assert not _holds(other)


def test_another_keys_signature_is_told(certificate: Certificate, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    forged = _signed(tmp_path / "other", _STATEMENT)
    assert _holds(forged.to_bytes()) and not _holds(forged.to_bytes(), certificate.public_key)
    mixed = Certificate(_STATEMENT, forged.signature, certificate.public_key)
    assert not _holds(mixed.to_bytes())
    assert fingerprint(forged.public_key) != fingerprint(certificate.public_key)


def test_what_is_signed_is_told_apart_from_other_signatures(certificate: Certificate) -> None:
    """Checked here without our code: the prefix, then the statement, sorted and without blanks."""
    document = json.loads(certificate.to_bytes())
    text = json.dumps(document["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(document["public_key"]))
    signature = base64.b64decode(document["signature"])
    key.verify(signature, b"wardkey/1 certificate of destruction\n" + text.encode())


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _json, max_size=5))
def test_every_statement_has_one_form(statement: dict[str, object]) -> None:
    certificate = Certificate(statement, b"s" * 64, b"p" * 32)
    assert Certificate.parse(certificate.to_bytes()) == certificate
    assert json.loads(statement_text(statement)) == statement


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"statement":1,"signature":"","public_key":""}',
     b'{"statement":{},"signature":1,"public_key":""}',
     b'{"statement":{},"signature":"\xc3\xa4","public_key":""}',
     b'{"statement":{"a":NaN},"signature":"","public_key":""}',
     b'{"statement":{"a":"\\ud800"},"signature":"","public_key":""}'],
)  # fmt: skip
def test_nonsense_is_refused(data: bytes) -> None:
    assert not _holds(data)
