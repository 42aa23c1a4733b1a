"""A condition of SQLAlchemy finds rows by sealed columns, through the ward's own function."""

from __future__ import annotations

import datetime
import pickle
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from tests.support.database import Database
from wardkey import Wards
from wardkey.errors import NeedleRefused
from wardkey.sqlalchemy import Sealed, as_token, engine, find

MODELS = """
select ward.add_search('clinic.patients', 'name', '{exact, prefix}');
select ward.add_search('clinic.patients', 'name', '{substring}');
select ward.add_search('clinic.patients', 'birth_date', '{exact, range}');
"""


class Base(DeclarativeBase):
    __table_args__: ClassVar[Any] = {"schema": "clinic"}


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Sealed(sa.Text, search=("exact", "prefix", "substring")))
    birth_date: Mapped[datetime.date | None] = mapped_column(Sealed(sa.Date, search=("exact", "range")))


def test_rows_are_found_and_conditions_are_combined(shared: Database, wards: Wards) -> None:
    day = datetime.date(1980, 2, 29)
    made, token = engine(wards), shared.token("acme")
    with as_token(token), Session(made) as session:
        session.add_all(
            [Patient(name="Smith", birth_date=day), Patient(name="Smythe"), Patient(name="Adams")]
        )
        session.flush()

        def names(*conditions: sa.ColumnElement[bool]) -> list[str]:
            return list(session.scalars(sa.select(Patient.name).where(*conditions).order_by(Patient.name)))

        assert names(find(Patient, name="SMITH")) == ["Smith"]
        assert names(find(Patient, name_starts="sm")) == ["Smith", "Smythe"]
        assert names(find(Patient, name_starts="sm", birth_date_between=Range(day, None))) == ["Smith"]
        assert names(find(Patient.__table__, birth_date=day)) == ["Smith"]
        assert names(sa.or_(find(Patient, name="smith"), find(Patient, name="adams"))) == ["Adams", "Smith"]
        assert names(~find(Patient, name_starts="sm")) == ["Adams"]
        with pytest.raises(NeedleRefused):
            names(find(Patient, name=""))


def test_a_key_of_several_columns_is_compared_as_one() -> None:
    stays = sa.Table(
        "stays",
        sa.MetaData(),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("bed", sa.Integer, primary_key=True),
    )
    text = str(sa.select(stays.c.bed).where(find(stays, reason_words="cough")))
    assert '(stays.day, stays.bed) IN (select * from "find_stays"("reason_words" => ' in " ".join(
        text.split()
    )


_DAYS = [datetime.date(1980, 2, 29), datetime.date(1980, 3, 1), None]
_NAMES = ["Smith", "smith", "Smythe", "O'Brien", "100%", "Ann-Marie", "a_c", "abc", "Zoë", "Ann Marie"]


@pytest.fixture(scope="module")
def many(shared: Database, wards: Wards) -> Iterator[Session]:
    """Names with each of three dates, ten times."""
    with as_token(shared.token("globex")), Session(engine(wards)) as session:
        session.add_all([Patient(name=name, birth_date=day) for name in _NAMES for day in _DAYS * 10])
        session.commit()
        with shared.admin() as admin:
            admin.execute("analyze sealed_globex.patients")
        yield session


