"""Attacks of one clinic (or of the DBA) on another, run for real; each verdict is drawn from what came back.

The prize is any fact about the other clinic. An attack is held when nothing of it was in any answer and,
where an error or its absence is the answer, when that tells nothing either. Each attack ends with a rollback.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
from wardkey_core import keeper_client as keeper_client
from wardkey_core import wire
from wardkey_core.jwk import b64url_encode

from ..embedded.issuer import AUDIENCE
from ..errors import WardError
from .load import Connection, Ward

__all__ = ["ATTACKS", "Outcome", "Scene", "run", "scene"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attack tried and got."""

    attack: str
    tried: str
    got: str
    held: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Who attacks whom.

    ``prizes``: values that only the victim has. ``patient``: one of the victim's. ``own``: how many patients
    the attacker has.
    """

    attacker: Ward
    victim: Ward
    admin: Connection
    prizes: frozenset[str]
    patient: dict[str, str]
    own: int


@dataclass(slots=True)
class Answer:
    """Everything that statements gave: rows, and SQLSTATE and message of each that failed."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sqlstate(self) -> str | None:
        """SQLSTATE of the first error."""
        return self.errors[0][0] if self.errors else None

    @property
    def error(self) -> str | None:
        """Message of the first error."""
        return self.errors[0][1] if self.errors else None

    def tells(self, scene: Scene) -> bool:
        """Return whether a value of the victim's is in any row or in the error."""
        texts = [str(value) for row in [*self.rows, *self.errors] for value in row]
        return any(prize in text for text in texts for prize in scene.prizes)

    @property
    def refused(self) -> bool:
        """Return whether it failed for lack of rights; any other failure would prove nothing."""
        return self.sqlstate == "42501" or (self.sqlstate or "").startswith("WK")

    @property
    def refusal(self) -> str:
        return f"{self.sqlstate} {self.error}" if self.error else "no error"


Statement = tuple[str, list[Any]]
Attack = Callable[[Scene], Outcome]


def scene(attacker: Ward, victim: Ward, admin: Connection) -> Scene:
    """Look at the victim with the victim's own token, to know afterwards what must not have come out."""
    columns = "id, mrn, ssn, given, family, email"
    with victim.transaction() as cursor:
        rows = cursor.execute(f"select {columns} from patients order by id").fetchall()  # noqa: S608
    with attacker.transaction() as cursor:
        mine = cursor.execute("select id, mrn, ssn, email from patients").fetchall()
    own = {str(value) for row in mine for value in row}
    prizes = {str(row[index]) for row in rows for index in (0, 1, 2, 5)} - own
    patient = dict(zip(columns.split(", "), map(str, rows[0]), strict=True))
    return Scene(attacker, victim, admin, frozenset(prizes), patient, len(mine))


def run(scene: Scene) -> Iterable[Outcome]:
    """Run each attack and yield what it got."""
    for attack in ATTACKS:
        yield attack(scene)


def read_the_other_face(scene: Scene) -> Outcome:
    statement = f"select ssn, given, family from {_schema(scene.victim)}.patients"  # noqa: S608
    return _refused(scene, "read the other clinic's table", statement)


def read_the_parent(scene: Scene) -> Outcome:
    statement = "select tenant_id, id, mrn from clinic.patients"
    return _refused(scene, "read the table behind all clinics", statement)


def take_the_role(scene: Scene) -> Outcome:
    role = _schema(scene.victim)
    statements = [f"set role {role}", f"set session authorization {role}", "select id, email from patients"]
    answer = _as_tenant(scene.attacker, *((statement, []) for statement in statements))
    got = f"{answer.refusal}; then {len(answer.rows)} rows, {_owners(scene, answer)}"
    return Outcome(
        "take the other clinic's role", f"set role {role}", got, answer.refused and not answer.tells(scene)
    )


def claim_in_a_setting(scene: Scene) -> Outcome:
    answer = _as_tenant(
        scene.attacker,
        ("select set_config('ward.tenant_id', %s, true)", [str(scene.victim.tenant_id)]),
        ("select id, email from patients", []),
    )
    rows = answer.rows[1:]
    got = f"{len(rows)} rows, {_owners(scene, answer)}" if rows else answer.refusal
    tried = "set ward.tenant_id = '<other clinic>'; select … from patients"
    return Outcome(
        "claim its id in a setting", tried, got, len(rows) == scene.own and not answer.tells(scene)
    )


