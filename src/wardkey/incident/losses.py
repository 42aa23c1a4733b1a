"""What was lost, as an operator names it. A token is read from a file and known by its SHA-256 from then."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..keys.when import parse_moment

__all__ = ["KINDS", "SERVER", "Loss", "exact_moment", "parse"]

KINDS = ("dump", "token", "password", "key", "subject", "host")
SERVER = "server"
"""The host that has database and keeper, among those that ``host`` names by their address."""

_KEY = re.compile(r"([a-z][a-z0-9_]{0,47}):([1-9][0-9]{0,7})", re.ASCII)
_AGE = re.compile(r"[0-9]+[mhdw]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Loss:
    """``what``: see the table ``incident_losses``. ``until`` None: nobody says that it has ended."""

    kind: str
    since: datetime
    what: str | None = None
    tenant: str | None = None
    version: int | None = None
    until: datetime | None = None

    def document(self) -> dict[str, Any]:
        told = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: str(v) if isinstance(v, datetime) else v for name, v in told.items()}


def exact_moment(text: str) -> datetime:
    """Return a moment that is named with its zone, or an age such as 7d.

    A deadline and a dump are an hour apart by less than a zone. Raises ValueError.
    """
    now = datetime.now(UTC)
    moment = parse_moment(text, now)
    if _AGE.fullmatch(text.strip()) is None and datetime.fromisoformat(text.strip()).tzinfo is None:
        raise ValueError("a time without a zone: 2026-03-01T08:30Z, 2026-03-01T08:30+01:00")
    return moment


def parse(
    named: Mapping[str, Sequence[str]],
    since: datetime | None,
    until: datetime | None,
    slug: str | None = None,
) -> list[Loss]:
    """Return what is named, by kind: a dump by its time, a token by its file, a key as SLUG:VERSION.

    ``since``, ``until``: when somebody else may have used what is no dump. ``slug``: whose it is. Raises
    ValueError, which holds nothing of a token; OSError.
    """
    losses = [Loss("dump", exact_moment(text), tenant=slug) for text in named.get("dump", ())]
    others = [(kind, text) for kind in KINDS[1:] for text in named.get(kind, ())]
    if others and since is None:
        raise ValueError("say since when somebody else may have used it: --since")
    for kind, text in others:
        assert since is not None  # noqa: S101
        if kind == "key":
            if (match := _KEY.fullmatch(text)) is None:
                raise ValueError("a key is named SLUG:VERSION")
            losses.append(Loss("key", since, None, match[1], int(match[2]), until))
        else:
            what = _digest(Path(text)) if kind == "token" else text
            losses.append(Loss(kind, since, what, slug, None, until))
    if not losses:
        raise ValueError("name what was lost: --dump, --token-file, --password, --key, --subject, --host")
    return losses


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_text("utf-8").strip().encode()).hexdigest()
