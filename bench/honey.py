"""Can a honey row be told by time: opening one beside opening another row, by its key?

Each opening is a statement in a transaction of its own. *again*: this login has opened the row before.
*first*: the token is a new one, so that the alarm is written, or logins are ended.
"""

from __future__ import annotations

from collections.abc import Callable

from _common import Connection, Figure, Server, Subject, Tenant, Timing, main, measure
from wardkey_core import keeper_client, wire

from wardkey.access import budgets

ROUNDS = 301
_OPEN = "select name, ssn from patients where id = %s"
_OTHER, _ALARMS, _ENDS = 100, 200, 300


def run(server: Server) -> list[Figure]:
    database = server.database("honey")
    tenant = database.tenant()
    tenant.load(1_000)
    with database.admin() as admin:
        admin.execute("vacuum analyze")
        for row, ends in ((_ALARMS, False), (_ENDS, True)):
            budgets.add_honey(admin, tenant.slug, "clinic.patients", [str(row)], ends_logins=ends)
    again = measure([_again(tenant, row, f"{row}") for row in (_OTHER, _ALARMS)], 3 * ROUNDS, warmup=20)
    first = measure([_first(server, tenant, row) for row in (_OTHER, _ALARMS, _ENDS)], ROUNDS)
    return [
        _figure("opening a honey row again, in such openings of another row", again, _ALARMS, 1.05),
        _figure("first opening of one that only alarms", first, _ALARMS),
        _figure("first opening of one that ends logins", first, _ENDS),
        Figure("… of another row itself", first[f"{_OTHER}"].wall * 1e3, "ms"),
    ]


def _figure(what: str, timings: dict[str, Timing], row: int, bar: float | None = None) -> Figure:
    return Figure(what, timings[f"{row}"].wall / timings[f"{_OTHER}"].wall, "×", bar)


def _again(tenant: Tenant, row: int, name: str) -> Subject:
    connection, token = tenant.connect(), tenant.token()

    def prepare() -> None:
        connection.execute("commit", prepare=True)
        connection.execute("begin", prepare=True)
        connection.execute("select ward.login(%s)", [token], prepare=True)

    connection.execute("begin")
    return Subject(name, _opening(connection, row), connection.info.backend_pid, prepare)


def _first(server: Server, tenant: Tenant, row: int) -> Subject:
    """Each has a subject of its own, whose logins are let in again before the next opening."""
    connection = tenant.connect()
    sign, who = tenant.database.issuer.sign_token, f"bench {row}"
    socket = server.cluster.home.keeper_socket

    def prepare() -> None:
        connection.execute("commit", prepare=True)
        known = keeper_client.ask(socket, wire.logins(tenant.id, "list"))["subjects"]
        for each in (one for one in known if one["subject"] == who):
            lift = wire.logins(tenant.id, "lift", issuer=each["issuer"], subject=who)
            keeper_client.ask(socket, lift)
        connection.execute("begin", prepare=True)
        connection.execute("select ward.login(%s)", [sign(tenant.id, who, "ADMIN")], prepare=True)

    connection.execute("begin")
    return Subject(f"{row}", _opening(connection, row), connection.info.backend_pid, prepare)


def _opening(connection: Connection, row: int) -> Callable[[], None]:
    def opening() -> None:
        if len(connection.execute(_OPEN, [row], prepare=True).fetchall()) != 1:
            raise AssertionError("the row is missing")

    return opening


if __name__ == "__main__":
    main("honey", run)
