"""One batch of resealing: rows out of a leaf, their values through the keeper, and back into the leaf.

To the keeper: per field column id (16 bytes) · number of the column's class (1) · row id · sealed value, the
last two behind their lengths (4 bytes, big-endian). From the keeper: per field, in the same order, length (4)
· the value sealed under the active version and that class; a length of 0: it does not open. Here nothing is
opened.

The tokens of searched columns go along: the same fields are sent again, and per search of a field's column
number of tokens (4) and these (8 each) come back; 2^32 - 1: the value does not open, or has too many. A row
without the tokens of a value is due as one under a former key is: so a new search gets its tokens. Where they
are to be unique and are not, the row goes without them, and is named.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

from wardkey_core.envelope import header
from wardkey_core.errors import KeeperUnavailable, KeyUnknown
from wardkey_core.identity import bytes_of, text_of
from wardkey_core.search import SINGLE, UNIQUE

from .keyring import WrappedKey
from .registry import KEYS

__all__ = ["reseal"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from .context import Host, Session

    class _Host(Host, Protocol):
        def fetch(self, sql: str, size: int) -> Iterator[list[Mapping[str, Any]]]: ...
        def change(self, sql: str, types: Sequence[str], args: Sequence[Any]) -> int: ...
        def try_change(self, sql: str, types: Sequence[str], args: Sequence[Any]) -> int | None: ...


# ruff: noqa: S608 - leaf, columns and expressions come quoted from the registry

_CLASSES = "select number, name from ward_internal.known_classes"
_NUMBERS = "select id::text, number from ward_internal.column_classes"
_ROWS = 1000  # at a time
_LARGE = 16_384  # bytes; larger values go one by one, so that memory is bounded
_MOST_NAMED = 100
_NONE = 2**32 - 1


def reseal(
    host: _Host,
    session: Session,
    tenant: str,
    leaf: str,
    row: str,
    key: str,
    columns: Sequence[str],
    ids: Sequence[str],
    searches: str,
    start: int,
    end: int,
) -> str:
    """Move the rows in blocks ``start`` to before ``end``. Return counts as JSON.

    ``searches``: JSON, by column id, of each kind, normaliser, step, and the column for its tokens.
    """
    keys = [WrappedKey(**facts) for facts in host.query(KEYS, ["uuid"], [tenant])]
    active = next((facts.version for facts in keys if facts.state == "active"), None)
    if active is None:
        raise KeyUnknown("the tenant has no active key")
    classes = {row["name"]: row["number"] for row in host.query(_CLASSES)}
    numbers = {row["id"]: row["number"] for row in host.query(_NUMBERS)}
    targets = [(bytes_of(text) + bytes((numbers[text],)), header(numbers[text], active)) for text in ids]
    declared = json.loads(searches)
    searched = [[_Searched(*each) for each in declared.get(text, ())] for text in ids]
    batch = _Batch(host, session, tenant, keys, active, classes, leaf, key, columns, targets, searched)
    where = (
        f"from {leaf} as l where l.ctid >= '({start},0)' and l.ctid < '({end},0)'"
        f" and ({' or '.join(map(batch.moves, range(len(columns))))})"
    )
    large = " or ".join(
        f"octet_length(l.{name}) > {_LARGE} and {batch.moves(place)}" for place, name in enumerate(columns)
    )
    values = ", ".join(
        f"case when {batch.moves(place)} and octet_length(l.{name}) <= {_LARGE} then l.{name} end as c{place}"
        for place, name in enumerate(columns)
    )
    query = f"select l.ctid::text as tid, {row} as row, coalesce({large}, false) as large, {values} {where}"
    for rows in host.fetch(f"{query} for no key update skip locked", _ROWS):
        batch.move([facts for facts in rows if not facts["large"]])
        for facts in rows:
            if facts["large"]:
                batch.move_large(facts["tid"], facts["row"])
    left = host.fetch(f"select count(*) as left {where}", 1)
    skipped = next(left)[0]["left"] - len(batch.failing)
    counts = {"rows": batch.rows, "fields": batch.fields, "failed": batch.failed}
    return json.dumps({**counts, "skipped": max(skipped, 0), "named": batch.named})


class _Searched(NamedTuple):
    """A search of a column; ``stored``: the leaf's column with its tokens."""

    kind: str
    normaliser: str
    step: str
    stored: str


