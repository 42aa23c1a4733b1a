"""What is signed: which entries a tenant's log holds, in which order, and until when it is complete.

Format 1 is a JSON object in canonical form, of these members::

    format     1
    tenant     its uuid
    number     1 for the tenant's first checkpoint, then one more each
    size       how many entries the tree has: those at positions 0 to size - 1
    root       of the tree, in hexadecimal
    previous   SHA-256 of the canonical bytes of the checkpoint before, in hexadecimal; 64 zeros for number 1
    at         when it was made
    settled    optional: no entry that comes later tells of a time before this one
    key        SHA-256 of the raw Ed25519 public key, in hexadecimal: the key's fingerprint

The signature is Ed25519 over ``wardkey/1 audit checkpoint``, a line feed, and those bytes.

``at`` and ``settled`` are what makes a log of *times* complete: entries below ``size`` are of ``at`` or
before, entries beyond it of ``settled`` or after. Without ``settled``, a change in a transaction that has
been open for hours may still come in with a time long past.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .canonical import NotCanonical, decode, encode, from_base64, from_hex, members, to_base64
from .entry import TIME, UUID

__all__ = [
    "PREFIX",
    "BrokenChain",
    "Checkpoint",
    "Signed",
    "check_next",
    "fingerprint",
    "next_checkpoint",
    "sign",
    "verify_chain",
]

PREFIX = b"wardkey/1 audit checkpoint\n"
FORMAT = 1
_NONE = bytes(32)
_REQUIRED = {
    "format": int,
    "tenant": str,
    "number": int,
    "size": int,
    "root": str,
    "previous": str,
    "at": str,
    "key": str,
}


class BrokenChain(ValueError):
    """A checkpoint is not the next one."""


def fingerprint(public_key: bytes) -> bytes:
    """Return the 32 bytes that name a raw Ed25519 public key."""
    return sha256(public_key).digest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of a tenant's log. Times are text, as in entries."""

    tenant: str
    number: int
    size: int
    root: bytes
    previous: bytes
    at: str
    key: bytes
    settled: str | None = None

    def __post_init__(self) -> None:
        times = [self.at] if self.settled is None else [self.at, self.settled]
        if not re.fullmatch(UUID, self.tenant) or not all(re.fullmatch(TIME, time) for time in times):
            raise NotCanonical("has a tenant or a time that is not of the form that format 1 says")
        if self.number < 1 or (self.number == 1) != (self.previous == _NONE):
            raise NotCanonical("is number 1 exactly if no other is before it")

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return encode(self.document())

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "format": FORMAT,
            "tenant": self.tenant,
            "number": self.number,
            "size": self.size,
            "root": self.root.hex(),
            "previous": self.previous.hex(),
            "at": self.at,
            "key": self.key.hex(),
        }
        if self.settled is not None:
            document["settled"] = self.settled
        return document

    def digest(self) -> bytes:
        """Return what the next checkpoint has as ``previous``."""
        return sha256(self.encode()).digest()

    @classmethod
    def from_document(cls, value: Any) -> Self:
        """Raises NotCanonical."""
        document = members(value, _REQUIRED, {"settled": str})
        if document["format"] != FORMAT:
            raise NotCanonical(f"is of another format than {FORMAT}: a newer wardkey may read it")
        return cls(
            tenant=document["tenant"],
            number=document["number"],
            size=document["size"],
            root=from_hex(document["root"]),
            previous=from_hex(document["previous"]),
            at=document["at"],
            key=from_hex(document["key"]),
            settled=document.get("settled"),
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the checkpoint of these canonical bytes. Raises NotCanonical."""
        return cls.from_document(decode(data))


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and its signature, 64 bytes. Nothing is checked before ``verified_by``."""

    checkpoint: Checkpoint
    signature: bytes

    def document(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint.document(), "signature": to_base64(self.signature)}

    @classmethod
    def from_document(cls, value: Any) -> Self:
        """Raises NotCanonical."""
        document = members(value, {"checkpoint": dict, "signature": str})
        checkpoint = Checkpoint.from_document(document["checkpoint"])
        return cls(checkpoint, from_base64(document["signature"], 64))

    def verified_by(self, public_key: bytes) -> bool:
        """Tell whether the checkpoint names this key (raw, 32 bytes) and the signature is of it."""
        if fingerprint(public_key) != self.checkpoint.key:
            return False
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(self.signature, PREFIX + self.checkpoint.encode())
        except (ValueError, InvalidSignature):
            return False
        return True


def next_checkpoint(
    previous: Checkpoint | None,
    *,
    tenant: str,
    size: int,
    root: bytes,
    at: str,
    public_key: bytes,
    settled: str | None = None,
) -> Checkpoint:
    """Return the checkpoint after ``previous``. Raises BrokenChain.

    A clock that was set back stands still here until it has caught up.
    """
    if previous is not None:
        at = max(at, previous.at)
        if previous.settled is not None:
            settled = max(settled or previous.settled, previous.settled)
    checkpoint = Checkpoint(
        tenant=tenant,
        number=previous.number + 1 if previous else 1,
        size=size,
        root=root,
        previous=previous.digest() if previous else _NONE,
        at=at,
        key=fingerprint(public_key),
        settled=settled,
    )
    check_next(previous, checkpoint)
    return checkpoint


def sign(
    previous: Checkpoint | None,
    *,
    public_key: bytes,
    signer: Callable[[bytes], bytes],
    **members: Any,
) -> Signed:
    """Return the checkpoint after ``previous``, of the members that ``next_checkpoint`` takes, signed.

    ``signer`` gets ``PREFIX`` and the canonical bytes, and returns an Ed25519 signature (64 bytes) of them.
    Raises BrokenChain; ValueError where the signature is not that of ``public_key``.
    """
    checkpoint = next_checkpoint(previous, public_key=public_key, **members)
    signed = Signed(checkpoint, signer(PREFIX + checkpoint.encode()))
    if not signed.verified_by(public_key):
        raise ValueError("the signature of the checkpoint is not of the key that was to sign it")
    return signed


def check_next(previous: Checkpoint | None, this: Checkpoint) -> None:
    """Raise BrokenChain unless ``this`` is the one after ``previous`` (None: the first of all)."""
    due = previous.number + 1 if previous else 1
    if this.number != due:
        raise BrokenChain(f"checkpoint {this.number} stands where checkpoint {due} is due")
    if previous is None:
        return
    if this.tenant != previous.tenant:
        raise BrokenChain(f"checkpoint {this.number} is of another tenant")
    if this.previous != previous.digest():
        raise BrokenChain(
            f"checkpoint {this.number} was made after another checkpoint {previous.number} than this"
        )
    if this.size < previous.size:
        raise BrokenChain(f"checkpoint {this.number} has fewer entries than checkpoint {previous.number}")
    if this.size == previous.size and this.root != previous.root:
        raise BrokenChain(
            f"checkpoints {previous.number} and {this.number} have as many entries, but not the same"
        )
    if this.at < previous.at or (this.settled or "") < (previous.settled or ""):
        raise BrokenChain(f"checkpoint {this.number} is older than checkpoint {previous.number}")


def verify_chain(chain: Iterable[Signed], keys: Mapping[bytes, bytes]) -> Checkpoint | None:
    """Check a tenant's checkpoints from number 1 on, and return the last. ``keys``: raw keys by fingerprint.

    Raises BrokenChain, which names the first that does not fit. That the roots are those of the entries is
    for ``verify`` to tell.
    """
    previous = None
    for signed in chain:
        check_next(previous, signed.checkpoint)
        key = keys.get(signed.checkpoint.key)
        if key is None:
            raise BrokenChain(f"checkpoint {signed.checkpoint.number} is signed by a key that is not trusted")
        if not signed.verified_by(key):
            raise BrokenChain(f"checkpoint {signed.checkpoint.number} has a signature that is not of its key")
        previous = signed.checkpoint
    return previous
