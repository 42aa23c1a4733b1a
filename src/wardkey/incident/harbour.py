"""Whether what went is still sealed: a verdict for each version of a tenant's key.

45 CFR 164.402 knows a breach of *unsecured* protected health information only. By the guidance of HHS (74
FR 19006, 45 CFR 164.402) it is secured where it is encrypted as NIST SP 800-111 says and the key was not
breached. Values here are sealed with AES-256-GCM; whether somebody had the key is what the evidence is asked:

* ``fails``: the key itself was lost, or was released on a lost credential, or values were opened with one;
* ``unproven``: the keeper's release log does not reach back so far, is damaged or is not here;
* ``holds``: none of that.

It is about sealed columns. What a table has besides them is in a dump in clear, and ``scope`` lists it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from ..keys.policy import Key
from ..keys.release_log import Released

__all__ = ["Releases", "Suspect", "Verdict", "judge"]

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Suspect:
    """A loss as it concerns one tenant. ``is_server``: of the host that has database and keeper."""

    kind: str
    since: datetime
    until: datetime
    version: int | None = None
    is_server: bool = False


@dataclass(slots=True)
class Releases:
    """What the keeper's log says. ``begins`` None: there is none."""

    begins: datetime | None = None
    damaged: int = 0
    released: dict[tuple[UUID, int], list[Released]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``released_to``: subjects who had it since, the first 20: none of them may be who has what went."""

    version: int
    verdict: str
    reason: str
    released_to: tuple[str, ...] = ()
    destroyed: str | None = None

    def document(self) -> dict[str, Any]:
        told = {"version": self.version, "verdict": self.verdict, "reason": self.reason}
        return {**told, "released_to": list(self.released_to), "destroyed": self.destroyed}


def judge(
    keys: Sequence[Key],
    suspects: Sequence[Suspect],
    releases: Releases,
    tenant: UUID,
    *,
    subjects: Collection[str],
    tokens: Collection[str],
    rows_opened: int,
    last_opened: datetime | None,
    tombstones: Mapping[tuple[UUID, int | None], str],
) -> list[Verdict]:
    """Return a verdict for each version that a loss concerns.

    ``subjects``, ``tokens``: whose credentials were lost, and the digests of the tokens used with one.
    ``rows_opened``: rows of the tenant that were read with one, the last at ``last_opened``.
    """
    verdicts = []
    for key in keys:
        concern = [each for each in suspects if _concerns(each, key)]
        if concern:
            had = releases.released.get((tenant, key.version), [])
            since = min(each.since for each in concern)
            to_lost = [
                each for each in had
                if (each.subject in subjects or each.token in tokens)
                and any(of.kind not in ("dump", "key") and of.since <= each.at < of.until for of in concern)
            ]  # fmt: skip
            others = sorted({str(each.subject) for each in had if each.at >= since and each not in to_lost})
            opened = rows_opened if last_opened is not None and last_opened >= key.created_at else 0
            verdict, reason = _verdict(key, concern, releases, len(to_lost), opened, since)
            gone = tombstones.get((tenant, key.version)) or tombstones.get((tenant, None))
            verdicts.append(Verdict(key.version, verdict, reason, tuple(others[:_MOST_NAMED]), gone))
    return verdicts


def _concerns(loss: Suspect, key: Key) -> bool:
    if loss.kind == "key":
        return key.version == loss.version
    if loss.kind == "dump":  # it has all that were made by then: old images in the log, too
        return key.created_at <= loss.since and (key.destroyed_at is None or key.destroyed_at > loss.since)
    return key.created_at < loss.until and (key.retired_at is None or key.retired_at > loss.since)


def _verdict(
    key: Key, concern: Sequence[Suspect], releases: Releases, to_lost: int, rows_opened: int, since: datetime
) -> tuple[str, str]:
    kinds = {each.kind for each in concern}
    if "key" in kinds:
        return "fails", "the key itself was lost"
    if any(each.is_server for each in concern):
        return "fails", "the host was lost that has keys in memory while tenants are served"
    if to_lost:
        return "fails", f"released {to_lost} times on what was lost"
    if rows_opened and kinds - {"dump"}:
        return (
            "fails",
            f"{rows_opened} rows were opened with what was lost; keys of others may have served it",
        )
    if releases.begins is None:
        return "unproven", "the keeper's release log is not here: name its directory"
    if releases.begins > max(since, key.created_at):
        return (
            "unproven",
            f"the release log begins at {releases.begins.isoformat(timespec='seconds')}, too late",
        )
    if releases.damaged:
        return "unproven", f"{releases.damaged} lines of the release log are damaged"
    what = "AES-256-GCM ciphertext" if "dump" in kinds else "nothing under it was opened"
    return "holds", f"{what}; the release log shows no release on what was lost"