class _Batch:
    """What was moved so far. ``failing``: ids of rows with values that do not open; ``named``: the first.

    ``targets``: of each column how its fields begin, and how its values shall; ``searched``: its searches.
    """

    def __init__(
        self,
        host: _Host,
        session: Session,
        tenant: str,
        keys: Sequence[WrappedKey],
        active: int,
        classes: Mapping[str, int],
        leaf: str,
        key: str,
        columns: Sequence[str],
        targets: Sequence[tuple[bytes, bytes]],
        searched: Sequence[Sequence[_Searched]],
    ) -> None:
        self._host = host
        self._keeper = session.keeper()
        self._tenant = tenant
        self._keys = keys
        self._active = active
        self._classes = classes
        self._leaf = leaf
        self._key = key
        self._columns = columns
        self._targets = targets
        self._searched = searched
        self._searches = {
            text_of(target[0][:16]): [[each.kind, each.normaliser, each.step] for each in its]
            for target, its in zip(targets, searched, strict=True)
            if its
        }
        self.rows = self.fields = self.failed = 0
        self.failing: set[bytes] = set()
        self.named: list[dict[str, Any]] = []
        written = [(name, "") for name in columns]
        written += [
            (each.stored, "::bigint" if each.kind in SINGLE else "::bigint[]")
            for its in searched
            for each in its
        ]
        kinds = ["" for _ in columns] + [each.kind for its in searched for each in its]
        self._unique = [place for place, kind in enumerate(kinds) if kind in UNIQUE]
        self._unique_columns = ", ".join(
            name
            for name, its in zip(columns, searched, strict=True)
            if any(each.kind in UNIQUE for each in its)
        )
        self._types = ["text[]", *("text[]" if cast else "bytea[]" for _, cast in written)]
        setting = ", ".join(
            f"{name} = coalesce(v.c{place}{cast}, l.{name})" for place, (name, cast) in enumerate(written)
        )
        names = ", ".join(f"c{place}" for place in range(len(written)))
        places = ", ".join(f"${place + 2}" for place in range(len(written)))
        self._update = (
            f"update {leaf} as l set {setting} from unnest($1::tid[], {places}) as v (tid, {names})"
            " where l.ctid = v.tid"
        )

    def moves(self, place: int) -> str:
        """Return the SQL condition that a column of row l is under another key, or has no tokens."""
        name = self._columns[place]
        lacking = "".join(f" or l.{each.stored} is null" for each in self._searched[place])
        moved = f"substr(l.{name}, 1, 5) <> '\\x{self._targets[place][1].hex()}'::bytea"
        return f"(l.{name} is not null and ({moved}{lacking}))" if lacking else moved

    def move(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Move values that are at hand."""
        parts: list[bytes] = []
        again: list[bytes] = []
        searched: list[Sequence[_Searched]] = []
        sizes: list[tuple[int, bytes]] = []
        slots = [(f"c{place}", *target) for place, target in enumerate(self._targets)]
        for facts in rows:
            row = facts["row"]
            head = len(row).to_bytes(4, "big") + row
            for place, (slot, column, target) in enumerate(slots):
                value = facts[slot]
                if value is not None:
                    size = len(value)
                    sizes.append((size, target))
                    field = (column, head, size.to_bytes(4, "big"), value)
                    parts += field
                    if self._searched[place]:
                        again += field
                        searched.append(self._searched[place])
        if not sizes:
            return
        answers = self._parse(self._reseal(b"".join(parts)), sizes)
        tokens = self._tokens(b"".join(again), searched)
        tids: list[str] = []
        ids: list[bytes] = []
        moved: list[list[bytes | str | None]] = [[] for _ in self._types[1:]]
        for facts in rows:
            tid = facts["tid"]
            given = [None if facts[slot] is None else next(answers) for slot, _, _ in slots]
            searched_tokens: list[str | None] = []
            for place, value in enumerate(given):
                its = [None if value is None else next(tokens) for _ in self._searched[place]]
                if value == b"" or (value and None in its):
                    self._fail(tid, facts["row"], self._columns[place])
                    given[place] = b""
                searched_tokens += its
            count = len(given) - given.count(None) - given.count(b"")
            if count:
                tids.append(tid)
                ids.append(facts["row"])
                self.fields += count
                for collected, written in zip(moved, [*given, *searched_tokens], strict=True):
                    collected.append(written or None)
        self._write(tids, ids, moved)

    def move_large(self, tid: str, row: bytes) -> None:
        """Move a row that has large values, value by value through the keeper."""
        moved: list[list[bytes | str | None]] = []
        searched_tokens: list[list[bytes | str | None]] = []
        for place, (identity, target) in enumerate(self._targets):
            column = self._columns[place]
            query = f"select l.{column} as value from {self._leaf} as l where l.ctid = '{tid}'"
            (facts,) = next(self._host.fetch(f"{query} and {self.moves(place)}", 1), [{"value": None}])
            value = facts["value"]
            its = self._searched[place]
            if value is None:
                moved.append([None])
                searched_tokens += ([None] for _ in its)
                continue
            field = b"".join(
                (identity, len(row).to_bytes(4, "big"), row, len(value).to_bytes(4, "big"), value)
            )
            (sealed,) = self._parse(self._reseal(field), [(len(value), target)])
            tokens = list(self._tokens(field, [its])) if its else []
            if not sealed or None in tokens:
                self._fail(tid, row, column)
                sealed = b""
            self.fields += bool(sealed)
            moved.append([sealed or None])
            searched_tokens += ([each] for each in tokens)
        if any(value for (value,) in moved):
            self._write([tid], [row], moved + searched_tokens)

    def _reseal(self, fields: bytes) -> bytes:
        return self._keeper.reseal(self._tenant, self._active, self._keys, self._classes, fields)

    def _tokens(self, fields: bytes, searched: Sequence[Sequence[_Searched]]) -> Iterator[str | None]:
        """Yield the tokens of each field and search, as PostgreSQL reads them; None: there are none."""
        if not searched:
            return
        to, keys, classes = self._active, self._keys, self._classes
        answer = self._keeper.tokens(self._tenant, to, keys, classes, self._searches, fields)
        place = 0
        for each in (each for its in searched for each in its):
            count = int.from_bytes(answer[place : place + 4], "big")
            place += 4
            if count == _NONE:
                yield None
                continue
            if place + 8 * count > len(answer) or (count != 1 and each.kind in SINGLE):
                raise KeeperUnavailable("the keeper gave an answer that is not one")
            made = struct.unpack_from(f">{count}q", answer, place)
            place += 8 * count
            yield str(made[0]) if each.kind in SINGLE else f"{{{','.join(map(str, made))}}}"
        if place != len(answer):
            raise KeeperUnavailable("the keeper gave an answer that is not one")

    def _fail(self, tid: str, row: bytes, column: str) -> None:
        """Note a value that does not open, or is not unique, before its row gets another tid.

        The first ones by name.
        """
        self.failed += 1
        self.failing.add(row)
        if len(self.named) < _MOST_NAMED:
            query = f"select {self._key}::text as key from {self._leaf} as l where l.ctid = '{tid}'"
            for (facts,) in self._host.fetch(query, 1):
                self.named.append({"column": column, "row": json.loads(facts["key"])})

    def _write(self, tids: list[str], rows: list[bytes], moved: list[list[bytes | str | None]]) -> None:
        if not tids:
            return
        change = self._host.try_change if self._unique else self._host.change
        written = change(self._update, self._types, [tids, *moved])
        if written is None and len(tids) > 1:
            for place, tid in enumerate(tids):
                self._write([tid], [rows[place]], [[column[place]] for column in moved])
            return
        if written is None:
            self._fail(tids[0], rows[0], self._unique_columns)
            for place in self._unique:
                moved[place] = [None]
            written = self._host.change(self._update, self._types, [tids, *moved])
        if written != len(tids):  # they are locked: somebody took them away all the same
            raise KeeperUnavailable("rows went away while they were resealed", "try again")
        self.rows += written

    def _parse(self, answer: bytes, sizes: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
        """Yield a value for each that was sent: sealed as asked, of the same length, or empty."""
        place = 0
        values: list[bytes] = []
        for size, sealed_so in sizes:
            length = int.from_bytes(answer[place : place + 4], "big")
            value = answer[place + 4 : place + 4 + length]
            place += 4 + length
            if length and (length != size or len(value) != size or value[:5] != sealed_so):
                raise KeeperUnavailable("the keeper gave an answer that is not one")
            values.append(value)
        if place != len(answer):
            raise KeeperUnavailable("the keeper gave an answer that is not one")
        return iter(values)
