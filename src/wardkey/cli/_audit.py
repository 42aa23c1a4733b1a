"""What ``wardkey audit`` reads from files and says about what it verified."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from ._context import Context
from ._output import FINDINGS, details, emit, fail

if TYPE_CHECKING:
    import psycopg
    from wardkey_core.log.checkpoint import Checkpoint

    from ..audit.report import Report

__all__ = [
    "check_proof",
    "log_id",
    "printable",
    "read_keys",
    "read_known",
    "report_facts",
    "show_report",
    "snapshot",
]


def log_id(connection: psycopg.Connection[Any], name: str) -> UUID:
    """See ``audit.which``; imported when a command runs."""
    from ..audit import which

    return which.log_id(connection, name)


def snapshot(connection: psycopg.Connection[Any]) -> AbstractContextManager[None]:
    """See ``audit.which``; imported when a command runs."""
    from ..audit import which

    return which.snapshot(connection)


def printable(text: str) -> str:
    """Return ``text`` with what could steer a terminal shown instead: tenants name applications."""
    return "".join(part if part.isprintable() else f"\\x{ord(part):02x}" for part in text)


def _printable(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in facts.items()}


def read_keys(keys: Sequence[str]) -> set[bytes] | None:
    """Return the fingerprints that --key names; None: it was not given."""
    from ..audit.checking import read_key

    try:
        return {read_key(text) for text in keys} or None
    except ValueError as error:
        raise click.UsageError(f"--key: {error}") from None


def read_known(path: Path | None) -> Checkpoint | None:
    from wardkey_core.log.canonical import NotCanonical

    from ..audit import checking

    try:
        return None if path is None else checking.read_known(path)
    except NotCanonical as error:
        fail(f"{path} {error}", "it is a file that wardkey audit verify --remember wrote")


def check_proof(context: Context, path: Path, keys: set[bytes] | None) -> int:
    """Check a proof, say what is proven and return the exit code."""
    from wardkey_core.log.canonical import NotCanonical

    from ..audit.prove import NotProven, read

    try:
        proof = read(path)
        entry = proof.check(keys)
    except (NotCanonical, NotProven) as error:
        return _not_proven(context, str(error))
    this = proof.signed.checkpoint
    facts = {"position": proof.position, "checkpoint": this.number, "signed_at": this.at}
    facts |= {"key": this.key.hex(), "key_trusted": keys is not None}
    shown = {"proven": "this entry is in the log", **facts, **_printable(entry)}
    emit(context, {"ok": True, "entry": entry, **facts}, lambda: details(shown))
    return 0


def _not_proven(context: Context, why: str) -> int:
    facts = {"ok": False, "defect": {"kind": "not proven", "message": f"the proof: {why}"}}
    emit(context, facts, lambda: click.echo(f"BAD: {why}"))
    return FINDINGS


def report_facts(report: Report) -> dict[str, Any]:
    """Return what was found, as facts."""
    defect, header, newest = report.defect, report.header, report.newest
    return {
        "ok": report.ok,
        "defect": defect and asdict(defect),
        "unfit": [asdict(one) for one in report.unfit],
        "unfit_count": report.unfit_count,
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


def show_report(context: Context, report: Report, *, live: bool) -> int:
    """Say what was found and return the exit code."""
    facts = report_facts(report)
    emit(context, facts, lambda: _show(report, facts, live))
    return 0 if report.ok else FINDINGS


def _show(report: Report, facts: dict[str, Any], live: bool) -> None:
    what = "the log" if live else "the export"
    if report.defect is not None:
        if not report.is_whole:
            click.echo(f"BAD ({report.defect.kind}): {report.defect.message}")
        for unfit in report.unfit:
            click.echo(f"BAD ({unfit.kind}): {unfit.message}")
        if report.unfit_count:
            more = ": the rest is as its checkpoints sign" if report.is_whole else " ahead of that"
            click.echo(f"{report.unfit_count:,} entries were sealed or put in that are none{more}")
        return
    click.echo(f"good: {what} holds the {report.entries:,} entries that its checkpoints sign")
    shown = ("tenant", "slug", "checkpoints", "as_of", "unsealed", "root", "keys")
    details(_printable({name: facts[name] for name in shown if facts[name]}))
    for gap in report.gaps:
        click.echo(printable(f"WARNING: reads of {gap.since} to {gap.until} may be missing: {gap.why}"))
    for remark in _remarks(report, live):
        click.echo(f"- {remark}")


def _remarks(report: Report, live: bool) -> list[str]:
    """Return what a good report still leaves open, and what is worth a look."""
    remarks = []
    if not report.trusted:
        remarks.append("whether that key is the right one you must know: name it with --key")
    if report.known:
        remarks.append("it continues the checkpoint known")
    elif report.known_is_older:
        remarks.append("the checkpoint known is of before the first entry: nothing to compare it with")
    elif report.known is None:
        remarks.append("compared with no earlier checkpoint (--known): keep one with --remember")
    if (pruned := report.pruned) is not None:
        remarks.append(
            f"its first {pruned.entries:,} entries, up to {pruned.until}, were pruned at {pruned.at}, it says"
        )
    if report.remembered and not report.unlike:
        remarks.append("its newest checkpoint is the last one that the keeper has signed")
    elif report.unlike:
        remarks.append(report.unlike)
    if not live and not report.complete_from:
        remarks.append("entries from its beginning may be missing ahead of the first")
    if not live and not report.complete_to:
        remarks.append("entries up to its end may be missing behind the last: the log was not settled then")
    if report.unsealed:
        remarks.append(f"{report.unsealed:,} entries are in no checkpoint yet: nothing vouches for them")
    if report.strays:
        remarks.append(f"{report.strays:,} of them, {report.first_stray} first, should long have been sealed")
    if report.backdated:
        remarks.append(
            f"{report.backdated:,} entries, at {report.first_backdated} first, tell of an earlier time"
        )
    if report.ahead:
        remarks.append(f"{report.ahead:,} checkpoints seal entries of a later time than their own")
    return remarks
