"""Whatever is changed in an export, verification names the first bad entry, or the exact defect."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.log import canonical, entry
from wardkey_core.log.checkpoint import Signed, fingerprint
from wardkey_core.log.merkle import leaf_hash

from tests.audit.logs import OTHER, TENANT, Log, make_entry, moment
from wardkey.audit.blame import Ids, first_difference
from wardkey.audit.report import Defect, Report
from wardkey.audit.verify import verify

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_LOG = Log.of(5, 8, 20, 23, key=_KEY)
_EXPORT = _LOG.export()


def _verify(data: bytes, **options: Any) -> Report:
    return verify(io.BytesIO(data), **options)


def _defect(data: bytes, **options: Any) -> Defect:
    report = _verify(data, **options)
    assert report.defect is not None and not report.ok
    return report.defect


def _lines(data: bytes = _EXPORT) -> list[bytes]:
    return data[:-1].split(b"\n")


def _file(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


def _line_of(position: int, data: bytes = _EXPORT) -> int:
    return _lines(data).index(_LOG.entries[position])


def _line_of_checkpoint(number: int, data: bytes = _EXPORT) -> int:
    text = b'{"checkpoint":'
    return next(i for i, x in enumerate(_lines(data)) if x.startswith(text) and b'"number":%d,' % number in x)


def _export_of(present: list[bytes | None]) -> bytes:
    """Return an export of a log in which ``present`` is what is there of the entries sealed."""
    return _LOG.export(present=present)


def _resealed(lines: list[bytes]) -> bytes:
    """Return the file with leaves and numbers made to fit, as one who knows the format would."""
    made: list[bytes] = []
    block: list[bytes] = []
    for line in lines:
        if line.startswith(b'{"a'):
            block.append(leaf_hash(line)[:8])
        elif line.startswith(b'{"leaves"'):
            if not block:
                continue
            line, block = canonical.encode({"leaves": canonical.to_base64(b"".join(block))}), []
        elif line.startswith(b'{"end"'):
            end = json.loads(line)["end"]
            end["entries"] = sum(other.startswith(b'{"a') for other in made)
            end["checkpoints"] = sum(other.startswith(b'{"c') for other in made)
            line = canonical.encode({"end": end})
        made.append(line)
    return _file(made)


def _export_from(first: int, *checkpoints: Signed) -> bytes:
    """Return the part up to position 19, with these checkpoints at its end and no other."""
    lines = _lines(_LOG.export(first, 20))
    kept = [line for line in lines[:-1] if not line.startswith(b'{"c')]
    more = [canonical.encode(signed.document()) for signed in checkpoints]
    return _resealed([*kept, *more, lines[-1]])


def test_an_untouched_export_is_sound() -> None:
    report = _verify(_EXPORT, keys={fingerprint(_LOG.public_key)}, known=_LOG.checkpoints[1].checkpoint)
    assert report.ok and report.trusted and report.known
    assert (report.entries, report.checkpoints, report.unsealed) == (23, 4, 0)
    assert report.newest == _LOG.checkpoints[-1].checkpoint
    assert report.signers == {fingerprint(_LOG.public_key)}
    assert report.complete_from and report.complete_to
    assert (report.backdated, report.ahead) == (0, 0)
    assert _verify(Log().export(end=0)).ok  # nothing happened yet


@pytest.mark.parametrize("position", [0, 4, 5, 12, 22])
def test_an_edited_entry_is_named(position: int) -> None:
    edited = entry.encode(entry.decode(_LOG.entries[position]) | {"subject": "nobody"})
    lines = _lines()
    lines[_line_of(position)] = edited
    defect = _defect(_file(lines))
    assert (defect.kind, defect.position, defect.entry) == ("edited", position, str(1000 + position))
    assert defect.line == _line_of(position) + 1


@pytest.mark.parametrize("position", [0, 4, 5, 12, 22])
def test_a_deleted_entry_is_named_in_the_file_and_in_the_log(position: int) -> None:
    lines = _lines()
    del lines[_line_of(position)]
    gone = [data if place != position else None for place, data in enumerate(_LOG.entries)]
    for data in (_file(lines), _export_of(gone)):
        defect = _defect(data)
        assert (defect.kind, defect.position) == ("deleted", position)


@pytest.mark.parametrize("position", [0, 5, 12, 22])
def test_an_inserted_entry_is_named(position: int) -> None:
    lines = _lines()
    lines.insert(_line_of(position), entry.encode(make_entry(position, id="77")))
    defect = _defect(_file(lines))
    assert (defect.kind, defect.position, defect.entry) == ("inserted", position, "77")


@pytest.mark.parametrize(("one", "two"), [(0, 1), (5, 7), (9, 19)])
def test_entries_that_changed_places_are_named(one: int, two: int) -> None:
    lines = _lines()
    i, j = _line_of(one), _line_of(two)
    lines[i], lines[j] = lines[j], lines[i]
    defect = _defect(_file(lines))
    assert (defect.kind, defect.position, defect.entry) == ("reordered", one, str(1000 + two))


@pytest.mark.parametrize("origin", [0, 9])
def test_a_copied_entry_is_named(origin: int) -> None:
    lines = _lines()
    lines.insert(_line_of(12), _LOG.entries[origin])
    defect = _defect(_file(lines))
    assert (defect.kind, defect.position, defect.entry) == ("duplicate", 12, str(1000 + origin))


@pytest.mark.parametrize("changed", [b" ", b"x", b"\xff", b"\r", b"{}", b""])
def test_an_edit_that_breaks_the_form_is_still_that_entry(changed: bytes) -> None:
    lines = _lines()
    place = _line_of(12)
    lines[place] = lines[place] + changed if len(changed) == 1 else changed
    defect = _defect(_file(lines))
    assert (defect.kind, defect.position, defect.line) == ("edited", 12, place + 1)


def test_the_first_of_several_is_named() -> None:
    lines = _lines()
    for position in (17, 13, 9, 21):
        lines[_line_of(position)] = entry.encode(make_entry(position, row="other"))
    lines[_line_of(15)] += b" "
    assert _defect(_file(lines)).position == 9
    lines[_line_of(8)] += b" "
    assert _defect(_file(lines)).position == 8


def test_an_edit_with_its_leaves_made_to_fit_is_narrowed_down_by_the_checkpoints() -> None:
    lines = _lines()
    lines[_line_of(12)] = entry.encode(make_entry(12, row="other"))
    defect = _defect(_resealed(lines))
    assert (defect.kind, defect.position) == ("altered", 8)
    assert "entries from position 8 to 19" in defect.message and "checkpoint 3" in defect.message


def test_other_changes_with_all_else_made_to_fit_are_found() -> None:
    lines = _lines()
    shorter = [line for place, line in enumerate(lines) if place != _line_of(12)]
    assert _defect(_resealed(shorter)).kind == "deleted"
    longer = [*lines[: _line_of(12)], entry.encode(make_entry(12, id="77")), *lines[_line_of(12) :]]
    assert _defect(_resealed(longer)).kind == "inserted"
    swapped = list(lines)
    swapped[_line_of(12)], swapped[_line_of(13)] = swapped[_line_of(13)], swapped[_line_of(12)]
    assert _defect(_resealed(swapped)).kind == "altered"
    twice = list(lines)
    twice[_line_of(12)] = _LOG.entries[3]
    assert _defect(_resealed(twice)).kind == "duplicate"


def test_only_the_leaves_changed_accuses_no_entry() -> None:
    lines = _lines()
    place = next(place for place, line in enumerate(lines) if line.startswith(b'{"leaves"'))
    lines[place] = canonical.encode({"leaves": canonical.to_base64(bytes(40))})
    defect = _defect(_file(lines))
    assert defect.kind == "damaged" and "no entry was" in defect.message
    del lines[place]
    assert _defect(_file(lines)).kind == "damaged"


@pytest.mark.parametrize("kept", range(22))
def test_a_cut_tail_is_found(kept: int) -> None:
    """The entries from ``kept`` on and all that covers them are cut off, and the numbers made to fit."""
    lines = _lines()
    cut = _resealed([*lines[: _line_of(kept)], lines[-1]])
    report = _verify(cut)
    if kept in (0, 5, 8, 20):  # an older export, and honest: only one who knows more can tell
        assert report.ok and report.newest != _LOG.checkpoints[-1].checkpoint
        defect = _defect(cut, known=_LOG.checkpoints[-1].checkpoint)
        assert (defect.kind, defect.position) == ("cut tail", kept)
        at = moment(20) if kept else moment(1)
        assert not _verify(cut.replace(b'"tenant"', b'"to":"%s","tenant"' % at.encode(), 1)).ok
    else:
        assert report.defect is not None and report.defect.kind in ("missing", "damaged")


def test_a_cut_tail_under_a_checkpoint_that_was_kept_is_found() -> None:
    lines = _lines()
    kept = [*lines[: _line_of(21)], lines[-2], lines[-1]]
    defect = _defect(_resealed([*kept[:-2], b'{"leaves":""}', *kept[-2:]]))
    assert (defect.kind, defect.position) == ("cut tail", 21)
    defect = _defect(_file(kept))
    assert defect.kind in ("damaged", "cut tail")


def test_entries_under_no_checkpoint_are_not_taken_for_sealed() -> None:
    lines = _lines()
    del lines[_line_of_checkpoint(4)]
    defect = _defect(_resealed(lines))
    assert (defect.kind, defect.position) == ("missing", 20)
    for number in (1, 2, 3, 4):
        del (lines := _lines())[_line_of_checkpoint(number)]
        if number == 4:
            lines.insert(-1, entry.encode(make_entry(99)))
            lines.insert(-1, b'{"leaves":""}')
        assert _defect(_resealed(lines)).kind == "missing"


def test_a_checkpoint_that_covers_more_than_the_file_has_is_the_last() -> None:
    """Only the last can be checked against the hashes at the end of the file."""
    lines = _lines(_LOG.export(0, 12))
    forged = replace(_LOG.checkpoints[2].checkpoint, root=bytes(32))
    signed = [Signed(this, _KEY.sign(b"wardkey/1 audit checkpoint\n" + this.encode())) for this in (forged,)]
    after = replace(_LOG.checkpoints[3].checkpoint, previous=forged.digest())
    signed.append(Signed(after, _KEY.sign(b"wardkey/1 audit checkpoint\n" + after.encode())))
    end = json.loads(lines[-1])["end"] | {
        "right": [x.hex() for x in _LOG.range(12, 23).hashes],
        "checkpoints": 4,
    }
    both = [canonical.encode(this.document()) for this in signed]
    assert _defect(_file([*lines[:-2], *both, canonical.encode({"end": end})])).kind == "deleted"
    header, *entries, leaves, checkpoint, last = _lines(Log.of(9).export())
    early = _file([header, *entries[:5], b'{"leaves":""}', checkpoint, *entries[5:], leaves, last])
    assert _defect(_resealed(_lines(early))).kind == "deleted"
    defect = _defect(_EXPORT.replace(b'"right":[]', b'"right":["%s"]' % (b"00" * 32)))
    assert defect.kind == "damaged"


def test_a_part_begins_with_a_checkpoint_that_covers_it() -> None:
    assert _verify(_export_from(8, _LOG.checkpoints[2])).ok
    lines = _lines(_LOG.export(8, 20))
    early = canonical.encode(_LOG.checkpoints[0].document())
    assert _defect(_file([lines[0], early, *lines[1:]])).kind == "swapped"


def test_swapped_checkpoints_are_named() -> None:
    lines = _lines()
    i, j = _line_of_checkpoint(2), _line_of_checkpoint(3)
    lines[i], lines[j] = lines[j], lines[i]
    defect = _defect(_file(lines))
    assert defect.kind == "missing" and "checkpoint 2 is missing" in defect.message
    lines = _lines()
    lines[j] = lines[i]
    defect = _defect(_file(lines))
    assert defect.kind == "swapped" and "checkpoint 2 stands where checkpoint 3 is due" in defect.message


def _with_checkpoint(number: int, signed: Signed, **header: Any) -> bytes:
    lines = _lines()
    lines[_line_of_checkpoint(number)] = canonical.encode(signed.document())
    top = json.loads(lines[0])
    top["wardkey audit export"] |= header
    return _file([canonical.encode(top), *lines[1:]])


@pytest.mark.parametrize(
    "changes",
    [{"size": 19}, {"root": bytes(32)}, {"at": moment(21)}, {"settled": None}, {"number": 4}],
    ids=str,
)
def test_an_altered_checkpoint_is_forged(changes: dict[str, Any]) -> None:
    signed = _LOG.checkpoints[2]
    altered = replace(signed, checkpoint=replace(signed.checkpoint, **changes))
    defect = _defect(_with_checkpoint(3, altered))
    assert defect.kind == "forged" and defect.line == _line_of_checkpoint(3) + 1


def test_a_checkpoint_signed_by_another_key_is_named() -> None:
    other = Ed25519PrivateKey.generate()
    public = other.public_key().public_bytes_raw()
    checkpoint = replace(_LOG.checkpoints[2].checkpoint, key=fingerprint(public))
    signed = Signed(checkpoint, other.sign(b"wardkey/1 audit checkpoint\n" + checkpoint.encode()))
    assert _defect(_with_checkpoint(3, signed)).kind == "wrong key"
    keys = [canonical.to_base64(key) for key in (_LOG.public_key, public)]
    both = _with_checkpoint(3, signed, keys=keys)
    assert _defect(both).kind == "broken chain"  # at checkpoint 4, which was made after another
    trusted = _defect(both, keys={fingerprint(_LOG.public_key)})
    assert trusted.kind == "wrong key" and trusted.line == _line_of_checkpoint(3) + 1


def test_a_whole_log_signed_again_needs_the_right_key_or_a_known_checkpoint_to_be_found() -> None:
    known = _LOG.checkpoints[1].checkpoint
    mine = Log.of(5, 8, 20, 23)
    assert _verify(mine.export()).ok and _verify(mine.export()).signers != {fingerprint(_LOG.public_key)}
    assert _defect(mine.export(), keys={fingerprint(_LOG.public_key)}).kind == "wrong key"
    stolen = Log(_KEY)  # with the key itself
    for number in range(23):
        stolen.append(make_entry(number, subject="nobody" if number == 3 else "jane.doe"))
    stolen.seal(moment(23))
    assert _verify(stolen.export(), keys={fingerprint(_LOG.public_key)}).ok
    assert _defect(stolen.export(), known=known).kind == "fork"
    same_number = replace(_LOG.checkpoints[0].checkpoint, at=moment(6))
    assert _defect(_EXPORT, known=same_number).kind == "fork"


def test_a_fork_does_not_hide_the_entry_that_was_edited() -> None:
    lines = _lines()
    lines[_line_of(6)] = entry.encode(make_entry(6, row="other"))
    defect = _defect(_file(lines), known=_LOG.checkpoints[1].checkpoint)
    assert (defect.kind, defect.position) == ("edited", 6)


def test_what_belongs_to_another_tenant_is_named() -> None:
    lines = _lines()
    foreign = entry.encode(entry.decode(_LOG.entries[6]) | {"tenant": OTHER})
    lines[_line_of(6)] = foreign
    assert _defect(_file(lines)).kind == "edited"
    log = Log(_KEY)
    for number in range(9):
        log.append(make_entry(number, tenant=OTHER if number == 6 else TENANT))
    log.seal(moment(20))
    defect = _defect(log.export())
    assert (defect.kind, defect.position) == ("foreign", 6)
    other = Log(_KEY, OTHER)
    other.entries = list(_LOG.entries[:20])
    other.seal(moment(20))
    assert _defect(_with_checkpoint(3, other.checkpoints[-1])).kind == "swapped"
    same = replace(_LOG.checkpoints[2].checkpoint, tenant=OTHER)
    signed = Signed(same, _KEY.sign(b"wardkey/1 audit checkpoint\n" + same.encode()))
    for data in (_with_checkpoint(3, signed), _export_from(8, signed)):
        defect = _defect(data)
        assert defect.kind == "swapped" and "of another tenant" in defect.message
    assert _defect(_EXPORT.replace(TENANT.encode(), OTHER.encode(), 1)).kind == "foreign"
    assert _defect(_EXPORT, known=replace(_LOG.checkpoints[0].checkpoint, tenant=OTHER)).kind == "foreign"


def test_what_was_sealed_wrong_is_named_though_every_hash_fits() -> None:
    log = Log(_KEY)
    for number in (0, 1, 2, 1, 4):
        log.append(make_entry(number))
    log.seal(moment(9))
    defect = _defect(log.export())
    assert (defect.kind, defect.position, defect.entry) == ("duplicate", 3, "1001")


def test_entries_that_are_none_are_named_and_counted_and_the_rest_is_verified() -> None:
    log = Log(_KEY)
    for number in range(60):
        log.append(make_entry(number, tenant=OTHER if number == 41 else TENANT))
        if 10 <= number < 40:
            log.entries[-1] = log.entries[-1].replace(b":", b": ")
        if number % 20 == 19:
            log.seal(moment(number))
    unsealed = [entry.encode(make_entry(61)), b'{"a":1}', entry.encode(make_entry(62, tenant=OTHER))]
    data = log.export(unsealed=unsealed)
    report = _verify(data, known=log.checkpoints[2].checkpoint)
    assert (report.entries, report.unsealed, report.checkpoints, report.known) == (60, 3, 3, True)
    assert report.defect == report.unfit[0] and not report.ok and report.is_whole
    assert (report.defect.kind, report.defect.position) == ("malformed", 10)
    assert [one.position for one in report.unfit] == list(range(10, 30)) and report.unfit_count == 33
    lines = _lines(data)
    place = next(place for place, line in enumerate(lines) if b'"id":"1050"' in line)
    lines[place] = lines[place].replace(b'"operation":"', b'"operation":"x')
    report = _verify(_file(lines))
    assert report.defect and (report.defect.kind, report.defect.position) == ("edited", 50)
    assert not report.is_whole and report.unfit_count == 30


def test_a_file_that_is_not_whole_is_truncated() -> None:
    for length in range(len(_EXPORT)):
        defect = _defect(_EXPORT[:length])
        assert defect.kind in ("truncated", "not an export"), (length, defect)
        assert (defect.kind == "not an export") == (length == 0)


@pytest.mark.parametrize("garbage", [b"\n", b" ", b"\0", b"{}\n", _EXPORT])
def test_what_stands_behind_the_end_is_named(garbage: bytes) -> None:
    defect = _defect(_EXPORT + garbage)
    assert defect.kind == "trailing" and defect.line == len(_lines()) + 1


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"hello\n", b"\x1f\x8b\n", b'{"wardkey audit export":1}\n', b"[]\n"]
)
def test_what_is_not_an_export_is_said(data: bytes) -> None:
    assert _defect(data).kind in ("not an export", "damaged")


@pytest.mark.parametrize("member", ["entries", "checkpoints", "unsealed"])
def test_numbers_in_the_last_line_must_be_those_of_the_file(member: str) -> None:
    lines = _lines()
    for step, kind in ((1, "cut tail"), (-1, "inserted")):
        end = json.loads(lines[-1])["end"]
        end[member] += step
        if end[member] >= 0:
            assert _defect(_file([*lines[:-1], canonical.encode({"end": end})])).kind == kind


def test_entries_not_sealed_yet_are_counted_and_not_vouched_for() -> None:
    more = [entry.encode(make_entry(number)) for number in (30, 31)]
    data = _LOG.export(unsealed=more)
    report = _verify(data)
    assert report.ok and (report.entries, report.unsealed) == (23, 2)
    lines = _lines(data)
    foreign = lines[-2].replace(TENANT.encode(), OTHER.encode())
    assert _defect(_file([*lines[:-2], foreign, lines[-1]])).kind == "foreign"
    assert _defect(_file([*lines[:-2], lines[-2] + b"}", lines[-1]])).kind == "malformed"
    assert _defect(_file([*lines[:-2], lines[-1]])).kind == "cut tail"
    for line in (_LOG.entries[0], _lines()[_line_of_checkpoint(4)]):
        defect = _defect(_file([*lines[:-1], line, lines[-1]]))
        assert defect.kind == "damaged" and "stands behind unsealed ones" in defect.message
    assert _defect(_file([*lines[:-2], lines[-2][:-1] + b"]", lines[-1]])).kind == "malformed"
    assert (
        _defect(_file([*lines[:-2], lines[-2].replace(b"unsealed", b"unsealer"), lines[-1]])).kind
        == "malformed"
    )
    plain = [line.removeprefix(b'{"unsealed":').removesuffix(b"}") for line in lines[-3:-1]]
    defect = _defect(_resealed([*lines[:-3], *plain, b'{"leaves":""}', lines[-1]]))
    assert (defect.kind, defect.position) == ("missing", 23)


def test_long_blocks_are_as_exact() -> None:
    log = Log.of(3500, key=_KEY)
    lines = _lines(log.export())
    assert sum(line.startswith(b'{"leaves"') for line in lines) == 4
    for position in (0, 999, 1000, 2222, 3499):
        place = lines.index(log.entries[position])
        edited = [*lines[:place], log.entries[position].replace(b"jane", b"john"), *lines[place + 1 :]]
        assert _defect(_file(edited)).position == position
        inserted = [*lines[:place], entry.encode(make_entry(1, id="7")), *lines[place:]]
        defect = _defect(_file(inserted))
        assert (defect.kind, defect.position) == ("inserted", position)
        deleted = _defect(_file([*lines[:place], *lines[place + 1 :]]))
        assert (deleted.kind, deleted.position) == ("deleted", position)
    bare = [line for line in lines if not line.startswith(b'{"leaves"')]
    assert _defect(_file(bare)).kind == "damaged"


def test_times_that_cannot_be_are_counted() -> None:
    log = Log(_KEY)
    log.append(make_entry(10))
    log.seal(moment(20), settled=moment(15))
    log.append(make_entry(14))
    log.append(make_entry(15))
    log.append(make_entry(99))
    log.seal(moment(30), settled=moment(30))
    report = _verify(log.export())
    assert report.ok and (report.backdated, report.first_backdated, report.ahead) == (1, 1, 1)


def _facts(report: Report) -> tuple[Any, ...]:
    return report.entries, report.checkpoints, report.newest, report.signers


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([_EXPORT, _LOG.export(6, 15), _LOG.export(5, 20)]))
def test_no_change_of_a_byte_passes_unnoticed(chance: random.Random, sound: bytes) -> None:
    """Anything changed anywhere: named, or it is in what nobody vouches for, and the facts are the same."""
    data = bytearray(sound)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        place = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place] ^= 1 << chance.randrange(8)
            case 2:
                data.insert(place, chance.choice(b'\n {}[]",:0aA\\'))
            case 3:
                del data[place : place + chance.choice([1, 2, 50, 500])]
    report = _verify(bytes(data))
    if report.ok:
        assert _facts(report) == _facts(_verify(sound))
        assert _entries(bytes(data)) == _entries(sound)


def _entries(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.startswith(b'{"a')]


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_change_of_lines_passes_unnoticed(chance: random.Random) -> None:
    lines = _lines()
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(1, len(lines))
        match chance.randrange(3):
            case 0:
                del lines[place]
            case 1:
                lines.insert(chance.randrange(1, len(lines)), lines[place])
            case 2:
                lines.insert(chance.randrange(1, len(lines)), lines.pop(place))
        if len(lines) < 2:
            return
    if lines != _lines():
        assert not _verify(_file(lines)).ok or _resealed(lines) != _file(lines)
    report = _verify(_resealed(lines))
    if report.ok:  # an older export, cut at a checkpoint
        kept = [line for line in lines if line.startswith(b'{"a')]
        assert (kept == _LOG.entries[: len(kept)] and report.newest is not None) or not kept


@given(st.lists(st.integers(0, 30), unique=True, max_size=12), st.randoms(use_true_random=False))
def test_the_first_difference_is_where_it_was_made(numbers: list[int], chance: random.Random) -> None:
    sealed = [bytes([number]) for number in numbers]
    assert first_difference(sealed, sealed) is None
    place = chance.randrange(len(sealed) + 1)
    more = first_difference([*sealed[:place], b"new", *sealed[place:]], sealed)
    assert more is not None and more[:2] == ("inserted", place)
    if place == len(sealed):
        return
    less = first_difference([*sealed[:place], *sealed[place + 1 :]], sealed)
    assert less is not None and less == ("deleted", place, 1)
    other = first_difference([*sealed[:place], b"new", *sealed[place + 1 :]], sealed)
    assert other is not None and other[:2] == ("edited", place)


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 50))
def test_the_first_id_that_comes_twice_is_found(numbers: list[int], bucket: int) -> None:
    ids = Ids()
    ids._BUCKET = bucket  # type: ignore[misc]
    for number in numbers:
        ids.append(number)
    twice = [place for place, number in enumerate(numbers) if number and number in numbers[:place]]
    assert ids.first_repeated() == (twice[0] if twice else None)