def inject(scene: Scene) -> Outcome:
    statement = "select id, email from patients where mrn = '' or true --'"
    answer = _as_tenant(scene.attacker, (statement, []))
    got = f"{len(answer.rows)} rows, {_owners(scene, answer)}"
    return Outcome(
        "SQL injection in the application",
        statement,
        got,
        len(answer.rows) == scene.own and not answer.tells(scene),
    )


def only_the_password(scene: Scene) -> Outcome:
    with scene.attacker.connect() as connection, connection.cursor() as cursor:
        answer = _answer(cursor, [("select * from patients", [])])
    got = answer.refusal if answer.error else f"{len(answer.rows)} rows"
    tried = "database password, no token: select * from patients"
    return Outcome("leaked database password", tried, got, not answer.rows and answer.sqlstate == "WK001")


def use_a_stolen_token(scene: Scene) -> Outcome:
    return _log_in(
        scene, "the victim's stolen token, own login role", scene.victim.token(), "valid token of the victim"
    )


def forge_without_signature(scene: Scene) -> Outcome:
    header = {"alg": "none", "typ": "JWT", "kid": scene.attacker.issuer.kid}
    token = f"{_signed_part(header, _claims(scene))}."
    return _log_in(scene, "forged token without a signature", token, "alg: none")


def forge_with_the_public_key(scene: Scene) -> Outcome:
    issuer = scene.attacker.issuer
    header = {"alg": "HS256", "typ": "JWT", "kid": issuer.kid}
    message = _signed_part(header, _claims(scene))
    public = json.dumps(issuer.document()["keys"][0]).encode()
    token = f"{message}.{b64url_encode(hmac.new(public, message.encode(), hashlib.sha256).digest())}"
    return _log_in(scene, "forged token, public key as HMAC secret", token, "alg: HS256")


def paste_ciphertext(scene: Scene) -> Outcome:
    sealed, column = scene.admin.execute(
        f"""select ssn, (select s.id from ward_internal.sealed_columns as s
              join ward.models as m on m.id = s.model_id where m.face = 'patients' and s.name = 'ssn')
            from {_leaves(scene.victim)}.patients where id = %s""",  # noqa: S608
        [scene.patient["id"]],
    ).fetchone() or (None, None)
    scene.admin.rollback()
    statement = "select ward.unseal(%s::bytea, uuid_send(%s), uuid_send(%s))"
    answer = _as_tenant(scene.attacker, (statement, [sealed, column, scene.patient["id"]]))
    got = answer.refusal if answer.error else str(answer.rows)
    tried = "select ward.unseal(<the victim's bytes from a stolen dump>, …)"
    return Outcome("open stolen ciphertext", tried, got, answer.sqlstate == "WK101")


def ask_by_foreign_key(scene: Scene) -> Outcome:
    statement = "insert into encounters (patient_id, class, type, started_at) values (%s, 'AMB', 'x', now())"
    there = _as_tenant(scene.attacker, (statement, [scene.patient["id"]]))
    nowhere = _as_tenant(scene.attacker, (statement, [str(uuid4())]))
    same = (there.sqlstate, there.error) == (nowhere.sqlstate, nowhere.error)
    got = f"{there.sqlstate}, {'the same as' if same else 'unlike'} for a patient that is nowhere"
    tried = "insert into encounters (patient_id, …) values ('<the victim's patient>', …)"
    return Outcome("ask a foreign key who exists", tried, got, same and there.sqlstate == "23503")


def ask_by_unique_key(scene: Scene) -> Outcome:
    statement = (
        "insert into patients (mrn, given, family, birth_date, gender)"
        " values (%s, 'x', 'x', '2000-01-01', 'other')"
    )
    answer = _as_tenant(scene.attacker, (statement, [scene.patient["mrn"]]))
    got = answer.refusal if answer.error else "inserted: no conflict, nothing learnt"
    tried = "insert into patients (mrn, …) values ('<the victim's number>', …)"
    return Outcome("ask a unique key who exists", tried, got, answer.error is None)


