"""Public keys of token issuers: a JWK (RFC 7517) in, a key that verifies under exactly one algorithm out.

The algorithm comes from the JWK, never from a token. Each JWK must name ``kid`` and ``alg``; keys that are
private, weak, off their curve or meant for something else are refused when the issuer is registered. The
cryptographic modules are imported when a key is first used, because this runs in each PostgreSQL backend.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from . import ciphers

__all__ = ["ALGORITHMS", "VerifyingKey", "b64url_decode", "b64url_encode", "import_algorithms"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALGORITHMS = ("ES256", "ES384", "EdDSA", "PS256", "RS256")
RSA_BITS = (2048, 8192)
# Primes modulo which all keys of the ROCA kind (CVE-2017-15361) are powers of 65537.
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)

_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "r", "t"))
_COMMON = frozenset(("kty", "kid", "alg", "use", "key_ops"))
_SHAPES: Mapping[str, tuple[str, str | None, tuple[str, ...]]] = {  # alg: kty, crv, members of the public key
    "ES256": ("EC", "P-256", ("x", "y")),
    "ES384": ("EC", "P-384", ("x", "y")),
    "EdDSA": ("OKP", "Ed25519", ("x",)),
    "RS256": ("RSA", None, ("n", "e")),
    "PS256": ("RSA", None, ("n", "e")),
}
_CURVES = {  # crv: bytes of a coordinate, p, b of y² = x³ - 3x + b (NIST SP 800-186)
    "P-256": (
        32,
        0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    "P-384": (
        48,
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    ),
}


_URL_SAFE = str.maketrans("+/", "-_")
_STANDARD = str.maketrans("-_", "+/")


def import_algorithms() -> None:
    """Import what keys need when they first verify; for a process that will be unable to import later."""
    import cryptography.exceptions
    import cryptography.hazmat.backends.openssl.backend
    import cryptography.hazmat.primitives.asymmetric.ec
    import cryptography.hazmat.primitives.asymmetric.padding
    import cryptography.hazmat.primitives.asymmetric.rsa
    import cryptography.hazmat.primitives.asymmetric.utils
    import cryptography.hazmat.primitives.hashes  # noqa: F401


def b64url_encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, appendix C)."""
    return b2a_base64(data, newline=False).rstrip(b"=").decode("ascii").translate(_URL_SAFE)


def b64url_decode(text: str) -> bytes:
    """Decode base64url: no padding, white space or stray bits, one text per value. Raises ValueError."""
    if not isinstance(text, str) or not text.isascii() or len(text) % 4 == 1:
        raise ValueError("not base64url")
    if not text.replace("-", "A").replace("_", "A").isalnum():
        raise ValueError("not base64url")
    data = a2b_base64(text.translate(_STANDARD) + "=" * (-len(text) % 4))
    if b64url_encode(data) != text:
        raise ValueError("not canonical base64url")
    return data


class VerifyingKey:
    """A public key bound to its ``kid`` and to the one algorithm it may be used with."""

    __slots__ = ("_check", "_numbers", "alg", "kid")

    def __init__(self, kid: str, alg: str, numbers: tuple[bytes, ...]) -> None:
        self.kid = kid
        self.alg = alg
        self._numbers = numbers
        self._check: Callable[[bytes, bytes], None] | None = None

    def __repr__(self) -> str:
        return f"VerifyingKey(kid={self.kid!r}, alg={self.alg!r})"

    @classmethod
    def from_jwk(cls, jwk: object, where: str = "key") -> VerifyingKey:
        """Check a JWK and take it. Raises ValueError that says what is wrong, where, and how to fix it."""
        if not isinstance(jwk, dict):
            raise ValueError(f"{where}: must be a JSON object (a JWK)")
        private = sorted(_PRIVATE & jwk.keys())
        if private:
            raise ValueError(
                f"{where}: holds private key material ({', '.join(private)}); export the public JWK"
            )
        kid, alg = jwk.get("kid"), jwk.get("alg")
        if not isinstance(kid, str) or not 0 < len(kid) <= 255 or not kid.isprintable():
            raise ValueError(f"{where}.kid: must be a text of 1 to 255 printable characters")
        shape = _SHAPES.get(alg) if isinstance(alg, str) else None
        if not isinstance(alg, str) or shape is None:
            raise ValueError(f"{where}.alg: must be one of {', '.join(ALGORITHMS)}")
        kty, crv, members = shape
        if jwk.get("kty") != kty or jwk.get("crv") != crv:
            curve = f" and crv {crv}" if crv else " and no crv"
            raise ValueError(f"{where}: alg {alg} needs kty {kty}{curve}")
        unknown = sorted(str(name) for name in jwk.keys() - _COMMON - set(members) - {"crv"})
        if unknown:
            raise ValueError(f"{where}: unknown members {', '.join(unknown)}; remove them")
        if jwk.get("use", "sig") != "sig":
            raise ValueError(f"{where}.use: must be sig; leave out keys that are not for signatures")
        if "key_ops" in jwk and jwk["key_ops"] != ["verify"]:
            raise ValueError(f'{where}.key_ops: must be ["verify"]; leave out keys for anything else')
        numbers = []
        for name in members:
            try:
                numbers.append(b64url_decode(jwk[name]))
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{where}.{name}: must be base64url without padding") from None
        _check_numbers(alg, crv, numbers, where)
        return cls(kid, alg, tuple(numbers))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether ``signature`` (as in a JWS: raw r and s for ECDSA) is this key's for ``message``."""
        try:
            if self._check is None:
                self._check = _CHECKS[self.alg](self._numbers)
            self._check(signature, message)
        except (ciphers.InvalidSignature, ValueError):
            return False
        return True


