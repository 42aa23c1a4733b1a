"""Reads an export and trusts nobody: neither who wrote it, nor the database, nor who holds the signing key.

What a file alone can show: that its entries are, one by one and in this order, those that the checkpoints in
it sign. What only the reader can bring: which key is the right one (``keys``), and what the log was when it
was last seen (``known``): the holder of the key can sign another log, but not one that fits a checkpoint seen
before.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, BinaryIO, NoReturn

from wardkey_core.log import entry as entry_format
from wardkey_core.log.canonical import NotCanonical, decode
from wardkey_core.log.checkpoint import BrokenChain, Checkpoint, Signed, check_next, fingerprint
from wardkey_core.log.exportfile import BLOCK, SHORT, Damaged, End, Header, lines, read_leaves
from wardkey_core.log.merkle import Range, leaf_hash

from .blame import Ids, first_difference
from .remembered import Remembered
from .report import Defect, Gap, Pruned, Report

__all__ = ["Defect", "Report", "verify"]

_UNSEALED = b'{"unsealed":'
_PRUNING = b'"operation":"log_pruned"'
_GAP = b'"operation":"journal_gap"'


def verify(
    stream: BinaryIO,
    *,
    keys: Collection[bytes] | None = None,
    known: Checkpoint | None = None,
    remembered: Remembered | None = None,
) -> Report:
    """Verify an export; what is wrong is in the report, nothing is raised but the stream's own errors.

    ``keys``: fingerprints (32 bytes) of the keys that may sign; None: any, and the report names them.
    ``known``: a checkpoint of this log that was verified before; it need not be in the file.
    ``remembered``: the one that the keeper signed last, compared where the file has it (see ``remembered``).
    An entry that was sealed though it is none is named and counted, and the next one looked at; what else is
    wrong ends it.
    Memory: a line, 2,000 leaf hashes, and 16 bytes an entry to find an id that comes twice.
    """
    reader = _Reader(keys, known, remembered)
    try:
        for kind, line in lines(stream):
            reader.line += 1
            if kind == "entry":  # most lines
                reader.entry(line)
            else:
                getattr(reader, kind)(line)
        reader.finish()
    except Damaged as error:
        reader.report.defect = reader.first(Defect(error.kind, str(error), error.line))
    except _Stop as stop:
        reader.report.defect = stop.defect
    if reader.report.defect is None and reader.report.unfit:
        reader.report.defect = reader.report.unfit[0]
    return reader.report


class _Stop(Exception):
    def __init__(self, defect: Defect) -> None:
        self.defect = defect


class _Reader:
    """One method a kind of line, then ``finish``.

    An entry that is not as sealed is only suspected at first: the lines of leaves can be altered as well. The
    root of the next checkpoint decides.
    """

    def __init__(
        self, keys: Collection[bytes] | None, known: Checkpoint | None, remembered: Remembered | None
    ) -> None:
        self.report = Report(trusted=keys is not None)
        self.line = 0
        self._trusted, self._known, self._remembered = keys, known, remembered
        self._watch = known.size if known else -1
        self._header = Header("00000000-0000-0000-0000-000000000000", [])
        self._keys: dict[bytes, bytes] = {}
        self._tree = Range()
        self._block: list[bytes] = []  # short leaf hashes since the last line of leaves
        self._block_line = 0  # of the first of them
        self._ids = Ids()
        self._unfit: list[Defect] = []  # entries since the last checkpoint that are malformed or foreign
        self._unfit_count = 0
        self._suspect: Defect | None = None
        self._fork: Defect | None = None
        self._cut = False  # it begins late, though all of it was asked for: an entry may say why
        self._prunings: dict[int, tuple[dict[str, Any], str]] = {}  # size → what it says, and when
        self._base: Checkpoint | None = None  # of the size the file begins at
        self._sound = 0  # entries before this position are those signed
        self._newest: Checkpoint | None = None
        self._pending = False  # the newest covers more than the file has: it must be the last
        self._settled = ""
        self._latest = ""  # time of an entry since the last checkpoint
        self._end: End | None = None

    def header(self, line: bytes) -> None:
        try:
            header = Header.decode(line)
        except NotCanonical as error:
            self._stop("damaged", f"the header {error}")
        if self._known and self._known.tenant != header.tenant:
            self._stop("foreign", "the export is of another tenant than the checkpoint known")
        self.report.header = self._header = header
        self.report.complete_from = header.first == 0
        self._keys = {fingerprint(key): key for key in header.keys}
        self._tree = Range(0, header.first, header.left)
        self._sound = header.first
        self._cut = header.first > 0 and header.from_time is None
        if header.first == self._watch:
            self._compare_known()
        self.report.known_is_older = -1 < self._watch < header.first

    def entry(self, line: bytes) -> None:
        position = self._tree.end
        if self._pending or self.report.unsealed or len(self._block) == 2 * BLOCK:
            self._misplaced("an entry")
        if not self._block:
            self._block_line = self.line
        if self._cut and _PRUNING in line:
            self._take_pruning(line)
        if _GAP in line:
            self._take_gap(line)
        try:
            match = entry_format.match(line.decode("utf-8"))
        except UnicodeDecodeError:
            match = None
        if match is None:
            self._ids.append(0)
            self._not_an_entry(line)
        else:
            tenant, number, at = match.group("tenant", "id", "at")
            self._ids.append(int(number))
            if tenant != self._header.tenant:
                self._note_unfit(self._defect("foreign", position, number, "is of another tenant"))
            if at > self._latest:
                self._latest = at
            if at < self._settled:
                self.report.backdated += 1
                if self.report.first_backdated is None:
                    self.report.first_backdated = position
        leaf = leaf_hash(line)
        self._tree.append(leaf)
        self._block.append(leaf[:SHORT])
        self.report.entries += 1
        if position + 1 == self._watch:
            self._compare_known()

    def leaves(self, line: bytes) -> None:
        try:
            sealed = read_leaves(line)
        except NotCanonical as error:
            self._stop("damaged", f"line {self.line}: the line of leaves {error}")
        if self._suspect is None and sealed != self._block:
            self._suspect = self._compare_leaves(sealed)
        self._block.clear()

    def checkpoint(self, line: bytes) -> None:
        try:
            signed = Signed.from_document(decode(line))
        except NotCanonical as error:
            self._stop("damaged", f"line {self.line}: the checkpoint {error}")
        if self._pending or self._block or self.report.unsealed:
            self._misplaced("a checkpoint")
        this = signed.checkpoint
        self._check_signature(signed)
        self._check_order(this)
        end = self._tree.end
        if this.size < end:
            self._stop(
                "inserted",
                f"checkpoint {this.number} (line {self.line}) covers {this.size} entries, {end} stand ahead:"
                f" some were put in between positions {self._sound} and {end - 1}, or it was moved",
                self._sound,
            )
        self._pending = this.size > end
        if not self._pending:
            self._check_root(this, self._tree)
        if self._known and this.number == self._known.number and this != self._known:
            self._stop("fork", f"checkpoint {this.number} (line {self.line}) is another than the one known")
        if self._remembered and this.number == self._remembered.number:
            if this.digest() != self._remembered.digest:
                message = (
                    f"checkpoint {this.number} (line {self.line}) is another than the one the keeper signed"
                )
                self._stop("fork", message)
            self.report.remembered = True
        if self._latest > this.at:
            self.report.ahead += 1
        self._latest = ""
        self._settled = this.settled or self._settled
        if self._header.from_time and this.at < self._header.from_time:
            self.report.complete_from = True
        self.report.checkpoints += 1
        if this.size == self._header.first and self._base is None:
            self._base = this
        self._newest = self.report.newest = this

    def unsealed(self, line: bytes) -> None:
        if self._block:
            self._misplaced("an unsealed entry")
        self.report.unsealed += 1
        inner = line[len(_UNSEALED) : -1]
        try:
            members = entry_format.decode(inner)
            if line != _UNSEALED + inner + b"}":
                raise NotCanonical("is not in canonical form")
        except NotCanonical as error:
            self._pass_over(Defect("malformed", f"the unsealed entry in line {self.line} {error}", self.line))
            return
        if self._cut and _PRUNING in inner:
            self._take_pruning(inner)
        if _GAP in inner:
            self._take_gap(inner)
        if members["tenant"] != self._header.tenant:
            message = f"the unsealed entry in line {self.line} is of another tenant"
            self._pass_over(Defect("foreign", message, self.line, entry=members["id"]))
            return
        if members["at"] < self._settled:
            self.report.strays += 1
            self.report.first_stray = self.report.first_stray or members["id"]

    def end(self, line: bytes) -> None:
        if self._block:
            self._misplaced("the end")
        try:
            self._end = End.decode(line)
        except NotCanonical as error:
            self._stop("damaged", f"the last line {error}")

    def finish(self) -> None:
        """The file is whole: is what it holds?"""
        report, newest, size, end = self.report, self._newest, self._tree.end, self._end
        assert end is not None  # noqa: S101  lines() raises Damaged otherwise
        if newest is not None and self._pending:
            self._close_right(newest, end)
        elif end.right:
            self._stop("damaged", "the last line has hashes for entries beyond the last checkpoint")
        covered = newest.size if newest else 0
        if covered < size:
            begin = max(covered, self._header.first)
            message = f"no checkpoint covers the entries from position {begin} to {size - 1}"
            self._stop("missing", f"{message}: it was taken away, or they were put in", begin)
        self._clear_suspicion()
        for name, stated, is_ in (
            ("entries", end.entries, report.entries),
            ("checkpoints", end.checkpoints, report.checkpoints),
            ("unsealed entries", end.unsealed, report.unsealed),
        ):
            if stated != is_:
                kind = "cut tail" if stated > is_ else "inserted"
                self._stop(kind, f"the last line speaks of {stated} {name}, the file has {is_}")
        repeated = self._ids.first_repeated()
        if repeated is not None:
            self._stop_repeated(repeated)
        if self._cut:
            self._check_pruning()
        if self._known and not report.known and covered < self._known.size and self._header.to_time is None:
            self._stop(
                "cut tail",
                f"the file ends with {covered} entries; checkpoint {self._known.number}, which is known,"
                f" covers {self._known.size}",
                covered,
            )
        to_time, settled = self._header.to_time, newest.settled if newest else None
        asked = to_time is None or (settled is not None and settled >= to_time)
        report.complete_to = asked and not self._pending

    def _take_pruning(self, line: bytes) -> None:
        try:
            members = entry_format.decode(line)
            detail = json.loads(members.get("detail", "{}"))
            if members["kind"] == "event" and members["operation"] == "log_pruned":
                self._prunings[int(detail["size"])] = (detail, members["at"])
        except (NotCanonical, ValueError, TypeError, KeyError):
            pass  # it is looked at as every entry is, and does not account for anything

    def _take_gap(self, line: bytes) -> None:
        try:
            members = entry_format.decode(line)
            detail = json.loads(members.get("detail", "{}"))
            if members["kind"] == "event" and members["operation"] == "journal_gap":
                gap = (
                    str(detail.get("since") or "its beginning"),
                    members["at"],
                    str(detail.get("why") or ""),
                )
                self.report.gaps.append(Gap(*gap))
        except (NotCanonical, ValueError, TypeError, AttributeError):
            pass  # as above

    def _check_pruning(self) -> None:
        """Does an entry say that what was ahead of the file's first checkpoint was pruned?"""
        first, base = self._header.first, self._base
        detail, at = self._prunings.get(first, ({}, ""))
        if base and (detail.get("number"), detail.get("root")) == (base.number, base.root.hex()):
            self.report.pruned = Pruned(first, base.at, at)
            self.report.complete_from = True

    def first(self, defect: Defect) -> Defect:
        """Return what comes first: an entry found bad before, or ``defect``."""
        return self._suspect or (self._unfit[0] if self._unfit else defect)

    # Checkpoints.

    def _check_signature(self, signed: Signed) -> None:
        this = signed.checkpoint
        name = f"checkpoint {this.number} (line {self.line})"
        if this.tenant != self._header.tenant:
            self._stop("swapped", f"{name} is of another tenant")
        if self._trusted is not None and this.key not in self._trusted:
            self._stop("wrong key", f"{name} is signed by key {this.key.hex()}, which is not one you trust")
        key = self._keys.get(this.key)
        if key is None:
            self._stop(
                "wrong key", f"{name} is signed by key {this.key.hex()}, which the header does not have"
            )
        if not signed.verified_by(key):
            self._stop("forged", f"{name} was altered: its signature is not of what it says")
        self.report.signers.add(this.key)

    def _check_order(self, this: Checkpoint) -> None:
        newest, first = self._newest, self._header.first
        if newest is None and first:  # the chain may begin anywhere, but not with one of what is not here
            if this.size < first:
                self._stop(
                    "swapped", f"checkpoint {this.number} (line {self.line}) covers nothing of this export"
                )
            return
        due = newest.number + 1 if newest else 1
        if this.number > due:
            which = (
                f"checkpoint {due} is"
                if this.number == due + 1
                else f"checkpoints {due} to {this.number - 1} are"
            )
            self._stop("missing", f"{which} missing ahead of line {self.line}")
        if this.number < due:
            self._stop(
                "swapped", f"line {self.line}: checkpoint {this.number} stands where checkpoint {due} is due"
            )
        try:
            check_next(newest, this)
        except BrokenChain as error:
            self._stop("broken chain", f"line {self.line}: {error}")

    def _check_root(self, this: Checkpoint, tree: Range) -> None:
        if tree.root() == this.root:
            self._clear_suspicion()
            self._sound = this.size
            return
        begin, end = self._sound, self._tree.end
        again = self._ids.first_repeated()
        if again is not None and self._header.first + again >= begin:
            self._stop_repeated(again)
        parts = [f"the entries from position {begin} to {end - 1}"] if begin < end else []
        if self._newest is None and begin:
            parts.append("the hashes of those ahead")
        if tree is not self._tree:
            parts.append("the hashes of those behind")
        what = " and ".join(parts) or "the entries"
        message = f"{what} do not give the root that checkpoint {this.number} (line {self.line}) signs"
        self._stop("altered", message, begin if begin < end else None)

    def _close_right(self, this: Checkpoint, end: End) -> None:
        tree = self._tree.copy()
        try:
            tree.extend(Range(tree.end, this.size, end.right))
        except ValueError:
            message = f"checkpoint {this.number} covers {this.size - tree.end} more entries than the file has"
            self._stop("cut tail", f"{message}: those from position {tree.end} on are missing", tree.end)
        self._check_root(this, tree)

    def _compare_known(self) -> None:
        """The tree is as large as the known one: is it the same?"""
        assert self._known is not None  # noqa: S101
        self.report.known = self._tree.root() == self._known.root
        if not self.report.known:
            self._fork = Defect(
                "fork",
                f"the first {self._known.size} entries are not those of checkpoint {self._known.number},"
                " which is known: the log was written again",
                self.line,
            )

    # Who is to blame.

    def _clear_suspicion(self) -> None:
        """The entries are those signed: what is unfit was sealed so, and no entry was changed."""
        if self._suspect is not None:
            message = f"a line of leaves ahead of line {self.line} was changed; no entry was"
            raise _Stop(Defect("damaged", message, self.line))
        for defect in self._unfit:
            self._pass_over(defect)
        self.report.unfit_count += self._unfit_count - len(self._unfit)
        self._unfit, self._unfit_count = [], 0
        if self._fork:
            raise _Stop(self._fork)

    def _note_unfit(self, defect: Defect) -> None:
        """Keep that an entry is unfit, until the next checkpoint says whether it was sealed so."""
        self._unfit_count += 1
        if len(self._unfit) < self.report.NAMED:
            self._unfit.append(defect)

    def _pass_over(self, defect: Defect) -> None:
        """Name and count an entry that is unfit."""
        self.report.unfit_count += 1
        if len(self.report.unfit) < self.report.NAMED:
            self.report.unfit.append(defect)

    def _compare_leaves(self, sealed: list[bytes]) -> Defect:
        """Name the first entry of this block that is not the one sealed there."""
        difference = first_difference(self._block, sealed)
        assert difference is not None  # noqa: S101
        kind, index, number = difference
        start = self._tree.end - len(self._block)
        if kind == "deleted":
            what = "an entry is" if number == 1 else f"{number} entries are"
            message = (
                f"{what} missing ahead of line {self._block_line + index}: sealed at position {start + index}"
            )
            return Defect(kind, message, self._block_line + index, start + index)
        place = len(self._ids) - len(self._block) + index
        identity = str(self._ids[place]) if self._ids[place] else None
        if kind == "inserted" and identity and self._ids.index_of(self._ids[place]) < place:
            kind = "duplicate"
        text = {
            "duplicate": "stands there a second time",
            "reordered": f"was moved: it was sealed at position {start + number}",
            "inserted": "was put in: it was never sealed",
            "edited": "was changed after it was sealed",
        }[kind]
        defect = self._defect(kind, start + index, identity, text, self._block_line + index)
        unfit = next((one for one in self._unfit if one.position == defect.position), None)
        if kind == "edited" and unfit is not None:
            message = f"{defect.message} ({unfit.message})"
            return Defect(kind, message, defect.line, defect.position, identity)
        return defect

    def _not_an_entry(self, line: bytes) -> None:
        try:
            entry_format.decode(line)
        except NotCanonical as error:
            self._note_unfit(self._defect("malformed", self._tree.end, None, str(error)))

    def _defect(self, kind: str, position: int, identity: str | None, text: str, line: int = 0) -> Defect:
        name = f"entry {identity}" if identity else "the entry"
        where = f"at position {position} (line {line or self.line})"
        return Defect(kind, f"{name} {where} {text}", line or self.line, position, identity)

    def _stop_repeated(self, index: int) -> NoReturn:
        identity, first = self._ids[index], self._header.first
        text = f"has the id of the one at position {first + self._ids.index_of(identity)}"
        defect = self._defect("duplicate", first + index, str(identity), text)
        self._stop(
            defect.kind,
            f"entry {identity} at position {first + index} {text}",
            defect.position,
            str(identity),
        )

    def _misplaced(self, what: str) -> NoReturn:
        if self._pending and self._newest is not None:
            self._stop(
                "deleted",
                f"checkpoint {self._newest.number} covers {self._newest.size} entries, {self._tree.end} stand"
                f" ahead: some are missing between positions {self._sound} and {self._newest.size - 1},"
                " or it was moved",
                self._sound,
            )
        if self.report.unsealed:
            self._stop("damaged", f"line {self.line}: {what} stands behind unsealed ones")
        self._stop("damaged", f"a line of leaves is missing ahead of {what} in line {self.line}")

    def _stop(
        self, kind: str, message: str, position: int | None = None, entry: str | None = None
    ) -> NoReturn:
        raise _Stop(self.first(Defect(kind, message, self.line, position, entry)))
