"""The class keys a backend holds: of a bounded number of tenants and roles, each for a bounded time.

Which classes a role may read is in the registry (``Class``); the keeper decides once more, by its own policy,
and says which of the classes are to be shown masked. The stricter of the two holds. A value has the class of
its column and, until it was resealed, the one it was sealed under: the role needs both.
"""

from __future__ import annotations

import os
import time

from wardkey_core.envelope import KEY_LENGTH, NONCE_LENGTH, ColumnKey, class_of, version_of
from wardkey_core.errors import ClassHidden, KeyRefused, KeyUnknown, OpenFailed, RoleMayNotWrite
from wardkey_core.identity import bytes_of
from wardkey_core.records import Record
from wardkey_core.wire import DEFAULT_REGION

__all__ = [
    "CLEAR",
    "MASK",
    "NONE",
    "Class",
    "Grant",
    "Keyring",
    "MasksUnread",
    "TenantKeys",
    "WrappedKey",
    "nonce",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Protocol

    from wardkey_core.search import Search, Tokens

    from .reads import Column, Reads

    _Cipher = Callable[[bytes, bytes, bytes], bytes]
    CachedRead = tuple[bytes, str, list[str], list[bytes]]  # model, form of row ids, columns, row ids
    Sealer = tuple[bytes, _Cipher, bytes]  # header, encrypt, additional data up to the row id
    # class keys by name, and which of them are masked, of a version and the classes asked for
    Release = Callable[["WrappedKey", Collection[str]], tuple[dict[str, bytes], Collection[str]]]

    class Key(Protocol):
        """What opens values: a ColumnKey, or one whose values are masked."""

        @property
        def header(self) -> bytes: ...
        @property
        def aad_prefix(self) -> bytes: ...
        @property
        def decrypt(self) -> _Cipher: ...
        def open(self, sealed: bytes, row: bytes) -> bytes: ...


_BATCH = 100
_MOST_COLUMNS = 4096
_MOST_UNKNOWN = 16
_COLUMN_LENGTH = 16  # of an id
_NO_MASK = "null", ""  # of a column that is newer than the context
NONE, MASK, CLEAR = range(3)  # what a role sees of a class


class Class(Record):
    """A class of columns as a role has it: ``access`` is NONE, MASK or CLEAR."""

    number: int
    name: str
    access: int
    writes: bool


class Grant(Record):
    """A break-glass grant: the classes that its subject sees in the clear, ``until`` (Unix seconds)."""

    id: str
    classes: frozenset[str]
    until: float


class MasksUnread(Exception):
    """A mask is needed of keys that were made without: the registry has it."""


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
    """One tenant's keys for one role, released by version when first needed, derived column by column.

    ``sealers`` maps column ids, one after the other, to what the hot path of ``seal`` needs of them;
    ``columns`` says what the journal calls a column and what class it is of, ``quiet`` of which models
    nothing is journalled. ``issuer``, by name and generation: whose tokens they are released to. ``classes``:
    by number. ``grants``: those of break-glass that hold, by issuer and subject; ``grant``: the one that
    these keys are under. ``masks``: mask and type by column id; None where they were not read, which is for
    roles that see none. ``honey``: honey rows by model, and whether opening one ends logins. ``budgets``:
    the models of which the keeper said, with its last release, that the role has a budget. ``search_keys``:
    of the classes that the keeper lets the role see in the clear, by version. The keeper was not
    asked for keys that others had (``follow``): they serve one transaction.
    """

    def __init__(
        self,
        tenant: str,
        epoch: int,
        keys: Sequence[WrappedKey],
        columns: Mapping[bytes, Column] | None = None,
        issuer: tuple[str, int] = ("", 0),
        quiet: Collection[bytes] = frozenset(),
        role: str = "",
        classes: Mapping[int, Class] | None = None,
        grants: Mapping[tuple[str, str], Grant] | None = None,
        grant: Grant | None = None,
        masks: Mapping[bytes, tuple[str, str]] | None = None,
        honey: Mapping[bytes, Mapping[bytes, bool]] | None = None,
    ) -> None:
        self.tenant = tenant
        self.epoch = epoch
        self.issuer = issuer
        self.role = role
        self.grants = grants
        self.grant = grant
        self.masks = masks
        self.honey = honey or {}
        self.budgets: frozenset[bytes] = frozenset()
        self.search_keys: dict[int, dict[str, bytes]] = {}
        self._tokens: dict[tuple[Search, int, str], Tokens] = {}
        self.is_inherited = False
        self.columns = columns or {}
        self.quiet = quiet
        self.may_write = any(each.writes for each in (classes or {}).values())
        self.cache_policy: tuple[int, bool] | None = None  # seconds, and whether of what was sealed, too
        self.cache_key: bytes | None = None  # of the active version, once it was released
        self.cached_reads: dict[str, list[CachedRead]] = {}  # as ward.end_fill has told them
        self.reads: Reads | None = None  # what is kept from one login to the next, as long as these keys
        self.since = time.monotonic()
        self.sealers: dict[bytes, Sequence[Sealer]] = {}
        self._id = bytes_of(tenant)
        self._classes = classes or {}
        self._wrapped = {key.version: key for key in keys if key.state in ("active", "decrypt-only")}
        self._live = tuple(self._wrapped)  # without those that are followed
        self._active = next((key.version for key in keys if key.state == "active"), None)
        self._released: dict[int, tuple[dict[str, bytes], Collection[str]]] = {}
        self._asked: dict[int, set[str]] = {}  # by version: what the keeper withheld is not asked for again
        self._columns: dict[tuple[bytes, bytes], Key] = {}
        self._sealers: dict[tuple[bytes, int], Sealer] = {}
        self._unknown: set[int] = set()

    def __repr__(self) -> str:
        return f"<TenantKeys of {self.tenant}>"

    def sealing(
        self, columns: bytes, plaintexts: Sequence[bytes | None], release: Release
    ) -> Sequence[Sealer]:
        """Return what seals new values of ``columns``; it is in ``sealers`` then if the role may write all.

        Raises RoleMayNotWrite, KeyUnknown when no version is active or a column is not registered.
        """
        if self._active is None:
            raise KeyUnknown("the tenant has no active key")
        made: list[Sealer] = []
        is_whole = True
        for column, plaintext in zip(_split(columns), plaintexts, strict=True):
            its = self._class_of(column)
            if its is None:
                raise KeyUnknown("the column is not registered", "see ward.models")
            if its.writes:
                made.append(self._sealer(column, its, self._active, release))
            elif plaintext is None:
                is_whole = False
                made.append(_NO_SEALER)
            else:
                raise RoleMayNotWrite("the role of this token may not write columns of this class")
        if is_whole:
            self.sealers[columns] = made
        return made

    @property
    def active(self) -> WrappedKey:
        """The version that values are sealed under. Raises KeyUnknown."""
        if self._active is None:
            raise KeyUnknown("the tenant has no active key")
        return self._wrapped[self._active]

    def knows(self, columns: bytes) -> bool:
        """Whether each of ``columns`` was registered when these keys were read."""
        return all(column in self.columns for column in _split(columns))

    def opening(self, sealed: bytes, column: bytes, release: Release) -> Key:
        """Return what opens ``sealed``.

        Raises OpenFailed, KeyUnknown, ClassHidden, MasksUnread and what a keeper may say.
        """
        place = (column, sealed[:5])
        key = self._columns.get(place)
        if key is None:
            if len(self._columns) >= _MOST_COLUMNS:  # anybody may ask for a column that does not exist
                self._columns.clear()
            key = self._columns[place] = self._opener(sealed, column, release)
        return key

    def lacks(self, sealed: bytes) -> bool:
        """Whether the registry may have got the key of ``sealed`` since these were read: not looked up yet.

        Anybody may bring a value that names any version: that only so many are looked up bounds their cost.
        """
        version = version_of(sealed)
        if version in self._wrapped or version in self._unknown or len(self._unknown) >= _MOST_UNKNOWN:
            return False
        self._unknown.add(version)
        return True

    def may_empty(self, columns: bytes) -> bool:
        """Whether the role may write each of ``columns``, so that it may set them to null."""
        return all((its := self._class_of(column)) is not None and its.writes for column in _split(columns))

    def sees(self, columns: bytes) -> bool:
        """Whether the role has seen each of ``columns`` in the clear: what it gives back is the value."""
        masked = {name for _, names in self._released.values() for name in names}
        return all(
            (its := self._class_of(column)) is not None and its.access == CLEAR and its.name not in masked
            for column in _split(columns)
        )

    def may_delete(self, model: bytes) -> bool:
        """Whether the role may write each sealed column of a model: who deletes a row destroys all."""
        return all(
            (its := self._classes.get(column.number)) is not None and its.writes
            for column in self.columns.values()
            if column.model == model
        )

    def making(self, search: Search, release: Release) -> Tokens | None:
        """Return what makes the tokens of new values: under the active version, for which others ask too.

        Unique ones are made under the last live version that is odd, or even; None where there is none.

        Raises RoleMayNotWrite where the role does not see the column in the clear, KeyUnknown.
        """
        its = self._class_of(search.column)
        if its is None or self._active is None:
            raise KeyUnknown(
                "the column is not registered, or the tenant has no active key", "see ward.models"
            )
        if its.access != CLEAR:
            raise RoleMayNotWrite(
                "the role of this token may not write a searched column that it does not see in the clear"
            )
        version: int | None = self._active
        if search.kind.startswith("unique"):
            odd = search.kind.startswith("unique_odd")
            version = max((each for each in self._live if each % 2 == odd), default=None)
        return None if version is None else self._token_maker(search, version, its.name, release)

    def looking_up(self, search: Search, former: Collection[str], release: Release) -> list[Tokens]:
        """Return what makes the tokens that rows may have now: of each version and class. Raises ClassHidden.

        ``former``: classes that the column had, which values may still be under. A role that does not see one
        of them in the clear cannot open those values either.
        """
        its = self._class_of(search.column)
        if its is None or its.access != CLEAR:
            raise ClassHidden(
                "the role of this token does not see the column in the clear: it cannot search it"
            )
        seen = {each.name for each in self._classes.values() if each.access == CLEAR}
        names = [its.name, *(name for name in former if name in seen and name != its.name)]
        return [
            self._token_maker(search, version, name, release) for version in self._wrapped for name in names
        ]

    def follow(self, former: TenantKeys) -> None:
        """Go on opening what ``former`` opened, for as long: a snapshot may hold values of a retired key."""
        self.since = min(self.since, former.since)
        for version, key in former._wrapped.items():
            mine = self._wrapped.setdefault(version, key)
            if mine.commitment == key.commitment and version in former._released:
                keys, masked = former._released[version]
                wanted = self._wanted()
                self._released[version] = {name: keys[name] for name in keys if name in wanted}, masked
                searched = former.search_keys.get(version, {})
                self.search_keys[version] = {name: searched[name] for name in searched if name in wanted}
                self.budgets, self.is_inherited = former.budgets, True
        self._unknown |= former._unknown

    def _opener(self, sealed: bytes, column: bytes, release: Release) -> Key:
        number, version = class_of(sealed), version_of(sealed)
        if version not in self._wrapped:
            raise KeyUnknown
        if self._classes and number not in self._classes:
            raise OpenFailed
        known = self.columns.get(column)  # newer than the context, or none: the value's own class says all
        access = min(self._access(number), self._access(known.number) if known else CLEAR)
        if access == NONE:
            raise ClassHidden
        if access == CLEAR:
            name = self._classes[number].name
            key = ColumnKey(self._class_key(version, name, release), self._id, number, version, column)
            names = {name, self._classes[known.number].name} if known else {name}
            if names.isdisjoint(self._released[version][1]):
                return key
        if self.masks is None:
            raise MasksUnread
        from . import masks  # most backends show none

        mask, kind = self.masks.get(column, _NO_MASK)
        if mask in masks.KEYLESS:
            return masks.Constant(sealed[:5], masks.constant(mask, kind))
        key_of_class = self._class_key(version, self._classes[number].name, release)
        return masks.Masked(
            ColumnKey(key_of_class, self._id, number, version, column), masks.masker(mask, kind)
        )

    def _sealer(self, column: bytes, its: Class, version: int, release: Release) -> Sealer:
        place = (column, version)
        made = self._sealers.get(place)
        if made is None:
            key = ColumnKey(
                self._class_key(version, its.name, release), self._id, its.number, version, column
            )
            made = self._sealers[place] = key.header, key.encrypt, key.aad_prefix
        return made

    def _token_maker(self, search: Search, version: int, name: str, release: Release) -> Tokens:
        place = (search, version, name)
        made = self._tokens.get(place)
        if made is None:
            from wardkey_core.search import Tokens  # most backends never do

            self._class_key(version, name, release)
            key = self.search_keys.get(version, {}).get(name)
            if key is None:
                raise ClassHidden(
                    "the keeper gives this role no search key of the column's class",
                    "it sees the class masked by the keeper's policy: wardkey access policy diff",
                )
            made = self._tokens[place] = Tokens(key, self._id, search)
        return made

    def _class_of(self, column: bytes) -> Class | None:
        known = self.columns.get(column)
        return self._classes.get(known.number) if known else None

    def _access(self, number: int) -> int:
        its = self._classes.get(number)
        return NONE if its is None else its.access

    def _wanted(self) -> set[str]:
        """Return the classes whose keys this role needs: not of those that it sees as constants only."""
        masks = self.masks or {}
        keyed = {
            column.number
            for identity, column in self.columns.items()
            if masks.get(identity, _NO_MASK)[0] not in ("redact", "null")
        }
        return {
            each.name
            for each in self._classes.values()
            if each.access == CLEAR or each.writes or (each.access == MASK and each.number in keyed)
        }

    def _class_key(self, version: int, name: str, release: Release) -> bytes:
        keys, _ = self._released.get(version, ({}, ()))
        if name not in keys and name not in self._asked.get(version, ()):
            wrapped = self._wrapped.get(version)
            if wrapped is None:
                raise KeyUnknown
            wanted = {*self._wanted(), name}
            keys, _ = self._released[version] = release(wrapped, wanted)
            self._asked[version] = wanted
        key = keys.get(name)
        if key is None:
            raise ClassHidden(
                "the keeper gives this role no key of the column's class",
                "policies of database and keeper differ: wardkey access policy diff",
            )
        if len(key) != KEY_LENGTH:
            raise KeyRefused("the keeper gave something that is not a key")
        return key


def _split(columns: bytes) -> Iterator[bytes]:
    return (columns[at : at + _COLUMN_LENGTH] for at in range(0, len(columns), _COLUMN_LENGTH))


_NO_SEALER: Sealer = b"", lambda once, plaintext, aad: b"", b""  # of a column that gets no value


class Keyring:
    """The keys this backend holds, least recently used first.

    By tenant, by role, and by the issuer, as it is registered, whose tokens the keeper accepted: an issuer
    that only the database knows finds nothing here, and no role what another has.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._keys: dict[tuple[str, str, str], TenantKeys] = {}

    def get(
        self, tenant: str, role: str, issuer: tuple[str, int], epoch: int, ttl: float
    ) -> TenantKeys | None:
        """Return the role's keys; forget those of another epoch or generation, or older than ``ttl``."""
        place = (tenant, role, issuer[0])
        keys = self._keys.pop(place, None)
        if keys is None:
            return None
        if keys.epoch != epoch or keys.issuer != issuer or time.monotonic() - keys.since > ttl:
            return None
        self._keys[place] = keys
        return keys

    def put(self, keys: TenantKeys) -> None:
        place = (keys.tenant, keys.role, keys.issuer[0])
        self._keys.pop(place, None)
        self._keys[place] = keys
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
