"""What does reading a sealed field cost a client, over a plain column and beside pgcrypto?

The field's own cost, then what the row's entry in the read journal adds to the first field of each row.
"""

from __future__ import annotations

import math

from _common import Connection, Figure, Server, Subject, copy_patients, main, measure, patients

ROWS = 100_000
PGCRYPTO_ROWS = 500
ROUNDS = 9

_PLAIN = "select name from plain.patients"
_SEALED = "select name from patients"
_PGCRYPTO = "select pgp_sym_decrypt(name, 'a passphrase of the application') from plain.pgcrypto"


def run(server: Server) -> list[Figure]:
    database, unjournalled = server.database("field"), server.database("field_unjournalled")
    tenant, other = database.tenant(), unjournalled.tenant()
    tenant.load(ROWS)
    other.load(ROWS)
    with unjournalled.admin() as admin:
        admin.execute("select ward.set_audit('clinic.patients', 'off', 'to see what a field costs')")
        admin.execute("vacuum analyze")
    with (
        database.admin() as plain,
        database.admin() as pgcrypto,
        other.log_in() as sealed,
        tenant.log_in() as journalled,
    ):
        copy_patients(plain, "plain.patients", patients(ROWS))
        plain.execute("create extension pgcrypto")
        plain.execute(
            "create table plain.pgcrypto as"
            " select id, pgp_sym_encrypt(name, 'a passphrase of the application') as name"
            f" from plain.patients where id <= {PGCRYPTO_ROWS}"
        )
        plain.execute("vacuum analyze")
        timings = measure(
            [
                _reader("plain", plain, _PLAIN, ROWS),
                _reader("sealed", sealed, _SEALED, ROWS),
                _reader("journalled", journalled, _SEALED, ROWS),
                _reader("pgcrypto", pgcrypto, _PGCRYPTO, PGCRYPTO_ROWS),
            ],
            ROUNDS,
            warmup=1,
        )
        share = timings["plain"].wall / ROWS
        ours = (timings["sealed"].wall - timings["plain"].wall) / ROWS
        ours_cpu = (timings["sealed"].cpu - timings["plain"].cpu) / ROWS
        entry = (timings["journalled"].wall - timings["sealed"].wall) / ROWS
        entry_cpu = (timings["journalled"].cpu - timings["sealed"].cpu) / ROWS
        theirs = timings["pgcrypto"].wall / PGCRYPTO_ROWS - share
    return [
        Figure("one sealed field, over a plain column", ours * 1e6, "µs"),
        Figure("… as CPU time of the backend", ours_cpu * 1e6, "µs"),
        Figure("the row's entry in the read journal, once a row and statement", entry * 1e6, "µs"),
        Figure("… as CPU time of the backend", entry_cpu * 1e6, "µs"),
        Figure("the plain column itself", share * 1e6, "µs"),
        Figure("pgcrypto's pgp_sym_decrypt, over a plain column", theirs * 1e6, "µs"),
        Figure("times faster than pgcrypto", theirs / ours if ours > 0 else math.inf, "×", 40, "at least"),
    ]


def _reader(name: str, connection: Connection, query: str, rows: int) -> Subject:
    def read() -> None:
        if len(connection.execute(query).fetchall()) != rows:
            raise AssertionError(f"{name}: rows are missing")

    return Subject(name, read, connection.info.backend_pid)


if __name__ == "__main__":
    main("field", run)
