"""Makes tokens, good and bad, with code of its own: nothing of what is tested signs or encodes here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = 1_750_000_000.0
ISSUER = "https://id.example/realm"
TENANT = "6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab"
ALGORITHMS = ("ES256", "ES384", "EdDSA", "PS256", "RS256")


class _Drop:
    """Stands for a member that is left out. Has a name of its own: tests are called by it."""

    def __repr__(self) -> str:
        return "left out"


DROP = _Drop()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@cache
def private_key(alg: str) -> Any:
    match alg:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def jwk(alg: str, /, **changes: Any) -> dict[str, Any]:
    public = private_key(alg).public_key()
    if alg == "EdDSA":
        members = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    elif alg.startswith("ES"):
        width, numbers = (32 if alg == "ES256" else 48), public.public_numbers()
        members = {
            "kty": "EC",
            "crv": "P-256" if alg == "ES256" else "P-384",
            "x": b64(numbers.x.to_bytes(width, "big")),
            "y": b64(numbers.y.to_bytes(width, "big")),
        }
    else:
        members = {"kty": "RSA", "n": b64(public.public_numbers().n.to_bytes(256, "big")), "e": "AQAB"}
    return change({**members, "kid": f"key-{alg}", "alg": alg, "use": "sig"}, changes)


@cache
def roca_jwk(alg: str = "RS256") -> dict[str, Any]:
    """A key as the broken generator made them: both primes are k * M + (65537^a mod M)."""
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, int(n**0.5) + 1))]
    product, draw = math.prod(primes), random.Random(alg)

    def prime() -> int:
        while True:
            power = pow(65537, draw.getrandbits(200), product)
            pairs = (
                draw.getrandbits(1024 - product.bit_length()) | 3 << 1022 - product.bit_length()
            ) * product + power
            if pairs.bit_length() == 1024 and pow(2, pairs - 1, pairs) == 1:
                return pairs

    modulus = prime() * prime()
    return jwk(alg, n=b64(modulus.to_bytes(256, "big")), kid="infineon")


def pem(alg: str) -> bytes:
    made: bytes = private_key(alg).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made


def document(**changes: Any) -> dict[str, Any]:
    return change(
        {"issuer": ISSUER, "audience": "wardkey", "keys": [jwk(alg) for alg in ALGORITHMS]}, changes
    )


def claims(**changes: Any) -> dict[str, Any]:
    return change(
        {
            "iss": ISSUER,
            "aud": "wardkey",
            "sub": "dr.grey",
            "tenant_id": TENANT,
            "role": "EVALUATOR",
            "iat": int(NOW) - 10,
            "nbf": int(NOW) - 10,
            "exp": int(NOW) + 600,
            "jti": "8d1f",
        },
        changes,
    )


def header(alg: str = "EdDSA", /, **changes: Any) -> dict[str, Any]:
    return change({"alg": alg, "typ": "JWT", "kid": f"key-{alg}"}, changes)


def change(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not DROP}


def signature(alg: str, message: bytes) -> bytes:
    key = private_key(alg)
    made: bytes
    match alg:
        case "EdDSA":
            made = key.sign(message)
            return made
        case "RS256":
            made = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            return made
        case "PS256":
            made = key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
            return made
    digest, width = (hashes.SHA256(), 32) if alg == "ES256" else (hashes.SHA384(), 48)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
    return r.to_bytes(width, "big") + s.to_bytes(width, "big")


def hs256(secret: bytes, message: bytes) -> bytes:
    return hmac.new(secret, message, hashlib.sha256).digest()


def sign(head: Any, body: Any, alg: str = "EdDSA") -> str:
    """Sign ``head`` and ``body`` (members, or the very text or bytes) with the key of ``alg``."""
    message = f"{b64(raw(head))}.{b64(raw(body))}"
    return f"{message}.{b64(signature(alg, message.encode()))}"


def raw(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    return part.encode() if isinstance(part, str) else json.dumps(part).encode()


def good(alg: str = "EdDSA", /, **changes: Any) -> str:
    return sign(header(alg), claims(**changes), alg)
