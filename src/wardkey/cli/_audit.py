"""What ``wardkey audit`` reads from files and says about what it verified."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import click

from ._context import Context
from ._output import FINDINGS, details, emit, fail

if TYPE_CHECKING:
    import psycopg
    from wardkey_core.log.checkpoint import Checkpoint

    from ..audit.remembered import Remembered
    from ..audit.report import Report

__all__ = [
    "Memory",
    "ask_of_file",
    "check_file",
    "printable",
    "read_keys",
    "read_known",
    "report_facts",
    "show_report",
    "snapshot",
    "tenant_id",
]

_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}")
_PROOF = b'{"wardkey audit proof":'
_LONGEST_PROOF = 1 << 30
_PLATFORM = "platform"


def tenant_id(connection: psycopg.Connection[Any], slug: str) -> UUID:
    """Return the tenant's id, of a shredded one too; ``platform`` has entries too. Raises WardError."""
    from ..errors import UnknownTenant

    found = connection.execute("select id from ward_internal.tenants where slug = %s", [slug]).fetchone()
    if found is not None:
        return UUID(str(found[0]))
    if slug == _PLATFORM:
        return UUID(int=0)
    try:
        return UUID(slug)  # of a tenant that is gone: its log stays
    except ValueError:
        hint = "list them: wardkey tenant list; of one that was dropped, give the id"
        raise UnknownTenant("no tenant has that slug", hint) from None


