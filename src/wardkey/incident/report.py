"""The report of an incident: one document, signed by the keeper, and a page of it.

A signed report is a JSON document of three members, the names of each object sorted::

    {
     "public_key": 32 bytes in base64, Ed25519 (RFC 8032),
     "report": what is known of the incident,
     "signature": 64 bytes in base64, of the line "wardkey/1 report of an incident" and the SHA-256, in
      hexadecimal, of the report as JSON without blanks, in UTF-8, members sorted by name
    }

It says that an administrator of that keeper had it signed, and that nothing was changed since. No value of a
table and no token is in it, and of patients their number.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from wardkey_core import keeper_client, wire
from wardkey_core.log import canonical
from wardkey_pg import __version__

from ..errors import InvalidIncident
from ..keeper.signing import REPORT
from . import acts, assess, duties
from .store import Incident
from .timeline import timeline

__all__ = ["make", "render", "sign", "verify"]

_MEMBERS = {"public_key", "report", "signature"}


def make(incident: Incident) -> dict[str, Any]:
    """Return the report. Raises InvalidIncident: there is no scope yet."""
    if incident.evidence is None:
        raise InvalidIncident("nobody has looked how far it reaches", f"wardkey incident scope {incident.id}")
    now = datetime.now(UTC)
    tenants = incident.evidence["tenants"]
    facts = {
        name: _plain(value) for name, value in incident.facts.items() if name not in ("tenants", "patients")
    }
    return {
        "what": "report of an incident",
        "format": 1,
        "wardkey": __version__,
        "made_at": _plain(now),
        "incident": facts,
        "losses": [{n: _plain(v) for n, v in loss.items() if n != "tenant_id"} for loss in incident.losses],
        "scope": incident.evidence,
        "assessment": assess.factors(incident),
        "notices": [
            {"tenant": tenant["slug"], "covered_entity": tenant["covered_entity"], **clock}
            for tenant in tenants
            for clock in duties.clocks(incident.discovered_at, tenant["patients"], now.date())
        ],
        "notices_not_covered": duties.rules(incident.discovered_at.astimezone(UTC).date())["not_covered"],
        "acts": [act.document() for act in acts.plan(incident)],
        "portal": [assess.portal(incident, tenant) for tenant in tenants],
        "timeline": timeline(incident),
    }


def sign(report: dict[str, Any], keeper: Path) -> bytes:
    """Return the signed document. ``keeper``: its socket. Raises KeeperUnavailable, KeyRefused."""
    answer = keeper_client.ask(keeper, wire.report(str(UUID(int=0)), _digest(report)))
    signed = {"public_key": answer["public_key"], "signature": answer["signature"], "report": report}
    return _bytes(signed)


def verify(data: bytes, trusted: bytes | None = None) -> dict[str, Any]:
    """Return the report in a signed document; ``trusted``: the public key it is to be of.

    Raises InvalidIncident: not one, changed, or of another key.
    """
    try:
        document = json.loads(data)
        if document.keys() != _MEMBERS or _bytes(document) != data:
            raise ValueError
        public_key, signature = (
            base64.b64decode(document[name], validate=True) for name in ("public_key", "signature")
        )
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, REPORT + _digest(document["report"]).encode())
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidSignature):
        raise InvalidIncident(
            "not a report, or one that was changed", "have it made again: wardkey incident report"
        ) from None
    if trusted not in (None, public_key):
        raise InvalidIncident("another key signed it than the one that was to", "see: wardkey keeper status")
    told: dict[str, Any] = document["report"]
    return told


def render(report: dict[str, Any]) -> str:
    """Return the page. It loads nothing and runs nothing; values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from .. import access, audit

    folders = [Path(module.__file__ or "").parent for module in (access, audit)]
    style = "".join((folder / name).read_text() for folder, name in zip(folders, _STYLES, strict=True))
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    pages.filters["cell"] = _cell
    return pages.get_template("report.html").render(
        report=report, digest=_digest(report), style=style, policy=policy
    )


_STYLES = ("review.css", "page.css")


def _digest(report: Any) -> str:
    return hashlib.sha256(canonical.encode(report)).hexdigest()


def _bytes(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return f"{text}\n".encode()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    return str(value) if isinstance(value, UUID | date) else value


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)
