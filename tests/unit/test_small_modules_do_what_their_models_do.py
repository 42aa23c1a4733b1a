"""What stands in for ``typing.NamedTuple``, ``json`` and ``cryptography`` in a backend does what they do."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core import ciphers, plain_json
from wardkey_core.records import Record
from wardkey_core.tokens import Claims


class Model(NamedTuple):
    name: str
    size: int
    note: str | None = None


class Light(Record):
    name: str
    size: int
    note: str | None = None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
)


@pytest.mark.parametrize(
    ("values", "named"),
    [(("a", 1), {}), (("a", 1, "b"), {}), (("a",), {"size": 2}), ((), {"note": "n", "name": "a", "size": 3})],
)
def test_record_is_made_as_a_named_tuple_is(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    light, model = Light(*values, **named), Model(*values, **named)
    assert light == model and hash(light) == hash(model)
    assert (light.name, light.size, light.note) == model
    assert repr(light) == repr(model).replace("Model", "Light")
    assert light._replace(size=9) == model._replace(size=9)
    assert type(light._replace(size=9)) is Light


@pytest.mark.parametrize(
    ("values", "named"),
    [(("a",), {}), (("a", 1, "b", "c"), {}), (("a", 1), {"other": 2}), (("a", 1), {"name": "b"})],
)
def test_record_refuses_what_a_named_tuple_refuses(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (Light, Model):
        with pytest.raises(TypeError):
            kind(*values, **named)


def test_record_does_not_change() -> None:
    light: Any = Light("a", 1)
    for name in ("name", "other"):
        with pytest.raises(AttributeError):
            setattr(light, name, 2)


def test_record_is_pickled() -> None:
    claims = Claims("i", "s", "t", "ADMIN", 1.0, 0.0, "j")
    assert pickle.loads(pickle.dumps(claims)) == claims


@given(_JSON)
def test_json_is_written_and_read_as_json_does(value: Any) -> None:
    written = plain_json.dumps(value)
    assert written == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert plain_json.loads(f" \t{written}\r\n") == json.loads(written) == value
    assert plain_json.dumps(value, ascii_only=True) == json.dumps(value, separators=(",", ":"))


@given(st.text(st.sampled_from('{}[]",:\\ 0123456789.-+eEtrufalsn\n\u00a0\ufeff')))
def test_json_takes_what_json_takes(text: str) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        expected = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except ValueError:
        with pytest.raises(ValueError):
            plain_json.loads(text)
    else:
        assert plain_json.loads(text) == expected


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":2}', '[{"a":1,"a":1}]', "NaN", "[-Infinity]", "1 2", "", "\ufeff1"]
)
def test_json_refuses_what_has_two_meanings(text: str) -> None:
    with pytest.raises(ValueError):
        plain_json.loads(text)


def test_json_without_its_c_functions_is_the_same() -> None:
    code = (
        "import sys; sys.modules['_json'] = None\n"
        "from wardkey_core import plain_json as p\n"
        "assert p.loads(' [1,{\"a\":\"\\\\u00e4\"}] ') == [1, {'a': 'ä'}]\n"
        "assert p.dumps([1, {'a': 'ä'}]) == '[1,{\"a\":\"ä\"}]'\n"
        "for bad in ('NaN', '{\"a\":1,\"a\":1}', '1 1', ''):\n"
        "    try:\n        p.loads(bad)\n    except ValueError:\n        continue\n    sys.exit(bad)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.binary(max_size=64))
def test_hkdf_is_the_one_of_cryptography(key: bytes, salt: bytes, info: bytes) -> None:
    assert ciphers.hkdf(key, salt, info) == HKDF(SHA256(), 32, salt, info).derive(key)


@given(st.binary(max_size=300))
def test_hashes_are_those_of_hashlib(data: bytes) -> None:
    assert ciphers.sha256(data).digest() == hashlib.sha256(data).digest()
    assert ciphers.blake2b(data, digest_size=32).digest() == hashlib.blake2b(data, digest_size=32).digest()


def test_ciphers_are_those_of_cryptography() -> None:
    assert ciphers.AESGCM is AESGCM
    assert (ciphers.InvalidTag, ciphers.InvalidSignature) == (InvalidTag, InvalidSignature)
    private = Ed25519PrivateKey.generate()
    key = ciphers.ed25519_key(private.public_key().public_bytes_raw())
    key.verify(private.sign(b"signed"), b"signed")
    with pytest.raises(InvalidSignature):
        key.verify(private.sign(b"signed"), b"other")
    with pytest.raises(ValueError):
        ciphers.ed25519_key(bytes(31))


def test_ciphers_come_from_the_public_modules_where_the_others_are_not() -> None:
    code = (
        "import sys, types\n"
        "import cryptography.hazmat.bindings._rust as rust\n"
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCM\n"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey\n"
        "rust.openssl = types.SimpleNamespace()\n"
        "from wardkey_core import ciphers\n"
        "assert ciphers.AESGCM is AESGCM\n"
        "assert isinstance(ciphers.ed25519_key(bytes(32)), Ed25519PublicKey)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
