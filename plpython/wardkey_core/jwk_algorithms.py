"""Keys of the algorithms that few backends need: ECDSA on NIST's curves, and RSA."""

from __future__ import annotations

__all__ = ["CHECKS", "check_numbers", "import_algorithms"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RSA_BITS = (2048, 8192)
# Primes modulo which all keys of the ROCA kind (CVE-2017-15361) are powers of 65537.
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
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


def import_algorithms() -> None:
    """Import what keys need when they first verify; for a process that will be unable to import later."""
    import cryptography.exceptions
    import cryptography.hazmat.backends.openssl.backend
    import cryptography.hazmat.primitives.asymmetric.ec
    import cryptography.hazmat.primitives.asymmetric.padding
    import cryptography.hazmat.primitives.asymmetric.rsa
    import cryptography.hazmat.primitives.asymmetric.utils
    import cryptography.hazmat.primitives.hashes  # noqa: F401


def check_numbers(crv: str | None, numbers: list[bytes], where: str) -> None:
    """Check the numbers of a key on a curve, or of an RSA key. Raises ValueError that says what is wrong."""
    if crv is not None:
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


CHECKS: Mapping[str, Callable[[tuple[bytes, ...]], Callable[[bytes, bytes], None]]] = {
    "ES256": _ecdsa,
    "ES384": _ecdsa,
    "RS256": lambda numbers: _rsa(numbers, pss=False),
    "PS256": lambda numbers: _rsa(numbers, pss=True),
}
