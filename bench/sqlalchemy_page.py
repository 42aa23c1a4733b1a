"""What does a page of 20 objects of the ORM cost through one Engine for all tenants, over plain PostgreSQL?

Both sides: a Session, ``select(Patient)`` with 20 keys, five sealed fields each, objects made of them. The
plain side is SQLAlchemy's own engine and pool on a table without row-level security. The same rows without
SQLAlchemy, by the client and by psycopg, tell how much of the difference is wardkey's own.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from itertools import cycle
from typing import Any

import sqlalchemy as sa
from _common import Figure, Server, Subject, copy_patients, main, measure, patients
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import wardkey
from wardkey.sqlalchemy import Sealed, as_token, engine

ROWS = 10_000
ROUNDS = 1_001
_RAW = "select id, name, ssn, birth_date, phone, address, city from {} where id = any(%s)"
_KEYS = [list(range(start, start + 20 * 97, 97)) for start in range(1, 1000)]


class Base(DeclarativeBase):
    pass


class _Fields:
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    city: Mapped[str | None]


class Plain(_Fields, Base):
    __tablename__ = "patients"
    __table_args__ = {"schema": "plain"}  # noqa: RUF012
    name: Mapped[str]
    ssn: Mapped[str]
    birth_date: Mapped[datetime.date]
    phone: Mapped[str]
    address: Mapped[str]


class Patient(_Fields, Base):
    __tablename__ = "patients"
    __table_args__ = {"schema": "clinic"}  # noqa: RUF012
    name: Mapped[str] = mapped_column(Sealed)
    ssn: Mapped[str] = mapped_column(Sealed)
    birth_date: Mapped[datetime.date] = mapped_column(Sealed(sa.Date))
    phone: Mapped[str] = mapped_column(Sealed)
    address: Mapped[str] = mapped_column(Sealed)


def run(server: Server) -> list[Figure]:
    database = server.database("sqlalchemy")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        copy_patients(admin, "plain.patients", patients(ROWS))
        admin.execute("vacuum analyze")
    plain = sa.create_engine("postgresql+psycopg://", creator=lambda: database.admin(autocommit=False))
    token = tenant.token()
    with (
        wardkey.Wards(tenant.dsn) as wards,
        wardkey.Wards(tenant.dsn) as others,  # with a backend of its own
        as_token(token),
        database.admin(autocommit=False) as connection,
    ):
        sides = {"plain": (plain, Plain), "ward": (engine(wards), Patient)}
        subjects = [Subject(name, _page(*side), _pid(side[0])) for name, side in sides.items()]
        raw = cycle(_KEYS).__next__

        def by_client() -> None:
            with others.transaction(token) as ward:
                ward.execute(_RAW.format("patients"), [raw()]).fetchall()

        def by_psycopg() -> None:
            connection.execute(_RAW.format("plain.patients"), [raw()]).fetchall()
            connection.rollback()

        subjects += [Subject("client", by_client), Subject("psycopg", by_psycopg)]
        timings = measure(subjects, ROUNDS, warmup=30)
    plain.dispose()
    ward, other = timings["ward"], timings["plain"]
    return [
        Figure("a page of 20 objects, against the plain one", ward.wall / other.wall, "times", 1.5),
        Figure("… over the plain one", (ward.wall - other.wall) * 1e3, "ms"),
        Figure(
            "… the same rows without SQLAlchemy, over plain ones",
            (timings["client"].wall - timings["psycopg"].wall) * 1e3,
            "ms",
        ),
        Figure("… the plain page itself", other.wall * 1e3, "ms"),
        Figure(
            "… as CPU time of backend and client",
            (ward.cpu + ward.client) / (other.cpu + other.client),
            "times",
        ),
        Figure("… CPU time of the backend over the plain one's", (ward.cpu - other.cpu) * 1e3, "ms"),
        Figure("… CPU time of the client over the plain one's", (ward.client - other.client) * 1e3, "ms"),
    ]


def _page(engine: sa.Engine, model: Any) -> Callable[[], None]:
    keys = cycle(_KEYS).__next__
    query = sa.select(model).where(
        model.id == sa.func.any(sa.bindparam("keys", type_=sa.ARRAY(sa.BigInteger)))
    )

    def page() -> None:
        with Session(engine) as session:
            if len(session.scalars(query, {"keys": keys()}).all()) != 20:
                raise AssertionError("rows are missing")

    return page


def _pid(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("select pg_backend_pid()")) or 0)


if __name__ == "__main__":
    main("sqlalchemy_page", run)
