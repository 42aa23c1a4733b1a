"""What is to be done about an incident: derived from the last scope, done by other use cases, once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .store import Incident

__all__ = ["Act", "Hand", "perform", "plan"]


@dataclass(frozen=True, slots=True)
class Act:
    """``kind``: rotate, revoke, password or suspend. ``what``: of revoke the subject. ``why``: for people."""

    kind: str
    slug: str
    tenant: UUID
    why: str
    what: str = ""
    issuer: str = ""
    is_done: bool = False

    def document(self) -> dict[str, Any]:
        told = {"act": self.kind, "tenant": self.slug, "what": self.what, "why": self.why}
        return {**told, "is_done": self.is_done}


Hand = Callable[[Act], None]
"""Does an act, and may do it twice. Raises WardError."""


def plan(incident: Incident, *, suspends: bool = False) -> list[Act]:
    """Return what is to be done, first what shuts somebody out. A tenant that is gone needs nothing.

    ``suspends``: let nobody of the tenants in, either; care stops with it. Before the first scope: nothing.
    """
    done = {(act["act"], act["tenant"], act["what"]) for act in incident.acts}
    acts = [
        act
        for tenant in (incident.evidence or {}).get("tenants", ())
        for act in _of(incident, tenant, suspends)
    ]
    acts.sort(key=lambda act: (_ORDER.index(act.kind), act.slug, act.what))
    return [
        Act(a.kind, a.slug, a.tenant, a.why, a.what, a.issuer, (a.kind, a.slug, a.what) in done) for a in acts
    ]


_ORDER = ("suspend", "revoke", "password", "rotate")


def _of(incident: Incident, tenant: Mapping[str, Any], suspends: bool) -> Iterator[Act]:
    if tenant["status"] in ("shredding", "shredded"):
        return
    slug, identity = tenant["slug"], UUID(tenant["id"])
    kinds = {loss["kind"] for loss in incident.losses if loss["number"] in tenant["losses"]}
    if suspends:
        yield Act("suspend", slug, identity, "nobody is let in until it is resumed")
    if kinds & {"token", "subject"}:
        for issuer, subject in tenant["revocable"]:
            yield Act(
                "revoke",
                slug,
                identity,
                "the credential was lost: its subject is let in no more",
                subject,
                issuer,
            )
    if "password" in kinds:
        yield Act("password", slug, identity, "the login role's password was lost")
    if failed := [key["version"] for key in tenant["keys"] if key["verdict"] != "holds"]:
        versions = ", ".join(map(str, failed))
        yield Act("rotate", slug, identity, f"of version {versions} it is not shown that nobody else had it")


def perform(acts: list[Act], hands: Mapping[str, Hand], record: Callable[[Act], None]) -> list[Act]:
    """Do what is not done yet, one after the other, each recorded once it is; return what was done.

    Raises WardError of the first that is refused: those before it are recorded, the rest is done next time.
    """
    pending = [act for act in acts if not act.is_done]
    for act in pending:
        hands[act.kind](act)
        record(act)
    return pending
