"""The reference clinic model: patients, encounters, conditions, observations, and the codes of observations.

What is sealed: of HIPAA's 18 identifiers (45 CFR 164.514) those that tell who somebody is (names, addresses
below the state, birth and death dates, phone and social security numbers, e-mail), and what the clinic found
(type and reason of an encounter, diagnoses, results).

What stays unsealed, because it is searched, ordered by or counted, and a sealed column cannot be indexed yet:

* ``mrn``: the desk finds a patient by it, and it is unique in each clinic. Nobody else knows whose it is.
* ``started_at``, ``ended_at``, ``observed_at``: lists are ordered and cut by them.
* ``observations.code``: which test was made, not its result; a test's course over time is a query by index.
* ``gender``, ``state``, ``marital_status``, ``class``, ``unit``: statistics; each is shared by many.

Row-level security and privileges keep all of it, sealed or not, from other tenants; who holds a dump can
read the unsealed columns.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES = """
create schema if not exists clinic;

create table clinic.observation_codes (
  code text constraint observation_codes_pkey primary key,
  display text not null
);
comment on table clinic.observation_codes is 'LOINC codes in use; the same for all tenants, read-only';

create table clinic.patients (
  id uuid constraint patients_pkey primary key default gen_random_uuid(),
  -- wardkey: ignore WL306 because the desk finds a patient by it
  mrn text not null constraint patients_mrn_key unique,
  ssn text constraint patients_ssn_form check (ssn ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'),
  given text not null,
  family text not null,
  birth_date date not null,
  gender text not null
    constraint patients_gender_known check (gender in ('female', 'male', 'other', 'unknown')),
  phone text,
  email text,
  address text,
  city text,
  state text,
  zip text,
  marital_status text,
  deceased timestamptz
);
comment on table clinic.patients is 'people; who they are is sealed';
comment on column clinic.patients.mrn is 'medical record number of the clinic; unsealed, to be found by it';

create table clinic.encounters (
  id uuid constraint encounters_pkey primary key default gen_random_uuid(),
  patient_id uuid not null
    constraint encounters_patient_id_fkey references clinic.patients on delete cascade,
  class text not null constraint encounters_class_known check (class in ('AMB', 'EMER', 'HH', 'IMP')),
  type text not null,
  reason text,
  started_at timestamptz not null,
  ended_at timestamptz,
  constraint encounters_end_after_start check (ended_at >= started_at)
);
create index encounters_patient_id_started_at_idx on clinic.encounters (patient_id, started_at desc);
create index encounters_started_at_idx on clinic.encounters (started_at desc);
comment on table clinic.encounters is 'visits and stays; class as in HL7 ActCode';

create table clinic.conditions (
  id uuid constraint conditions_pkey primary key default gen_random_uuid(),
  patient_id uuid not null
    constraint conditions_patient_id_fkey references clinic.patients on delete cascade,
  encounter_id uuid
    constraint conditions_encounter_id_fkey references clinic.encounters on delete set null,
  code text not null,
  display text not null,
  onset_date timestamptz not null
);
create index conditions_patient_id_idx on clinic.conditions (patient_id);
create index conditions_encounter_id_idx on clinic.conditions (encounter_id);
comment on table clinic.conditions is 'diagnoses and findings, SNOMED CT; all of it is sealed';

create table clinic.observations (
  id uuid constraint observations_pkey primary key default gen_random_uuid(),
  patient_id uuid not null
    constraint observations_patient_id_fkey references clinic.patients on delete cascade,
  encounter_id uuid
    constraint observations_encounter_id_fkey references clinic.encounters on delete set null,
  code text not null constraint observations_code_fkey references clinic.observation_codes,
  value numeric not null,
  unit text,
  observed_at timestamptz not null
);
create index observations_patient_id_code_idx on clinic.observations (patient_id, code, observed_at desc);
create index observations_encounter_id_idx on clinic.observations (encounter_id);
comment on table clinic.observations is 'measurements; their results are sealed';
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.share_table("observation_codes", schema="clinic")
    op.protect_table(
        "patients",
        {
            "ssn": "identifier",
            "given": "identifier",
            "family": "identifier",
            "birth_date": "quasi",
            "phone": "identifier",
            "email": "identifier",
            "address": "identifier",
            "city": "quasi",
            "zip": "quasi",
            "deceased": "quasi",
        },
        masks={"city": "null", "zip": "zip3", "deceased": "null"},
        schema="clinic",
    )
    op.protect_table("encounters", {"type": "clinical", "reason": "clinical"}, schema="clinic")
    op.protect_table(
        "conditions", {"code": "clinical", "display": "clinical", "onset_date": "quasi"}, schema="clinic"
    )
    op.protect_table("observations", {"value": "clinical"}, schema="clinic")


def downgrade() -> None:
    for table in ("observations", "conditions", "encounters", "patients"):
        op.unprotect_table(table, schema="clinic")
        op.drop_table(table, schema="clinic")
    op.unshare_table("observation_codes", schema="clinic")
    op.drop_table("observation_codes", schema="clinic")