def count_what_was_filtered(scene: Scene) -> Outcome:
    statement = "explain (analyze, format json) select id from patients where ssn = %s"
    answer = _as_tenant(scene.attacker, (statement, [scene.patient["ssn"]]))
    seen = sum(_removed(row[0]) for row in answer.rows)
    got = answer.refusal if answer.error else f"{seen} rows filtered, of {scene.own} own ones"
    held = answer.refused or (answer.error is None and 0 < seen <= scene.own)
    tried = "explain (analyze) select … where ssn = '<the victim's>'"
    return Outcome("count what filters throw away", tried, got, held)


def read_statistics(scene: Scene) -> Outcome:
    schema = _schema(scene.victim)
    statements = {
        "pg_stats": "select most_common_vals::text from pg_stats where schemaname = %s",
        "pg_stat_activity": "select query from pg_stat_activity where usename = %s",
        "pg_stat_user_tables": "select n_live_tup from pg_stat_user_tables where schemaname = %s",
        "reltuples": "select reltuples from pg_class where relnamespace::regnamespace::text = %s",
    }
    answers = {name: _as_tenant(scene.attacker, (text, [schema])) for name, text in statements.items()}
    open_ = [name for name, answer in answers.items() if answer.rows]
    refused = sorted({answer.sqlstate for answer in answers.values() if answer.sqlstate})
    got = f"rows from {', '.join(open_)}" if open_ else f"{', '.join(refused) or 'no rows'} from each"
    return Outcome(
        "read statistics",
        ", ".join(statements),
        got,
        not open_ and all(a.refused or not a.error for a in answers.values()),
    )


def lay_a_trap(scene: Scene) -> Outcome:
    statements = [
        "create temp table patients (id uuid)",
        f"create function {_schema(scene.attacker)}.trap() returns int language sql return 1",
        f"create view {_schema(scene.attacker)}.trap as table clinic.patients",
        "create function public.trap() returns int language sql return 1",
    ]
    answers = [_as_tenant(scene.attacker, (statement, [])) for statement in statements]
    made = sum(answer.error is None for answer in answers)
    got = f"{made} made" if made else answers[0].refusal
    tried = "create temp table …; create function …; create view …"
    held = all(answer.sqlstate == "42501" for answer in answers)
    return Outcome("lay a trap for a definer function", tried, got, held)


def read_keys(scene: Scene) -> Outcome:
    return _refused(
        scene, "read the wrapped keys", "select tenant_id, wrapped from ward_internal.tenant_keys"
    )


def dba_reads(scene: Scene) -> Outcome:
    statement = f"select ssn, given, family from {_schema(scene.victim)}.patients"  # noqa: S608
    with scene.admin.cursor() as cursor:
        answer = _answer(cursor, [(statement, [])])
    scene.admin.rollback()
    got = answer.refusal if answer.error else f"{len(answer.rows)} rows"
    held = not answer.rows and (answer.refused or answer.error is None)
    return Outcome("DBA: read through the face", statement, got, held)


def dba_asks_the_keeper(scene: Scene) -> Outcome:
    version, kek, kek_version, wrapped, committed = scene.admin.execute(
        "select version, kek, kek_version, wrapped, commitment from ward_internal.tenant_keys"
        " where tenant_id = %s and state = 'active'",
        [scene.victim.tenant_id],
    ).fetchone() or (0, "", "", b"", b"")
    scene.admin.rollback()
    key = wire.key_members(version, kek, kek_version, wrapped, commitment=committed)
    request = wire.release(str(scene.victim.tenant_id), key, scene.attacker.token(), ["clinical"])
    try:
        answer = keeper_client.ask(scene.attacker.cluster.home.keeper_socket, request)
        got, held = f"an answer with {', '.join(answer)}", "classes" not in answer
    except WardError as error:
        got, held = f"{error.sqlstate} {error.message}", True
    return Outcome(
        "DBA: ask the keeper for the key", "release <the victim's key> with another token", got, held
    )


