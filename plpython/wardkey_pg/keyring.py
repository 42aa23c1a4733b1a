"""The data keys a backend holds: a bounded number of tenants, each for a bounded time."""

from __future__ import annotations

import os
import time
from _operator import _compare_digest as compare_digest  # hmac's, without hmac

from wardkey_core.envelope import DEK_LENGTH, NONCE_LENGTH, ColumnKey, commitment, version_of
from wardkey_core.errors import CommitmentMismatch, KeyUnknown
from wardkey_core.identity import bytes_of
from wardkey_core.records import Record
from wardkey_core.wire import DEFAULT_REGION

__all__ = ["Keyring", "TenantKeys", "WrappedKey", "nonce"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from .reads import Column, Reads

    _Cipher = Callable[[bytes, bytes, bytes], bytes]
    Sealer = tuple[bytes, _Cipher, bytes]  # header, encrypt, additional data up to the row id

_BATCH = 100
_MOST_COLUMNS = 4096
_MOST_UNKNOWN = 16
_COLUMN_LENGTH = 16  # of an id


class WrappedKey(Record):
    """A row of ``ward_internal.tenant_keys``.

    In mode ``derived``, ``master`` is the version of the master secret, of which kek, kek_version and
    wrapped are then, and ``salt`` is the key's own.
    """

    version: int
    state: str
    kek: str
    kek_version: str
    wrapped: bytes
    commitment: bytes
    master: int | None = None
    salt: bytes | None = None
    region: str = DEFAULT_REGION


class TenantKeys:
    """One tenant's keys, released version by version when first needed, derived column by column.

    ``sealers`` maps column ids, one after the other, to what the hot path of ``seal`` needs of them;
    ``columns`` says what the journal calls a column, ``quiet`` of which models nothing is journalled.
    ``issuer``, by name and generation: whose tokens they are released to.
    """

    def __init__(
        self,
        tenant: str,
        epoch: int,
        keys: Sequence[WrappedKey],
        columns: Mapping[bytes, Column] | None = None,
        issuer: tuple[str, int] = ("", 0),
        quiet: Collection[bytes] = frozenset(),
    ) -> None:
        self.tenant = tenant
        self.epoch = epoch
        self.issuer = issuer
        self.columns = columns or {}
        self.quiet = quiet
        self.reads: Reads | None = None  # what is kept from one login to the next, as long as these keys
        self.since = time.monotonic()
        self.sealers: dict[bytes, Sequence[Sealer]] = {}
        self._id = bytes_of(tenant)
        self._wrapped = {key.version: key for key in keys if key.state in ("active", "decrypt-only")}
        self._active = next((key.version for key in keys if key.state == "active"), None)
        self._deks: dict[int, bytes] = {}
        self._columns: dict[tuple[bytes, int], ColumnKey] = {}
        self._unknown: set[int] = set()

    def __repr__(self) -> str:
        return f"<TenantKeys of {self.tenant}>"

    def sealing(self, columns: bytes, release: Callable[[WrappedKey], bytes]) -> Sequence[Sealer]:
        """Return what seals new values of ``columns``. Raises KeyUnknown when no version is active."""
        if self._active is None:
            raise KeyUnknown("the tenant has no active key")
        places = range(0, len(columns), _COLUMN_LENGTH)
        keys = [self._column(columns[at : at + _COLUMN_LENGTH], self._active, release) for at in places]
        made = self.sealers[columns] = [(key.header, key.encrypt, key.aad_prefix) for key in keys]
        return made

    def opening(self, sealed: bytes, column: bytes, release: Callable[[WrappedKey], bytes]) -> ColumnKey:
        """Return the key that opens ``sealed``. Raises OpenFailed, KeyUnknown, CommitmentMismatch."""
        return self._column(column, version_of(sealed), release)

    def lacks(self, sealed: bytes) -> bool:
        """Whether the registry may have got the key of ``sealed`` since these were read: not looked up yet.

        Anybody may bring a value that names any version: that only so many are looked up bounds their cost.
        """
        version = version_of(sealed)
        if version in self._wrapped or version in self._unknown or len(self._unknown) >= _MOST_UNKNOWN:
            return False
        self._unknown.add(version)
        return True

    def follow(self, former: TenantKeys) -> None:
        """Go on opening what ``former`` opened, for as long: a snapshot may hold values of a retired key."""
        self.since = min(self.since, former.since)
        for version, key in former._wrapped.items():
            mine = self._wrapped.setdefault(version, key)
            if mine.commitment == key.commitment and version in former._deks:
                self._deks[version] = former._deks[version]
        self._unknown |= former._unknown

    def _column(self, column: bytes, version: int, release: Callable[[WrappedKey], bytes]) -> ColumnKey:
        key = self._columns.get((column, version))
        if key is None:
            if len(self._columns) >= _MOST_COLUMNS:  # anybody may ask for a column that does not exist
                self._columns.clear()
                self.sealers.clear()
            key = ColumnKey(self._dek(version, release), self._id, version, column)
            self._columns[column, version] = key
        return key

    def _dek(self, version: int, release: Callable[[WrappedKey], bytes]) -> bytes:
        dek = self._deks.get(version)
        if dek is None:
            wrapped = self._wrapped.get(version)
            if wrapped is None:
                raise KeyUnknown
            dek = release(wrapped)
            if len(dek) != DEK_LENGTH or not compare_digest(
                commitment(dek, self._id, version), wrapped.commitment
            ):
                raise CommitmentMismatch
            self._deks[version] = dek
        return dek


class Keyring:
    """The keys this backend holds, least recently used first.

    By tenant and by the issuer, as it is registered, whose tokens the keeper accepted: an issuer that only
    the database knows finds nothing here.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._keys: dict[tuple[str, str], TenantKeys] = {}

    def get(self, tenant: str, issuer: tuple[str, int], epoch: int, ttl: float) -> TenantKeys | None:
        """Return the tenant's keys; forget those of another epoch or generation, or older than ``ttl``."""
        place = (tenant, issuer[0])
        keys = self._keys.pop(place, None)
        if keys is None:
            return None
        if keys.epoch != epoch or keys.issuer != issuer or time.monotonic() - keys.since > ttl:
            return None
        self._keys[place] = keys
        return keys

    def put(self, keys: TenantKeys) -> None:
        self._keys.pop((keys.tenant, keys.issuer[0]), None)
        self._keys[keys.tenant, keys.issuer[0]] = keys
        while len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]

    def forget(self, tenant: str) -> None:
        for place in [place for place in self._keys if place[0] == tenant]:
            del self._keys[place]


def _draw_nonces() -> Iterator[bytes]:
    """Random nonces, drawn from the kernel by the hundred: a system call each would cost as much as AES-GCM.

    Backends are forked before Python starts in them, so that no two can share what is drawn here.
    """
    while True:
        drawn = os.urandom(_BATCH * NONCE_LENGTH)
        for start in range(0, len(drawn), NONCE_LENGTH):
            yield drawn[start : start + NONCE_LENGTH]


nonce: Callable[[], bytes] = _draw_nonces().__next__
