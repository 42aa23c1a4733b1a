"""What does the audit log cost those who read and write: with it, and without?

Both sides are wards; the one without has its audit triggers disabled, or its read journal off. Nobody reads
the journal meanwhile: what the scribe does is its own time (bench/scribe.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import count, cycle

from _common import (
    Connection,
    Database,
    Figure,
    Server,
    Subject,
    Tenant,
    Timing,
    copy_patients,
    main,
    measure,
    patients,
)

ROWS = 10_000
ROUNDS = 1_001
BULK = 2_000

_FIELDS = "id, name, ssn, birth_date, phone, address, city"
_KEYS = [range(start, start + 20 * 97, 97) for start in range(1, 1000)]
_INSERT = f"""insert into patients ({_FIELDS}) values
  (%s, 'Rosalind Featherstonehaugh', '999-11-1111', '1950-01-01', '555-0001', '1 Long Street', 'Ogden')"""


def run(server: Server) -> list[Figure]:
    audited, bare = server.database("audited"), server.database("bare")
    one, other = _ward(audited), _ward(bare)
    with bare.admin() as admin:
        admin.execute("select ward.set_audit('clinic.patients', 'off', 'the other side of a bench')")
        for trigger in ("ward_audit", "ward_audit_truncate"):
            admin.execute(f"alter table sealed_{other.slug}.patients disable trigger {trigger}")
    figures: list[Figure] = []
    for text, pipeline, single in (
        ("page of 20 rows in one statement", False, False),
        ("the same in a pipeline", True, False),
        ("the same as 20 statements in a pipeline", True, True),
    ):
        with one.connect() as with_journal, other.connect() as without:
            timings = measure(
                [
                    _page("with", with_journal, one, pipeline, single),
                    _page("without", without, other, pipeline, single),
                ],
                ROUNDS,
                warmup=20,
            )
        figures += _compare(text, timings, 1.3 if not single else None)
    with one.log_in() as with_journal, other.log_in() as without:
        query = "select name from patients"
        timings = measure(
            [_query("with", with_journal, query), _query("without", without, query)], 9, warmup=1
        )
        row = (timings["with"].wall - timings["without"].wall) / ROWS
        figures.append(Figure("a row's entry in the read journal", row * 1e6, "µs"))
        numbers = count(1_000_000)
        timings = measure(
            [
                _inserter("with", with_journal, numbers.__next__),
                _inserter("without", without, numbers.__next__),
            ],
            ROUNDS,
            warmup=20,
        )
        figures += _compare("INSERT of one row through a face", timings, 1.5)
        timings = measure(
            [_copier("with", with_journal, numbers), _copier("without", without, numbers)], 11, warmup=1
        )
        figures += _compare(f"COPY of {BULK:,} rows through a face", timings, None)
        row = (timings["with"].wall - timings["without"].wall) / BULK
        figures.append(Figure("a row's entry about its write, in bulk", row * 1e6, "µs"))
    return figures


def _ward(database: Database) -> Tenant:
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        admin.execute("vacuum analyze")
    return tenant


def _page(name: str, connection: Connection, tenant: Tenant, pipeline: bool, single: bool) -> Subject:
    keys, token = cycle(_KEYS).__next__, tenant.token()
    one, many = (f"select {_FIELDS} from patients where id = {what}" for what in ("%s", "any(%s)"))

    def page() -> None:
        with connection.pipeline() if pipeline else nullcontext():
            connection.execute("begin", prepare=True)
            connection.execute("select ward.login(%s)", [token], prepare=True)
            if single:
                cursors = [connection.execute(one, [key], prepare=True) for key in keys()]
            else:
                cursors = [connection.execute(many, [list(keys())], prepare=True)]
            connection.execute("commit", prepare=True)
            rows = sum(len(cursor.fetchall()) for cursor in cursors)
        if rows != 20:
            raise AssertionError(f"{name}: rows are missing")

    return Subject(name, page, connection.info.backend_pid)


def _query(name: str, connection: Connection, query: str) -> Subject:
    return Subject(name, lambda: connection.execute(query).fetchall(), connection.info.backend_pid)


def _inserter(name: str, connection: Connection, number: Callable[[], int]) -> Subject:
    def insert() -> None:
        connection.execute(_INSERT, [number()], prepare=True)

    return Subject(name, insert, connection.info.backend_pid)


def _copier(name: str, connection: Connection, numbers: count[int]) -> Subject:
    rows = patients(BULK)

    def copy() -> None:
        copy_patients(connection, "patients", [(next(numbers), *row[1:]) for row in rows])

    return Subject(name, copy, connection.info.backend_pid)


def _compare(text: str, timings: dict[str, Timing], bar: float | None) -> list[Figure]:
    audited, bare = timings["with"], timings["without"]
    return [
        Figure(f"{text}: with the log against without", audited.wall / bare.wall, "×", bar),
        Figure("… as CPU time of the backend", audited.cpu / bare.cpu, "×"),
        Figure("… with it", audited.wall * 1e3, "ms"),
    ]


if __name__ == "__main__":
    main("audit", run)
