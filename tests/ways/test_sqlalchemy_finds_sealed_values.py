"""A condition of SQLAlchemy finds rows by sealed columns, through the ward's own function."""

from __future__ import annotations

import datetime
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.support.database import Database
from wardkey import Wards
from wardkey.errors import NeedleRefused
from wardkey.sqlalchemy import Sealed, as_token, engine, find

MODELS = """
select ward.add_search('clinic.patients', 'name', '{exact, prefix}');
select ward.add_search('clinic.patients', 'birth_date', '{exact, range}');
"""


class Base(DeclarativeBase):
    __table_args__: ClassVar[Any] = {"schema": "clinic"}


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Sealed(sa.Text))
    birth_date: Mapped[datetime.date | None] = mapped_column(Sealed(sa.Date))


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
