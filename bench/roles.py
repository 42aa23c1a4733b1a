"""What do masks cost: a page of 20 rows as ANALYST, who sees five fields masked, beside one as ADMIN.

One field by each mask: initial, last4, year, redact (which needs no key) and null. Both pages give the same
rows, from the same server, turn by turn.
"""

from __future__ import annotations

from itertools import cycle

from _common import Figure, Server, Subject, Tenant, main, measure

ROWS = 10_000
ROUNDS = 1_001

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
    timings = measure([_page(tenant, role) for role in ("ADMIN", "ANALYST")], ROUNDS, warmup=20)
    clear, masked = timings["ADMIN"], timings["ANALYST"]
    return [
        Figure("a page as ANALYST, masked, in such pages as ADMIN", masked.wall / clear.wall, "×", 1.1),
        Figure("… as CPU time of the backend", masked.cpu / clear.cpu, "×"),
        Figure("… the page as ADMIN itself", clear.wall * 1e3, "ms"),
    ]


def _page(tenant: Tenant, role: str) -> Subject:
    connection, token = tenant.connect(), tenant.token(role=role)
    keys = cycle(_KEYS).__next__

    def page() -> None:
        connection.execute("begin", prepare=True)
        connection.execute("select ward.login(%s)", [token], prepare=True)
        rows = connection.execute(_PAGE, [keys()], prepare=True).fetchall()
        connection.execute("commit", prepare=True)
        if len(rows) != 20:
            raise AssertionError(f"{role}: rows are missing")

    return Subject(role, page, connection.info.backend_pid)


if __name__ == "__main__":
    main("roles", run)