def dba_swaps_rows(scene: Scene) -> Outcome:
    schema, leaf = _schema(scene.victim), f"{_leaves(scene.victim)}.patients"
    statements: list[Statement] = [
        (
            f"""update {leaf} as t set ssn = o.ssn from {leaf} as o
                where t.id = %s and o.id = (select max(id::text)::uuid from {leaf})""",  # noqa: S608
            [scene.patient["id"]],
        ),
        (f"set local session authorization {schema}", []),
        ("select ward.login(%s)", [scene.victim.token()]),
        (f"select ssn from {schema}.patients where id = %s", [scene.patient["id"]]),  # noqa: S608
    ]
    with scene.admin.cursor() as cursor:
        answer = _answer(cursor, statements)
    scene.admin.rollback()
    got = answer.refusal if answer.error else "the clinic reads the other patient's number as this one's"
    tried = "update <the clinic's leaf> set ssn = <another patient's>; the clinic reads it"
    return Outcome("DBA: move a value to another patient", tried, got, answer.sqlstate == "WK101")


ATTACKS: tuple[Attack, ...] = (
    read_the_other_face,
    read_the_parent,
    take_the_role,
    claim_in_a_setting,
    inject,
    only_the_password,
    use_a_stolen_token,
    forge_without_signature,
    forge_with_the_public_key,
    paste_ciphertext,
    ask_by_foreign_key,
    ask_by_unique_key,
    count_what_was_filtered,
    read_statistics,
    lay_a_trap,
    read_keys,
    dba_reads,
    dba_asks_the_keeper,
    dba_swaps_rows,
)


def _refused(scene: Scene, attack: str, statement: str) -> Outcome:
    answer = _as_tenant(scene.attacker, (statement, []))
    got = answer.refusal if answer.error else f"{len(answer.rows)} rows, {_owners(scene, answer)}"
    return Outcome(attack, statement, got, answer.refused and not answer.rows and not answer.tells(scene))


def _log_in(scene: Scene, attack: str, token: str, tried: str) -> Outcome:
    with scene.attacker.connect() as connection, connection.cursor() as cursor:
        answer = _answer(cursor, [("select ward.login(%s)", [token]), ("select id, email from patients", [])])
    rows = [row for row in answer.rows if len(row) == 2]
    then = f"{len(rows)} rows" if rows or len(answer.errors) < 2 else answer.errors[1][0]
    got = f"{answer.refusal}; then {then}"
    return Outcome(attack, f"select ward.login(<{tried}>)", got, answer.refused and not rows)


def _as_tenant(ward: Ward, *statements: Statement) -> Answer:
    """Run statements as ``ward`` with its own token."""
    with ward.connect() as connection, connection.cursor() as cursor:
        cursor.execute("select ward.login(%s)", [ward.token()])
        return _answer(cursor, statements)


def _answer(cursor: psycopg.Cursor[Any], statements: Iterable[Statement]) -> Answer:
    """Run statements, each whether or not the one before failed, and roll back."""
    answer = Answer()
    for text, parameters in statements:
        cursor.execute("savepoint attack")
        try:
            cursor.execute(text, parameters or None)
            if cursor.description:
                answer.rows += cursor.fetchall()
        except psycopg.Error as error:
            answer.errors.append((error.sqlstate or "", error.diag.message_primary or ""))
            cursor.execute("rollback to savepoint attack")
    cursor.connection.rollback()
    return answer


def _owners(scene: Scene, answer: Answer) -> str:
    return "some of them the victim's" if answer.tells(scene) else "all of them its own"


def _schema(ward: Ward) -> str:
    return f"tenant_{ward.slug}"


def _leaves(ward: Ward) -> str:
    return f"sealed_{ward.slug}"


def _removed(plan: Any) -> int:
    """Return how many rows the filters of a plan threw away."""
    if isinstance(plan, list):
        return sum(map(_removed, plan))
    if isinstance(plan, dict):
        own = sum(value for name, value in plan.items() if name.startswith("Rows Removed"))
        return int(own) + sum(_removed(value) for value in plan.values() if isinstance(value, dict | list))
    return 0


def _claims(scene: Scene) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": scene.attacker.issuer.name,
        "aud": AUDIENCE,
        "sub": "attacker",
        "tenant_id": str(scene.victim.tenant_id),
        "role": "ADMIN",
        "iat": now,
        "nbf": now,
        "exp": now + 300,
        "jti": str(uuid4()),
    }


def _signed_part(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return ".".join(b64url_encode(json.dumps(part).encode()) for part in (header, claims))
