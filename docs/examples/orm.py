"""Patients of two tenants through one Engine, in the reference clinic of models.py.

WARDKEY_WARD_DSN: of the tenants' login roles, with {tenant} where a slug belongs; WARDKEY_TOKENS: two tokens.
"""

import datetime
import os

from models import Encounter, Patient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

import wardkey
from wardkey.sqlalchemy import as_token, engine, upsert

FIRST, SECOND = os.environ["WARDKEY_TOKENS"].split()
NOW = datetime.datetime.now(datetime.UTC)

with wardkey.Wards(os.environ["WARDKEY_WARD_DSN"]) as wards:
    everyone = engine(wards)

    with as_token(FIRST), Session(everyone) as session:
        ada = Patient(
            mrn="1", given="Ada", family="Lovelace", birth_date=datetime.date(1815, 12, 10), gender="female"
        )
        ada.encounters = [Encounter(class_="AMB", type="check-up", started_at=NOW)]
        session.add(ada)
        session.commit()

        changed = {
            "mrn": "1",
            "given": "Ada",
            "family": "King",
            "birth_date": ada.birth_date,
            "gender": "female",
        }
        session.scalar(upsert(Patient, changed, key=["mrn"]))
        session.commit()
        print(ada.family, [encounter.type for encounter in ada.encounters])

    with as_token(SECOND), Session(everyone) as session:
        print(session.scalar(select(func.count()).select_from(Patient)), "of the other tenant")
