"""What does a login with a token that the backend knows cost, beside an empty function of PL/Python?

Each is a transaction of its own, as with a pooler; transactions go in pipelines, so that the backend does not
wait for the client. CPU times are those of the backends.
"""

from __future__ import annotations

from _common import Connection, Figure, Server, Subject, main, measure

ROUNDS = 60
TRANSACTIONS = 200
_FIELD = "select name from patients where id = 7"
_EMPTY = """
create function plain.empty(p_text text) returns boolean language plpython3u as 'return True';
grant usage on schema plain to public;"""


def run(server: Server) -> list[Figure]:
    database = server.database("warm_login")
    tenant = database.tenant()
    tenant.load(100)
    token = tenant.token()
    with database.admin() as connection:
        connection.execute(_EMPTY)
    with tenant.connect() as empty, tenant.connect() as ward, tenant.connect() as reader:

        def transactions(connection: Connection, function: str, *more: str) -> None:
            with connection.pipeline():
                for _ in range(TRANSACTIONS):
                    with connection.transaction():
                        connection.execute(f"select {function}(%s)", [token], prepare=True)
                        for statement in more:
                            connection.execute(statement, prepare=True)

        subjects = [
            Subject("empty", lambda: transactions(empty, "plain.empty"), empty.info.backend_pid),
            Subject("login", lambda: transactions(ward, "ward.login"), ward.info.backend_pid),
            Subject("field", lambda: transactions(reader, "ward.login", _FIELD), reader.info.backend_pid),
        ]
        timings = measure(subjects, ROUNDS)
    cpu = {name: timing.cpu / TRANSACTIONS * 1e6 for name, timing in timings.items()}
    over, field = cpu["login"] - cpu["empty"], cpu["field"] - cpu["login"]
    return [
        Figure("a login with a known token over an empty function of PL/Python, CPU", over, "µs", 100),
        Figure("… its transaction against one with the empty function", cpu["login"] / cpu["empty"], "×"),
        Figure("a transaction with an empty function of PL/Python, CPU", cpu["empty"], "µs"),
        Figure("a statement that reads one sealed field, after the login, CPU", field, "µs"),
    ]


if __name__ == "__main__":
    main("warm_login", run)
