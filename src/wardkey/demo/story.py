"""The demo from beginning to end: make clinics, fill them, look at them, attack them, measure them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import psycopg

from ..daemon.sessions import connect
from ..embedded import Cluster
from ..embedded.issuer import embedded_issuer
from ..errors import from_psycopg
from . import attacks, cost, data
from .exercise import Exercise, exercise
from .glass import Told, break_the_glass
from .limits import Limits, reach_the_limits
from .load import Ward, counts, fill, load_codes, provision
from .payer import FEWEST, PAYER, Summaries, summaries
from .roles import Guess, Seen, guess_behind_the_mask, one_patient
from .views import QUERY, OnDisk, View, on_disk, same_query

__all__ = ["Clinics", "Facts", "Watcher", "tell"]

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Clinics:
    """The clinics and their rows. Those that were there already are used as they are."""

    counts: dict[str, dict[str, int]]
    created: int
    provision_seconds: float
    loaded_rows: int
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the demo found."""

    clinics: Clinics
    query: str
    views: list[View]
    roles: list[Seen]
    guess: Guess
    glass: Told
    limits: Limits
    summaries: Summaries | None
    on_disk: OnDisk
    attacker: str
    victim: str
    attacks: list[attacks.Outcome]
    exercise: Exercise
    costs: list[cost.Cost]
    seconds: float

    @property
    def held(self) -> bool:
        return self.guess.held and self.limits.held and all(outcome.held for outcome in self.attacks)

    def document(self) -> dict[str, Any]:
        costs = [{**asdict(one), "more": one.more, "ratio": one.ratio} for one in self.costs]
        return {**asdict(self), "costs": costs, "held": self.held}


class Watcher(Protocol):
    """Is shown each part as soon as it is there."""

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]: ...
    def clinics(self, clinics: Clinics) -> None: ...
    def views(self, query: str, views: list[View]) -> None: ...
    def roles(self, slug: str, seen: list[Seen], guess: Guess) -> None: ...
    def glass(self, told: Told) -> None: ...
    def limits(self, limits: Limits) -> None: ...
    def summaries(self, read: Summaries | None) -> None: ...
    def disk(self, disk: OnDisk) -> None: ...
    def attacks(self, attacker: str, victim: str, outcomes: list[attacks.Outcome]) -> None: ...
    def exercise(self, counted: Exercise) -> None: ...
    def costs(self, costs: list[cost.Cost]) -> None: ...


def tell(cluster: Cluster, tenants: int, patients: int, watcher: Watcher) -> Facts:
    """Run the demo on a started, migrated cluster. Raises WardError."""
    began = time.monotonic()
    try:
        with connect(cluster.dsn(), "wardkey demo") as admin:
            wards, clinics = _clinics(cluster, admin, data.slugs(tenants), patients, watcher)
            watcher.clinics(clinics)
            same = same_query(wards[:3])
            watcher.views(QUERY, same)
            seen, guess = one_patient(admin, wards[0]), guess_behind_the_mask(wards[0])
            watcher.roles(wards[0].slug, seen, guess)
            told = break_the_glass(wards[0])
            watcher.glass(told)
            limits = reach_the_limits(admin, wards[0])
            watcher.limits(limits)
            read = _summaries(cluster, admin, wards, watcher)
            watcher.summaries(read)
            lying = on_disk(admin, wards[0])
            watcher.disk(lying)
            attacker, victim = wards[0], wards[1]
            outcomes = list(attacks.run(attacks.scene(attacker, victim, admin)))
            watcher.attacks(attacker.slug, victim.slug, outcomes)
            admin.commit()
            with connect(cluster.dsn(), "wardkey demo", autocommit=True) as officer:
                counted = exercise(officer, attacker, cluster.home.keeper)
            watcher.exercise(counted)
            costs = cost.measure(admin, attacker)
            watcher.costs(costs)
    except psycopg.Error as error:
        raise from_psycopg(error) from None
    seconds = time.monotonic() - began
    taken = round(seconds, 1)
    return Facts(
        clinics,
        QUERY,
        same,
        seen,
        guess,
        told,
        limits,
        read,
        lying,
        attacker.slug,
        victim.slug,
        outcomes,
        counted,
        costs,
        taken,
    )


def _summaries(
    cluster: Cluster, admin: psycopg.Connection[Any], wards: list[Ward], watcher: Watcher
) -> Summaries | None:
    """None where there are too few clinics for a total."""
    if len(wards) < FEWEST:
        return None
    issuer, _ = embedded_issuer(admin, cluster.home)
    payer = provision(cluster, admin, issuer, PAYER)
    with watcher.progress("counts", len(wards)) as advance:
        return summaries(admin, payer, wards, advance)


def _clinics(
    cluster: Cluster, admin: psycopg.Connection[Any], slugs: list[str], patients: int, watcher: Watcher
) -> tuple[list[Ward], Clinics]:
    issuer, _ = embedded_issuer(admin, cluster.home)
    load_codes(admin)
    began = time.monotonic()
    wards = []
    with watcher.progress("clinics", len(slugs)) as advance:
        for slug in slugs:
            wards.append(provision(cluster, admin, issuer, slug))
            advance(1)
    provisioned = time.monotonic()
    empty = [
        (number, ward)
        for number, ward in enumerate(wards)
        if ward.created or not any(counts(admin, ward).values())
    ]
    expected = sum(data.size(number, patients) for number, _ in empty)
    with watcher.progress("rows", expected) as advance:
        rows = fill(empty, patients, advance)
    loaded = time.monotonic()
    created = sum(ward.created for ward in wards)
    counted = {ward.slug: counts(admin, ward) for ward in wards}
    return wards, Clinics(counted, created, provisioned - began, rows, loaded - provisioned)