@contextmanager
def snapshot(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """One moment for all queries, none of which changes anything. Tells of a log that is damaged."""
    from ..audit.source import DamagedLog

    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        try:
            yield
        except DamagedLog as error:
            fail(str(error), "what is wrong says: wardkey audit verify --live", FINDINGS)


def printable(text: str) -> str:
    """Return ``text`` with what could steer a terminal shown instead: tenants name applications."""
    return "".join(part if part.isprintable() else f"\\x{ord(part):02x}" for part in text)


def _printable(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in facts.items()}


def read_keys(keys: Sequence[str]) -> set[bytes] | None:
    """Return the fingerprints that --key names; None: it was not given."""
    return {_read_key(text) for text in keys} or None


def _read_key(text: str) -> bytes:
    from wardkey_core.log.canonical import NotCanonical, from_base64
    from wardkey_core.log.checkpoint import fingerprint

    if _FINGERPRINT.fullmatch(text):
        return bytes.fromhex(text)
    if not Path(text).is_file():
        raise click.UsageError("--key: neither a fingerprint of 64 hexadecimal digits nor a file")
    data = Path(text).read_bytes()
    if len(data) == 32:
        return fingerprint(data)
    line = data.strip().decode("ascii", "replace")
    if _FINGERPRINT.fullmatch(line):
        return bytes.fromhex(line)
    try:
        return fingerprint(from_base64(line, 32))
    except NotCanonical:
        raise click.UsageError(
            "--key: the file holds neither a fingerprint nor an Ed25519 public key (raw or in base64)"
        ) from None


def read_known(path: Path | None) -> Checkpoint | None:
    from wardkey_core.log.canonical import NotCanonical
    from wardkey_core.log.checkpoint import Checkpoint

    if path is None:
        return None
    try:
        return Checkpoint.decode(path.read_bytes().removesuffix(b"\n"))
    except NotCanonical as error:
        fail(f"{path} {error}", "it is a file that wardkey audit verify --remember wrote")


class Memory:
    """What the keeper remembers of the log at hand; ``ask`` is None where it is not to be asked."""

    def __init__(self, ask: Callable[[], Remembered] | None) -> None:
        from ..errors import WardError

        self._ask = ask
        self.found: Remembered | None = None
        self._refusal: str | None = None
        try:
            self.found = ask and ask()
        except WardError as error:
            self._refusal = f"not compared with what the keeper signed: {error.message}"

    def compare(self, report: Report, *, live: bool) -> None:
        from ..audit.remembered import compare
        from ..errors import WardError

        report.unlike = self._refusal
        with suppress(WardError):
            if self.found is not None:
                compare(report, self.found, live=live, again=self._ask)


def ask_of_file(keeper: Path, stream: BinaryIO) -> Callable[[], Remembered]:
    """Return what asks the keeper of the log that an export is of. It need not be a good one."""
    from wardkey_core.log.canonical import NotCanonical
    from wardkey_core.log.exportfile import LONGEST, Header

    from ..audit.remembered import ask
    from ..errors import Unsupported

    try:
        tenant = UUID(Header.decode(stream.readline(LONGEST).removesuffix(b"\n")).tenant)
    except (NotCanonical, KeyError):
        tenant = None
    stream.seek(0)

    def asking() -> Remembered:
        if tenant is None or tenant.int == 0:
            raise Unsupported(
                "the keeper is asked about a tenant's log; the platform's is compared with --live"
            )
        return ask(keeper, tenant)

    return asking


def check_file(context: Context, path: Path, keys: set[bytes] | None) -> int | None:
    """Check a proof, say what is proven and return the exit code; None: the file is no proof."""
    from wardkey_core.log.canonical import NotCanonical

    from ..audit.prove import NotProven, Proof

    with path.open("rb") as stream:
        if stream.read(len(_PROOF)) != _PROOF:
            return None
        data = _PROOF + stream.read(_LONGEST_PROOF)
    try:
        proof = Proof.decode(data)
        entry = proof.check(keys)
    except (NotCanonical, NotProven) as error:
        facts: dict[str, Any] = {
            "ok": False,
            "defect": {"kind": "not proven", "message": f"the proof: {error}"},
        }
        said = str(error)
        emit(context, facts, lambda: click.echo(f"BAD: {said}"))
        return FINDINGS
    this = proof.signed.checkpoint
    facts = {
        "ok": True,
        "entry": entry,
        "position": proof.position,
        "checkpoint": this.number,
        "signed_at": this.at,
        "key": this.key.hex(),
        "key_trusted": keys is not None,
    }
    shown = {name: value for name, value in facts.items() if name not in ("ok", "entry")}
    emit(
        context, facts, lambda: details({"proven": "this entry is in the log", **shown, **_printable(entry)})
    )
    return 0


def report_facts(report: Report) -> dict[str, Any]:
    """Return what was found, as facts."""
    defect, header, newest = report.defect, report.header, report.newest
    return {
        "ok": report.ok,
        "defect": defect
        and {name: getattr(defect, name) for name in ("kind", "message", "line", "position", "entry")},
        "tenant": header and header.tenant,
        "slug": header and header.slug,
        "entries": report.entries,
        "unsealed": report.unsealed,
        "checkpoints": report.checkpoints,
        "newest_checkpoint": newest and newest.number,
        "as_of": newest and newest.at,
        "root": newest and newest.root.hex(),
        "keys": sorted(key.hex() for key in report.signers),
        "keys_trusted": report.trusted,
        "continues_known": report.known,
        "pruned": report.pruned and asdict(report.pruned),
        "gaps": [asdict(gap) for gap in report.gaps],
        "keeper_agrees": report.remembered,
        "keeper": report.unlike,
        "complete_from": report.complete_from,
        "complete_to": report.complete_to,
        "backdated": report.backdated,
        "strays": report.strays,
        "ahead": report.ahead,
    }


def show_report(context: Context, report: Report, *, live: bool) -> None:
    facts = report_facts(report)
    emit(context, facts, lambda: _show(report, facts, live))


def _show(report: Report, facts: dict[str, Any], live: bool) -> None:
    what = "the log" if live else "the export"
    if report.defect is not None:
        click.echo(f"BAD ({report.defect.kind}): {report.defect.message}")
        return
    click.echo(f"good: {what} holds the {report.entries:,} entries that its checkpoints sign")
    shown = ("tenant", "slug", "checkpoints", "as_of", "unsealed", "root", "keys")
    details(_printable({name: facts[name] for name in shown if facts[name]}))
    for gap in report.gaps:
        click.echo(printable(f"WARNING: reads of {gap.since} to {gap.until} may be missing: {gap.why}"))
    for said in _remarks(report, live):
        click.echo(f"- {said}")


def _remarks(report: Report, live: bool) -> list[str]:
    """Return what a good report still leaves open, and what is worth a look."""
    found = []
    if not report.trusted:
        found.append("whether that key is the right one you must know: name it with --key")
    if report.known:
        found.append("it continues the checkpoint known")
    elif report.known_is_older:
        found.append("the checkpoint known is of before the first entry: nothing to compare it with")
    elif report.known is None:
        found.append("compared with no earlier checkpoint (--known): keep one with --remember")
    if (pruned := report.pruned) is not None:
        found.append(
            f"its first {pruned.entries:,} entries, up to {pruned.until}, were pruned at {pruned.at}, it says"
        )
    if report.remembered and not report.unlike:
        found.append("its newest checkpoint is the last one that the keeper has signed")
    elif report.unlike:
        found.append(report.unlike)
    if not live and not report.complete_from:
        found.append("entries from its beginning may be missing ahead of the first")
    if not live and not report.complete_to:
        found.append("entries up to its end may be missing behind the last: the log was not settled then")
    if report.unsealed:
        found.append(f"{report.unsealed:,} entries are in no checkpoint yet: nothing vouches for them")
    if report.strays:
        found.append(f"{report.strays:,} of them, {report.first_stray} first, should long have been sealed")
    if report.backdated:
        found.append(
            f"{report.backdated:,} entries, at {report.first_backdated} first, tell of an earlier time"
        )
    if report.ahead:
        found.append(f"{report.ahead:,} checkpoints seal entries of a later time than their own")
    return found
