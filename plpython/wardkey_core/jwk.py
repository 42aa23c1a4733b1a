"""Public keys of token issuers: a JWK (RFC 7517) in, a key that verifies under exactly one algorithm out.

The algorithm comes from the JWK, never from a token. Each JWK must name ``kid`` and ``alg``; keys that are
private, weak, off their curve or meant for something else are refused when the issuer is registered. What
keys of other algorithms than EdDSA need is imported with them, because this runs in each PostgreSQL backend.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from . import ciphers

__all__ = ["ALGORITHMS", "VerifyingKey", "b64url_decode", "b64url_encode"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALGORITHMS = ("ES256", "ES384", "EdDSA", "PS256", "RS256")
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "r", "t"))
_COMMON = frozenset(("kty", "kid", "alg", "use", "key_ops"))
_SHAPES: Mapping[str, tuple[str, str | None, tuple[str, ...]]] = {  # alg: kty, crv, members of the public key
    "ES256": ("EC", "P-256", ("x", "y")),
    "ES384": ("EC", "P-384", ("x", "y")),
    "EdDSA": ("OKP", "Ed25519", ("x",)),
    "RS256": ("RSA", None, ("n", "e")),
    "PS256": ("RSA", None, ("n", "e")),
}
_URL_SAFE = str.maketrans("+/", "-_")
_STANDARD = str.maketrans("-_", "+/")


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
        if alg != "EdDSA":
            from .jwk_algorithms import check_numbers

            check_numbers(crv, numbers, where)
        elif len(numbers[0]) != 32:
            raise ValueError(f"{where}.x: an Ed25519 key has 32 bytes")
        return cls(kid, alg, tuple(numbers))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether ``signature`` (as in a JWS: raw r and s for ECDSA) is this key's for ``message``."""
        try:
            if self._check is None:
                self._check = _check_of(self.alg, self._numbers)
            self._check(signature, message)
        except (ciphers.InvalidSignature, ValueError):
            return False
        return True


def _check_of(alg: str, numbers: tuple[bytes, ...]) -> Callable[[bytes, bytes], None]:
    """Return what raises InvalidSignature or ValueError unless a signature is right for a message."""
    if alg == "EdDSA":
        return ciphers.ed25519_key(numbers[0]).verify
    from .jwk_algorithms import CHECKS

    return CHECKS[alg](numbers)