@pytest.mark.parametrize(
    "condition",
    [
        lambda name, day: name == "Smith",
        lambda name, day: name == "nobody",
        lambda name, day: name != "Smith",
        lambda name, day: ~(name == "Smith"),
        lambda name, day: ~(day == _DAYS[0]),
        lambda name, day: sa.not_(sa.or_(day == _DAYS[0], name.startswith("Sm"))),
        lambda name, day: (day == _DAYS[0]).is_(None),
        lambda name, day: (day >= _DAYS[0]).is_not(True),
        lambda name, day: sa.case((day == _DAYS[0], name == "abc"), else_=day.is_(None)),
        lambda name, day: name.in_(["Smith", "abc", "nobody"]),
        lambda name, day: name.in_([]),
        lambda name, day: name.not_in(["Smith", "abc"]),
        lambda name, day: ~name.in_(["Smith", "abc"]),
        lambda name, day: name.startswith("Sm"),
        lambda name, day: name.startswith("S"),
        lambda name, day: name.startswith("'"),
        lambda name, day: name.startswith("a_c"),
        lambda name, day: name.startswith("a_c", autoescape=True),
        lambda name, day: name.startswith("Ann-"),
        lambda name, day: name.istartswith("sm"),
        lambda name, day: ~name.startswith("Sm"),
        lambda name, day: name.contains("mit"),
        lambda name, day: name.contains("m%h"),
        lambda name, day: name.contains("00%", autoescape=True),
        lambda name, day: name.icontains("MIT"),
        lambda name, day: name.contains("O'B"),
        lambda name, day: day == _DAYS[0],
        lambda name, day: day.is_(None),
        lambda name, day: day == None,  # noqa: E711
        lambda name, day: day.between(*_DAYS[:2]),
        lambda name, day: day.between(_DAYS[1], _DAYS[0]),
        lambda name, day: ~day.between(_DAYS[1], _DAYS[1]),
        lambda name, day: day > _DAYS[0],
        lambda name, day: day >= _DAYS[1],
        lambda name, day: day < _DAYS[1],
        lambda name, day: (day <= _DAYS[0]) & (name == "Zoë"),
        lambda name, day: name == sa.func.upper(name),
        lambda name, day: name == name,
    ],
)
def test_comparisons_find_what_they_find_without_a_search(many: Session, condition: Any) -> None:
    plain = sa.column("name", sa.Text), sa.column("birth_date", sa.Date)
    expected = sa.select(sa.column("id")).select_from(sa.table("patients")).where(condition(*plain))
    asked = sa.select(Patient.id).where(condition(Patient.name, Patient.birth_date))
    of_alias = aliased(Patient)
    through_alias = sa.select(of_alias.id).where(condition(of_alias.name, of_alias.birth_date))
    wanted = sorted(many.scalars(expected))
    assert sorted(many.scalars(asked)) == sorted(many.scalars(through_alias)) == wanted


@pytest.mark.parametrize(
    "condition",
    [
        Patient.name == "Smith",
        Patient.name.in_(["Smith", "abc"]),
        Patient.name.startswith("Sm"),
        Patient.name.contains("mit"),
        Patient.birth_date == _DAYS[0],
        Patient.birth_date.between(*_DAYS[:2]),
        Patient.birth_date > _DAYS[0],
    ],
)
def test_a_comparison_that_a_search_can_narrow_looks_keys_up(many: Session, condition: Any) -> None:
    connection = many.connection()

    def explain(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
        return f"explain {statement}", parameters

    sa.event.listen(connection, "before_cursor_execute", explain, retval=True)
    try:
        plan = "\n".join(map(str, connection.scalars(sa.select(Patient.id).where(condition))))
    finally:
        sa.event.remove(connection, "before_cursor_execute", explain)
    assert re.search(r"Index Cond: .*\bid = ANY", plan) and "Seq Scan" not in plan, plan


def test_updates_and_deletes_are_narrowed_too(many: Session) -> None:
    with many.begin_nested() as savepoint:
        changed: Any = many.execute(sa.update(Patient).where(Patient.name == "abc").values(name="def"))
        assert changed.rowcount == 30
        assert many.execute(sa.delete(Patient).where(Patient.name.startswith("de"))).rowcount == 30  # type: ignore[attr-defined]
        savepoint.rollback()


def test_a_comparison_is_pickled_and_a_subquery_is_none_of_a_face(many: Session) -> None:
    table = sa.inspect(Patient).local_table
    query = sa.select(table.c.id).where(table.c.name == "abc")
    assert str(pickle.loads(pickle.dumps(query))) == str(query)
    inner = sa.select(Patient.id, Patient.name).subquery()
    assert "find_patients" not in str(sa.select(inner.c.id).where(inner.c.name == "abc"))
