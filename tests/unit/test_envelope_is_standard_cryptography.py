"""AES-GCM and HKDF, through the very objects that seal, give the answers of NIST (CAVP) and RFC 5869."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from wardkey_core import envelope
from wardkey_core.envelope import ColumnKey

_VECTORS = Path(cryptography_vectors.__file__).parent


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yield the ``name = value`` blocks of a response file; a line FAIL is a value too."""
    block: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if block:
                yield block
            block = {}
        elif not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            block[name.strip()] = value.strip()


def _cavp(name: str) -> list[dict[str, bytes]]:
    """Return the vectors of NIST with wardkey's sizes: 96-bit nonce, 128-bit tag."""
    cases = []
    for block in _blocks((_VECTORS / "ciphers/AES/GCM" / name).read_text()):
        if "Key" not in block or len(block["IV"]) != 24 or len(block["Tag"]) != 32:
            continue
        names = ["Key", "IV", "CT", "AAD", "Tag", "PT"]
        cases.append({name: bytes.fromhex(block[name]) for name in names if name in block})
    return cases


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ColumnKey]]:
    """ColumnKey with the vector's key in place of the derived one: what is left is its cipher."""
    monkeypatch.setattr(envelope, "hkdf", lambda key, salt, info: key)
    yield ColumnKey


def _key(dek: bytes) -> ColumnKey:
    return ColumnKey(dek, bytes(16), 3, 1, bytes(16))


def test_encryption_is_nists(keyed: type[ColumnKey]) -> None:
    cases = _cavp("gcmEncryptExtIV256.rsp")
    assert len(cases) == 375
    for case in cases:
        encrypted = _key(case["Key"]).encrypt(case["IV"], case["PT"], case["AAD"])
        assert encrypted == case["CT"] + case["Tag"]


def test_decryption_and_its_refusals_are_nists(keyed: type[ColumnKey]) -> None:
    cases = _cavp("gcmDecrypt256.rsp")
    refused = 0
    for case in cases:
        key, sealed = _key(case["Key"]), case["CT"] + case["Tag"]
        if "PT" in case:
            assert key.decrypt(case["IV"], sealed, case["AAD"]) == case["PT"]
        else:
            refused += 1
            with pytest.raises(InvalidTag):
                key.decrypt(case["IV"], sealed, case["AAD"])
    assert len(cases) == 375
    assert refused > 100


def test_key_derivation_is_rfc_5869s() -> None:
    checked = 0
    text = (_VECTORS / "KDF/rfc-5869-HKDF-SHA256.txt").read_text()
    assert text.count("COUNT =") == 3
    for part in text.split("COUNT =")[1:]:
        values = {
            name.strip(): bytes.fromhex(value.strip())
            for name, eq, value in (line.partition("=") for line in part.splitlines())
            if eq and name.strip() in ("IKM", "salt", "info", "OKM")
        }
        derived = envelope.hkdf(values["IKM"], values.get("salt", b""), values.get("info", b""))
        assert derived == values["OKM"][:32]
        checked += 1
    assert checked == 3
