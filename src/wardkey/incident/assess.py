"""What the evidence says to the four factors of 45 CFR 164.402(2), and to the fields of OCR's breach portal.

An impermissible use is presumed to be a breach unless the covered entity shows a low probability that
protected health information was compromised. The evidence is filled in; the judgement is the officer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .store import Incident

__all__ = ["FACTORS", "factors", "portal"]

FACTORS = (
    "(i) the nature and extent of the protected health information involved, including the types of"
    " identifiers and the likelihood of re-identification",
    "(ii) the unauthorized person who used the protected health information or to whom the disclosure was"
    " made",
    "(iii) whether the protected health information was actually acquired or viewed",
    "(iv) the extent to which the risk to the protected health information has been mitigated",
)


def factors(incident: Incident) -> list[dict[str, Any]]:
    """Return question, evidence and judgement of each factor; the judgement None where there is none yet."""
    tenants = (incident.evidence or {}).get("tenants", ())
    judged = {each["factor"]: each for each in incident.judgements}
    told = (_nature(tenants), _who(tenants), _viewed(tenants), _mitigated(incident))
    return [
        {
            "factor": number,
            "question": question,
            "evidence": evidence or ["nothing, as far as the evidence reaches"],
            "is_low": judged[number]["is_low"] if number in judged else None,
            "reason": judged[number]["reason"] if number in judged else None,
            "judged_by": judged[number]["judged_by"] if number in judged else None,
        }
        for number, (question, evidence) in enumerate(zip(FACTORS, told, strict=True), 1)
    ]


def _nature(tenants: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    for tenant in tenants:
        told.append(
            f"{tenant['slug']}: {tenant['patients']:,} patients; classes {_listed(tenant['classes'])}"
        )
        for table in tenant["tables"]:
            if table["in_clear"]:
                columns = _listed(table["in_clear"])
                told.append(f"{tenant['slug']}: in clear in the dump, of {table['table']}: {columns}")
    return told


def _who(tenants: Sequence[Mapping[str, Any]]) -> list[str]:
    people = {
        f"{row['subject']} as {row['role']}, database role {row['database_role']}, from"
        f" {row['address'] or 'the server itself'}, application {row['application'] or 'not named'}"
        for tenant in tenants
        for row in tenant["people"]
    }
    return [f"logged in with what was lost: {each}" for each in sorted(people)]


def _viewed(tenants: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    for tenant in tenants:
        slug = tenant["slug"]
        for table in tenant["tables"]:
            name, read, written = (table[each] for each in ("table", "rows_read", "rows_written"))
            if read or written:
                columns = _listed(table["columns"])
                told.append(f"{slug}: {read:,} rows of {name} read, {written:,} written, columns {columns}")
            if nameless := table["statements_without_rows"]:
                told.append(f"{slug}: {nameless:,} reads of {name} do not say of which rows")
        told += [f"{slug}: key version {k['version']} {k['verdict']}: {k['reason']}" for k in tenant["keys"]]
        told += [f"{slug}: reads may be missing since {gap['since']}" for gap in tenant["gaps"]]
    return told


def _mitigated(incident: Incident) -> list[str]:
    acts = incident.acts
    return [
        f"{act['tenant']}: {act['act']} {act['what']} {act['done_at']:%Y-%m-%d %H:%M} UTC" for act in acts
    ]


def portal(incident: Incident, tenant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of OCR's breach portal for one covered entity, as far as evidence fills them."""
    kinds = {loss["kind"] for loss in incident.losses if loss["number"] in tenant["losses"]}
    since = min(loss["since"] for loss in incident.losses if loss["number"] in tenant["losses"])
    ends = [row["last"] for row in tenant["people"]]
    types = {"identifier": "Demographic", "quasi": "Demographic", "financial": "Financial"}
    done = [act for act in incident.acts if act["tenant"] == tenant["slug"]]
    many = tenant["patients"] >= 500
    return {
        "covered_entity": tenant["covered_entity"],
        "business_associate": tenant["business_associate"],
        "breach_affecting": "500 or more individuals" if many else "fewer than 500 individuals",
        "approximate_number_of_individuals": tenant["patients"],
        "breach_start": since.date().isoformat(),
        "breach_end": max(ends)[:10] if ends else None,
        "discovery": incident.discovered_at.date().isoformat(),
        "type_of_breach": "Theft" if kinds == {"dump"} else "Hacking/IT Incident",
        "location_of_information": ["Network Server"] + ["Other: database dump"] * ("dump" in kinds),
        "types_of_information": sorted({types.get(name, "Clinical") for name in tenant["classes"]}),
        "description": incident.facts["title"],
        "safeguards_in_place": ["Security Rule Technical Safeguards"],
        "actions_taken": [f"{act['act']} {act['what']}".strip() for act in done],
    }  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
