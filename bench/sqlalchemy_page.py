"""What does a page of 20 objects of the ORM cost through one Engine for all tenants?

All sides: a Session, ``select(Patient)`` with 20 keys, five sealed fields each, objects made of them.
*plain*: SQLAlchemy's own engine and pool, a table without row-level security, nothing sealed. *application*:
what a program without wardkey does for tenants and sealed values: row-level security by ``set_config`` when a
transaction begins, the five fields opened by types of the model with AES-256-GCM, the keys at hand, no token,
no log. The same rows without SQLAlchemy, by the client and by psycopg, tell how much of the difference is
wardkey's own.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from itertools import cycle
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from _common import Database, Figure, Server, Subject, Tenant, Timing, copy_patients, main, measure, patients
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import wardkey
from wardkey.sqlalchemy import Sealed, as_token, engine

ROWS = 10_000
ROUNDS = 1_001
_RAW = "select id, name, ssn, birth_date, phone, address, city from {} where id = any(%s)"
_KEYS = [list(range(start, start + 20 * 97, 97)) for start in range(1, 1000)]
_VAULT = """
create table plain.vault (
  tenant_id uuid not null default current_setting('app.tenant')::uuid,
  id bigint not null,
  name bytea, ssn bytea, birth_date bytea, phone bytea, address bytea,
  city text,
  primary key (tenant_id, id)
);
alter table plain.vault enable row level security;
create policy tenant on plain.vault using (tenant_id = (select current_setting('app.tenant')::uuid));
create role bench_orm;
grant usage on schema plain to bench_orm;
grant select, insert on plain.vault to bench_orm;
"""


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


class Encrypted(sa.types.TypeDecorator[str]):
    """A text that the application seals under a key of the column."""

    impl = sa.LargeBinary
    cache_ok = True

    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column
        self._cipher, self._bound = AESGCM(AESGCM.generate_key(256)), column.encode()

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, str(value).encode(), self._bound)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return self._cipher.decrypt(value[:12], value[12:], self._bound).decode()


class EncryptedDate(Encrypted):
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return datetime.date.fromisoformat(super().process_result_value(value, dialect))


class Vaulted(_Fields, Base):
    __tablename__ = "vault"
    __table_args__ = {"schema": "plain"}  # noqa: RUF012
    name: Mapped[str] = mapped_column(Encrypted("name"))
    ssn: Mapped[str] = mapped_column(Encrypted("ssn"))
    birth_date: Mapped[datetime.date] = mapped_column(EncryptedDate("birth_date"))
    phone: Mapped[str] = mapped_column(Encrypted("phone"))
    address: Mapped[str] = mapped_column(Encrypted("address"))


def run(server: Server) -> list[Figure]:
    database = server.database("sqlalchemy")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        copy_patients(admin, "plain.patients", patients(ROWS))
        admin.execute(_VAULT)
    plain = sa.create_engine("postgresql+psycopg://", creator=lambda: database.admin(autocommit=False))
    application = _application(database, UUID(tenant.id))
    with Session(application) as session:
        session.execute(sa.insert(Vaulted), [_row(row) for row in patients(ROWS)])
        session.commit()
    with database.admin() as admin:
        admin.execute("vacuum analyze")
    timings = _timings(database, tenant, plain, application)
    for each in (plain, application):
        each.dispose()
    return _figures(timings)


def _application(database: Database, tenant: UUID) -> sa.Engine:
    made = sa.create_engine("postgresql+psycopg://", creator=lambda: database.admin(autocommit=False))
    statement = "select set_config('app.tenant', %s, true)"

    @sa.event.listens_for(made, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(statement, (str(tenant),))

    @sa.event.listens_for(made, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.execute("set role bench_orm")
        connection.commit()

    return made


def _row(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("id", "name", "ssn", "birth_date", "phone", "address", "city"), row, strict=False))


def _timings(
    database: Database, tenant: Tenant, plain: sa.Engine, application: sa.Engine
) -> dict[str, Timing]:
    token = tenant.token()
    with (
        wardkey.Wards(tenant.dsn) as wards,
        wardkey.Wards(tenant.dsn) as others,  # with a backend of its own
        as_token(token),
        database.admin(autocommit=False) as connection,
    ):
        sides = {
            "plain": (plain, Plain),
            "application": (application, Vaulted),
            "ward": (engine(wards), Patient),
        }
        subjects = [Subject(name, _page(*side), _pid(side[0])) for name, side in sides.items()]
        raw = cycle(_KEYS).__next__

        def by_client() -> None:
            with others.transaction(token) as ward:
                ward.execute(_RAW.format("patients"), [raw()]).fetchall()

        def by_psycopg() -> None:
            connection.execute(_RAW.format("plain.patients"), [raw()]).fetchall()
            connection.rollback()

        subjects += [Subject("client", by_client), Subject("psycopg", by_psycopg)]
        return measure(subjects, ROUNDS, warmup=30)


def _figures(timings: dict[str, Timing]) -> list[Figure]:
    ward, plain, application = timings["ward"], timings["plain"], timings["application"]
    client = (timings["client"].wall - timings["psycopg"].wall) * 1e3

    def spent(timing: Timing) -> float:
        return timing.cpu + timing.client

    return [
        Figure(
            "a page of 20 objects, against an application that seals", ward.wall / application.wall, "×", 1.5
        ),
        Figure("… as CPU time of backend and client", spent(ward) / spent(application), "×"),
        Figure("a page of 20 objects, against plain tables", ward.wall / plain.wall, "×", 1.5),
        Figure("… as CPU time of backend and client", spent(ward) / spent(plain), "×"),
        Figure("… over the plain page", (ward.wall - plain.wall) * 1e3, "ms"),
        Figure("… the same rows without SQLAlchemy, over plain ones", client, "ms"),
        Figure("… the plain page itself", plain.wall * 1e3, "ms"),
        Figure("… CPU time of the backend over the plain one's", (ward.cpu - plain.cpu) * 1e3, "ms"),
        Figure("… CPU time of the client over the plain one's", (ward.client - plain.client) * 1e3, "ms"),
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
