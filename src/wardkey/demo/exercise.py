"""An exercise of the demo: a token of one clinic leaks, and a dump of it is stolen. Whom does that reach?"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..errors import ServerError
from ..incident import scope, store
from ..incident.losses import Loss
from .load import Connection, Ward

__all__ = ["Exercise", "exercise"]

_READ, _WAIT = 3, 60.0


@dataclass(frozen=True, slots=True)
class Exercise:
    """``by_token``, ``by_dump``: patients that each reaches, of ``slug``; ``untouched``: other tenants.

    ``verdicts``: of each version of its key, by loss.
    """

    slug: str
    by_token: int
    by_dump: int
    untouched: int
    verdicts: dict[str, list[str]]


def exercise(admin: Connection, ward: Ward, keeper: Path) -> Exercise:
    """Read some patients with a token, then count what is known of it. ``admin``: autocommit.

    Two incidents are opened for it and closed as what they are. Raises psycopg.Error, WardError: the scribe
    does not bring the reads into the log.
    """
    since = datetime.now(UTC) - timedelta(seconds=1)
    token = ward.token("VIEWER", "dr. leak")
    with ward.connect() as connection:
        connection.execute("select ward.login(%s)", [token])
        connection.execute("select family from patients order by mrn limit %s", [_READ]).fetchall()
    digest = hashlib.sha256(token.encode()).hexdigest()
    query = "select ward_internal.is_login_known(%s, 'token', %s)"
    _wait(lambda: admin.execute(query, [ward.tenant_id, digest]).fetchall() == [(True,)])
    stolen = Loss("dump", datetime.now(UTC), tenant=ward.slug)
    by_dump = _count(admin, keeper, "exercise: a stolen dump", stolen, at_least=1)
    by_token = _count(admin, keeper, "exercise: a leaked token", Loss("token", since, digest), at_least=_READ)
    verdicts = {
        name: [f"version {key['version']} {key['verdict']}" for key in _of(told, ward)["keys"]]
        for name, told in (("token", by_token), ("dump", by_dump))
    }
    untouched = len(by_token["untouched"])
    return Exercise(ward.slug, by_token["patients"], by_dump["patients"], untouched, verdicts)


def _count(admin: Connection, keeper: Path, title: str, loss: Loss, at_least: int) -> dict[str, Any]:
    identity = store.open_(admin, title, datetime.now(UTC), [loss], "patients")
    told: list[dict[str, Any]] = []

    def is_all_there() -> bool:
        told.append(scope.count(admin, identity, keeper))
        return int(told[-1]["patients"]) >= at_least

    _wait(is_all_there)
    store.close(admin, identity, "breach", "an exercise: nothing was lost")
    return told[-1]


def _wait(is_so: Any) -> None:
    end = time.monotonic() + _WAIT
    while not is_so():
        if time.monotonic() > end:
            raise ServerError("the scribe brings nothing into the log", "see: wardkey logs")
        time.sleep(0.2)


def _of(told: dict[str, Any], ward: Ward) -> dict[str, Any]:
    (tenant,) = told["tenants"]
    assert tenant["slug"] == ward.slug  # noqa: S101
    return dict(tenant)