def _check_numbers(alg: str, crv: str | None, numbers: list[bytes], where: str) -> None:
    if alg == "EdDSA":
        if len(numbers[0]) != 32:
            raise ValueError(f"{where}.x: an Ed25519 key has 32 bytes")
    elif crv is not None:
        width, p, b = _CURVES[crv]
        if any(len(number) != width for number in numbers):
            raise ValueError(f"{where}: x and y of {crv} have {width} bytes each")
        x, y = (int.from_bytes(number, "big") for number in numbers)
        if x >= p or y >= p or (y * y - x * x * x + 3 * x - b) % p != 0:
            raise ValueError(f"{where}: x and y are not a point of {crv}; export the key again")
    else:
        n, e = (int.from_bytes(number, "big") for number in numbers)
        if not RSA_BITS[0] <= n.bit_length() <= RSA_BITS[1] or n % 2 == 0:
            raise ValueError(f"{where}.n: an RSA key has {RSA_BITS[0]} to {RSA_BITS[1]} bits; make a new one")
        if _is_roca(n):
            raise ValueError(f"{where}.n: a key of the ROCA kind can be factored; make a new one elsewhere")
        if not 3 <= e < 2**33 or e % 2 == 0:
            raise ValueError(f"{where}.e: must be an odd number from 3 to 2^33, usually 65537")


def _is_roca(n: int) -> bool:
    """Tell whether ``n`` has the fingerprint of a broken generator (Nemec et al. 2017).

    Its primes are 65537^a modulo the product of the first primes, so ``n`` lies in the subgroup of 65537 each
    time; so do few others, about one in 2^28.
    """
    return all(n % prime in {pow(65537, power, prime) for power in range(prime)} for prime in _ROCA_PRIMES)


def _ed25519(numbers: tuple[bytes, ...]) -> Callable[[bytes, bytes], None]:
    return ciphers.ed25519_key(numbers[0]).verify


def _ecdsa(numbers: tuple[bytes, ...]) -> Callable[[bytes, bytes], None]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384

    width = len(numbers[0])
    curve, digest = (ec.SECP256R1(), SHA256()) if width == 32 else (ec.SECP384R1(), SHA384())
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + numbers[0] + numbers[1])
    scheme = ec.ECDSA(digest)

    def check(signature: bytes, message: bytes) -> None:
        if len(signature) != 2 * width:
            raise ValueError("length")
        r, s = int.from_bytes(signature[:width], "big"), int.from_bytes(signature[width:], "big")
        public.verify(encode_dss_signature(r, s), message, scheme)

    return check


def _rsa(numbers: tuple[bytes, ...], *, pss: bool) -> Callable[[bytes, bytes], None]:
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    n, e = (int.from_bytes(number, "big") for number in numbers)
    public = rsa.RSAPublicNumbers(e, n).public_key()
    digest = SHA256()
    scheme = padding.PSS(padding.MGF1(SHA256()), digest.digest_size) if pss else padding.PKCS1v15()
    return lambda signature, message: public.verify(signature, message, scheme, digest)


_CHECKS: Mapping[str, Callable[[tuple[bytes, ...]], Callable[[bytes, bytes], None]]] = {
    "ES256": _ecdsa,
    "ES384": _ecdsa,
    "EdDSA": _ed25519,
    "RS256": lambda numbers: _rsa(numbers, pss=False),
    "PS256": lambda numbers: _rsa(numbers, pss=True),
}
