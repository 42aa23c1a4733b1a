"""The reference clinic model as models of SQLAlchemy: what migrations/ makes, and alembic check compares."""

import datetime
import decimal
import uuid
from typing import Annotated

from sqlalchemy import CheckConstraint, Date, DateTime, ForeignKey, Index, MetaData, Numeric, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from wardkey.sqlalchemy import Sealed, Shared

Instant = DateTime(timezone=True)
Key = Annotated[uuid.UUID, mapped_column(primary_key=True, server_default=func.gen_random_uuid())]
Identifier = Annotated[str, mapped_column(Sealed(Text, classified="identifier"))]
Clinical = Annotated[str, mapped_column(Sealed(Text, classified="clinical"))]
PatientKey = Annotated[
    uuid.UUID, mapped_column(ForeignKey("clinic.patients.id", ondelete="cascade"), nullable=False)
]
EncounterKey = Annotated[
    uuid.UUID | None, mapped_column(ForeignKey("clinic.encounters.id", ondelete="set null"))
]


class Base(DeclarativeBase):
    # PostgreSQL's own names, which errors tell
    metadata = MetaData(naming_convention={"ix": "%(table_name)s_%(column_0_N_name)s_idx"})
    type_annotation_map = {str: Text, datetime.datetime: Instant}
    __table_args__ = {"schema": "clinic"}


class ObservationCode(Base):
    __tablename__ = "observation_codes"
    __table_args__ = {
        "schema": "clinic",
        "info": {"wardkey": Shared()},
        "comment": "LOINC codes in use; the same for all tenants, read-only",
    }

    code: Mapped[str] = mapped_column(primary_key=True)
    display: Mapped[str]


class Patient(Base):
    __tablename__ = "patients"
    __table_args__ = (
        CheckConstraint("ssn ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'", "patients_ssn_form"),
        CheckConstraint("gender in ('female', 'male', 'other', 'unknown')", "patients_gender_known"),
        {"schema": "clinic", "comment": "people; who they are is sealed"},
    )

    id: Mapped[Key]
    mrn: Mapped[str] = mapped_column(
        unique=True, comment="medical record number of the clinic; unsealed, to be found by it"
    )
    ssn: Mapped[Identifier | None]
    given: Mapped[Identifier]
    family: Mapped[Identifier]
    birth_date: Mapped[datetime.date] = mapped_column(Sealed(Date, classified="quasi"))
    gender: Mapped[str]
    phone: Mapped[Identifier | None]
    email: Mapped[Identifier | None]
    address: Mapped[Identifier | None]
    city: Mapped[str | None] = mapped_column(Sealed(classified="quasi", mask="null"))
    state: Mapped[str | None]
    zip: Mapped[str | None] = mapped_column(Sealed(classified="quasi", mask="zip3"))
    marital_status: Mapped[str | None]
    deceased: Mapped[datetime.datetime | None] = mapped_column(
        Sealed(Instant, classified="quasi", mask="null")
    )
    encounters: Mapped[list["Encounter"]] = relationship(back_populates="patient", passive_deletes=True)


class Encounter(Base):
    __tablename__ = "encounters"
    __table_args__ = (
        CheckConstraint("class in ('AMB', 'EMER', 'HH', 'IMP')", "encounters_class_known"),
        CheckConstraint("ended_at >= started_at", "encounters_end_after_start"),
        {"schema": "clinic", "comment": "visits and stays; class as in HL7 ActCode"},
    )

    id: Mapped[Key]
    patient_id: Mapped[PatientKey]
    class_: Mapped[str] = mapped_column("class")
    type: Mapped[Clinical]
    reason: Mapped[Clinical | None]
    started_at: Mapped[datetime.datetime]
    ended_at: Mapped[datetime.datetime | None]
    patient: Mapped[Patient] = relationship(back_populates="encounters")


Index("encounters_patient_id_started_at_idx", Encounter.patient_id, Encounter.started_at.desc())
Index("encounters_started_at_idx", Encounter.started_at.desc())


class Condition(Base):
    __tablename__ = "conditions"
    __table_args__ = {
        "schema": "clinic",
        "comment": "diagnoses and findings, SNOMED CT; all of it is sealed",
    }

    id: Mapped[Key]
    patient_id: Mapped[PatientKey] = mapped_column(index=True)
    encounter_id: Mapped[EncounterKey] = mapped_column(index=True)
    code: Mapped[Clinical]
    display: Mapped[Clinical]
    onset_date: Mapped[datetime.datetime] = mapped_column(Sealed(Instant, classified="quasi"))


class Observation(Base):
    __tablename__ = "observations"
    __table_args__ = {"schema": "clinic", "comment": "measurements; their results are sealed"}

    id: Mapped[Key]
    patient_id: Mapped[PatientKey]
    encounter_id: Mapped[EncounterKey] = mapped_column(index=True)
    code: Mapped[str] = mapped_column(ForeignKey(ObservationCode.code))
    value: Mapped[decimal.Decimal] = mapped_column(Sealed(Numeric))
    unit: Mapped[str | None]
    observed_at: Mapped[datetime.datetime]


Index(
    "observations_patient_id_code_idx",
    Observation.patient_id,
    Observation.code,
    Observation.observed_at.desc(),
)
