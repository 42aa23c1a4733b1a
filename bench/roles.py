"""What do masks and budgets cost: a page of 20 rows as ANALYST, EVALUATOR or VIEWER beside one as ADMIN.

ANALYST sees five fields masked, one by each mask: initial, last4, year, redact (which needs no key) and null.
The others see them in the clear; EVALUATOR has a budget of rows, VIEWER one of distinct rows. All pages give
the same rows, from the same server, turn by turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from statistics import fmean, median

from _common import Figure, Server, Subject, Tenant, Timing, main, measure

from wardkey.access import budgets

ROWS = 10_000
ROUNDS = 501
CONNECTIONS = 4  # of each role

_MASKS = {"name": "initial", "ssn": "last4", "birth_date": "year", "phone": "redact", "address": "null"}
_PAGE = "select id, name, ssn, birth_date, phone, address, city from patients where id = any(%s)"
_KEYS = [list(range(start, start + 20 * 97, 97)) for start in range(1, 1000)]


def run(server: Server) -> list[Figure]:
    database = server.database("roles")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        admin.execute("select ward.set_policy('ANALYST', 'clinical', 'mask')")
        for column, mask in _MASKS.items():
            admin.execute("select ward.set_mask('clinic.patients', %s, %s)", [column, mask])
        admin.execute("vacuum analyze")
        keeper = server.cluster.home.keeper
        budgets.set_(admin, keeper, tenant.slug, "EVALUATOR", "clinic.patients", 1_000_000_000)
        budgets.set_(admin, keeper, tenant.slug, "VIEWER", "clinic.patients", 100_000, distinct=True)
    roles = ("ADMIN", "ANALYST", "EVALUATOR", "VIEWER")
    timings = measure(
        [_page(tenant, role, number) for number in range(CONNECTIONS) for role in roles], ROUNDS, warmup=20
    )
    clear, masked, counted, distinct = (_together(timings, role) for role in roles)
    return [
        Figure("a page as ANALYST, masked, in such pages as ADMIN", masked.wall / clear.wall, "×", 1.1),
        Figure("… as CPU time of the backend", masked.cpu / clear.cpu, "×"),
        Figure("… the page as ADMIN itself", clear.wall * 1e3, "ms"),
        Figure("a page with a budget of rows, in such pages without", counted.wall / clear.wall, "×", 1.05),
        Figure("… as CPU time of the backend", counted.cpu / clear.cpu, "×"),
        Figure("… as a mean, leases included", fmean(counted.samples) / fmean(clear.samples), "×"),
        Figure("… of distinct rows", distinct.wall / clear.wall, "×", 1.05),
        Figure("… as CPU time of the backend", distinct.cpu / clear.cpu, "×"),
    ]


def _together(timings: Mapping[str, Timing], role: str) -> Timing:
    """Return a role's pages over all its connections: how a backend lies in memory tells by some percent."""
    mine = [timing for name, timing in timings.items() if name.startswith(role)]
    samples = [sample for timing in mine for sample in timing.samples]
    return Timing(
        median(samples), fmean(each.cpu for each in mine), fmean(each.client for each in mine), samples
    )


def _page(tenant: Tenant, role: str, number: int) -> Subject:
    connection, token = tenant.connect(), tenant.token(role=role)
    keys = cycle(_KEYS).__next__

    def page() -> None:
        connection.execute("begin", prepare=True)
        connection.execute("select ward.login(%s)", [token], prepare=True)
        rows = connection.execute(_PAGE, [keys()], prepare=True).fetchall()
        connection.execute("commit", prepare=True)
        if len(rows) != 20:
            raise AssertionError(f"{role}: rows are missing")

    return Subject(f"{role} {number}", page, connection.info.backend_pid)


if __name__ == "__main__":
    main("roles", run)
