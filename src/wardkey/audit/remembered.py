"""What the keeper remembers of a log: if its end is cut off, checkpoints too, there is no other trace.

The keeper answers with the number, size and digest of the checkpoint it signed last. ``verify`` compares
where the log has that one; ``compare`` says what it means that it has not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.log.canonical import NotCanonical, from_hex

from ..errors import KeeperUnavailable
from .report import Defect, Report

__all__ = ["Remembered", "ask", "compare"]


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last checkpoint signed. ``number`` 0: none, or the log was readmitted after a restore."""

    number: int
    size: int
    digest: bytes

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> Remembered:
        """Read the keeper's answer. Raises NotCanonical."""
        number, size, digest = answer.get("number"), answer.get("size"), answer.get("digest")
        if type(number) is not int or type(size) is not int:
            raise NotCanonical("is not what a keeper remembers")
        return cls(number, size, from_hex(digest) if number else b"")


def ask(keeper: Path, tenant: UUID, log: str | None = None) -> Remembered:
    """Ask the keeper at this socket. ``log``: which database's, of the platform's logs.

    Raises KeeperUnavailable, KeyRefused (it does not tell this user), or what else it refused with.
    """
    try:
        return Remembered.from_answer(client.ask(keeper, wire.checkpoint(str(tenant), log)))
    except NotCanonical as error:
        raise KeeperUnavailable(f"what the keeper answered {error}") from None


def compare(
    report: Report, remembered: Remembered, *, live: bool, again: Callable[[], Remembered] | None = None
) -> None:
    """Add to the report what the keeper's memory, asked before the log was read, says of its end.

    ``again`` asks once more: a log that is at work has gone on meanwhile, and so has the keeper.
    """
    newest = report.newest.number if report.newest else 0
    if not report.is_whole or newest == remembered.number:
        return
    if remembered.number == 0:
        report.unlike = "the keeper remembers no checkpoint of this log: readmitted, or another keeper signed"
    elif newest < remembered.number and live:
        end = report.newest.size if report.newest else 0
        message = (
            f"the log ends with checkpoint {newest} of {end} entries; the keeper has signed checkpoint"
            f" {remembered.number} of {remembered.size}"
        )
        report.defect = Defect("cut tail", message, 0, end)
    elif newest < remembered.number:
        report.unlike = (
            f"the keeper has signed more since, checkpoint {remembered.number} of {remembered.size} entries"
            " last: an export made now shows them"
        )
    elif again is None or again().number < newest:
        report.unlike = (
            f"the log has checkpoint {newest}, the keeper remembers {remembered.number} as the last one: its"
            " memory was lost or is from a backup, or another keeper signed"
        )
