"""What happened, in its order: losses, logins with them and what these touched, what operators did."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .store import Incident

__all__ = ["timeline"]

Rows = list[dict[str, Any]]


def timeline(incident: Incident) -> Rows:
    """Return times, tenants, who and what, as the last scope and what is kept of the incident say."""
    return sorted(_lines(incident), key=lambda line: str(line["at"]))


def _lines(incident: Incident) -> Iterator[dict[str, Any]]:
    facts = incident.facts
    for loss in incident.losses:
        what = "dump made" if loss["kind"] == "dump" else f"{loss['kind']} may be in other hands"
        yield _line(loss["since"], what, loss["tenant"], loss["what"] or loss["version"])
    yield _line(facts["discovered_at"], "discovered")
    yield _line(facts["opened_at"], "incident opened", who=facts["opened_by"])
    for tenant in (incident.evidence or {}).get("tenants", ()):
        slug = tenant["slug"]
        for row in tenant["people"]:
            place = " ".join(filter(None, (row["address"], row["application"])))
            if row["table"] is None:
                yield _line(row["first"], "logged in", slug, place, row["subject"])
                continue
            what = f"{row['rows_read']:,} rows of {row['table']} read, {row['rows_written']:,} written"
            yield _line(row["first"], f"{what}, until {row['last']}", slug, place, row["subject"])
        for row in tenant["events"]:
            yield _line(row["at"], row["operation"].replace("_", " "), slug, row["about"], row["who"])
        for gap in tenant["gaps"]:
            yield _line(gap["since"], f"reads may be missing, until {gap['until']}", slug, gap["why"])
    for each in incident.judgements:
        low = "low" if each["is_low"] else "not low"
        yield _line(each["judged_at"], f"factor {each['factor']} judged {low}", who=each["judged_by"])
    for act in incident.acts:
        yield _line(act["done_at"], f"done: {act['act']}", act["tenant"], act["what"], act["done_by"])
    if facts["closed_at"]:
        yield _line(facts["closed_at"], f"closed: {facts['state']}", who=facts["closed_by"])


def _line(
    at: datetime | str, what: str, tenant: str | None = None, about: object = "", who: str | None = None
) -> dict[str, Any]:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    text = moment.astimezone(UTC).isoformat(timespec="seconds")
    return {"at": text, "tenant": tenant, "who": who, "what": what, "about": str(about or "")}
