"""How far an incident reaches, counted from evidence: the audit logs, what is stored, the keeper's files.

Patients are counted by the key of their row, once each: rows of the model table that is named as that of the
patients, and of tables that reference it (by the leaf, or the log's image of a row that is gone). Where the
evidence does not reach, the count says so instead of guessing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..daemon.files import new_file
from ..keeper.ledger import LEDGER_FILE, tombstones
from ..keys.registry import read_keys
from ..keys.release_log import begin_of, files, releases, token_digest
from . import _sql
from .harbour import Releases, Suspect, judge
from .losses import SERVER
from .store import Incident, load, record_scope

__all__ = ["Scope", "count", "gather"]

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]

_AT_REST = ("dump", "key")
_COLUMN = re.compile(r'"((?:[^"]|"")*)"|([^",]+)')


@dataclass(slots=True)
class Scope:
    """``patients``: their keys, by tenant. ``evidence``: counts and names, what is kept and reported."""

    evidence: dict[str, Any] = field(default_factory=dict)
    patients: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Reach:
    """What is found of one tenant."""

    patients: set[str] = field(default_factory=set)
    unresolved: int = 0
    tables: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    people: Rows = field(default_factory=list)
    logins: Rows = field(default_factory=list)
    events: Rows = field(default_factory=list)
    gaps: Rows = field(default_factory=list)


def gather(connection: Connection, incident: Incident, keeper: Path) -> Scope:
    """Count; nothing is kept. ``connection``: autocommit. ``keeper``: its directory, with log and ledger.

    Raises psycopg.Error, OSError.
    """
    with connection.transaction(force_rollback=True):
        connection.execute("set transaction isolation level repeatable read")
        connection.execute(_sql.MADE)
        return _Gathering(connection, incident, keeper).scope()


def count(connection: Connection, identity: UUID, keeper: Path, output: Path | None = None) -> dict[str, Any]:
    """Count, keep what was counted, and return the evidence. ``connection``: autocommit.

    ``output``: a new file for tenant and key of each patient, as CSV. Raises psycopg.Error (WK285 closed),
    UnknownObject, OSError.
    """
    scope = gather(connection, load(connection, identity), keeper)
    with connection.transaction():
        record_scope(connection, identity, scope.evidence)
        if output is not None:
            _write(scope.patients, output)
    return scope.evidence


def _write(patients: Mapping[str, set[str]], output: Path) -> None:
    rows = ((slug, each) for slug in sorted(patients) for each in sorted(patients[slug]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("tenant", "patient"), *rows])
    with new_file(output) as stream:
        stream.write(text.getvalue().encode())


class _Gathering:
    def __init__(self, connection: Connection, incident: Incident, keeper: Path) -> None:
        self._connection = connection
        self._incident = incident
        self._now = datetime.now(UTC)
        self._models = {row["id"]: row for row in self._ask(_sql.MODELS)}
        self._children = {
            row["id"]: row["column"] for row in self._ask(_sql.CHILDREN, incident.patients_model)
        }
        self._keeper = keeper
        self._tombstones = tombstones(keeper / LEDGER_FILE)

    def scope(self) -> Scope:
        tenants = self._ask(_sql.TENANTS)
        reached = {row["id"]: self._reach(row, losses) for row in tenants if (losses := self._losses(row))}
        keys = read_keys(self._connection, list(reached))
        logged = self._releases()
        scope, untouched, told = Scope(), [], []
        for row in tenants:
            losses = self._losses(row)
            reach = reached.get(row["id"])
            if reach is None or not (reach.logins or any(each["kind"] in _AT_REST for each in losses)):
                untouched.append(row["slug"])
                continue
            told.append(self._document(row, losses, reach, keys.get(row["id"], ()), logged))
            scope.patients[row["slug"]] = reach.patients
        verdicts = [each["verdict"] for tenant in told for each in tenant["keys"]]
        scope.evidence = {
            "counted_at": _text(self._now),
            "patients_table": self._models[self._incident.patients_model]["face"],
            "patients": sum(map(len, scope.patients.values())),
            "tenants": told,
            "untouched": untouched,
            "release_log_begins": logged.begins and _text(logged.begins),
            "is_secured": all(verdict == "holds" for verdict in verdicts),
        }
        return scope

    def _losses(self, tenant: Mapping[str, Any]) -> Rows:
        """Return the losses that may concern a tenant: a dump has those that were there when it was made."""
        return [
            {**loss, "until": loss["until"] or self._now}
            for loss in self._incident.losses
            if loss["tenant_id"] in (None, tenant["id"])
            and not (loss["kind"] == "dump" and tenant["created_at"] > loss["since"])
            and tenant["has_log"]
        ]

    def _reach(self, tenant: Mapping[str, Any], losses: Rows) -> _Reach:
        reach = _Reach()
        since = min(loss["since"] for loss in losses)
        if used := [loss for loss in losses if loss["kind"] not in _AT_REST]:
            self._read(tenant, used, reach)
        for loss in losses:
            if loss["kind"] in _AT_REST:
                self._count_stock(tenant, loss, reach)
        if reach.logins or reach.tables:
            window = {"since": since, "until": self._now}
            reach.gaps = self._ask(_sql.GAPS.format(log=tenant["log"]), **window)
            reach.events = self._ask(_sql.EVENTS.format(log=tenant["log"]), **window)
        return reach

    def _read(self, tenant: Mapping[str, Any], losses: Rows, reach: _Reach) -> None:
        """Look what was read and written with lost credentials."""
        log = tenant["log"]
        self._connection.execute("truncate pg_temp.incident_logins, pg_temp.incident_touched")
        window = [
            {name: v.isoformat() if isinstance(v := loss[name], datetime) else v for name in _USED}
            for loss in losses
        ]
        self._connection.execute(_sql.LOGINS.format(log=log), {"losses": Jsonb(window)})
        reach.logins = self._ask(
            "select distinct subject, issuer, token_id, losses from pg_temp.incident_logins"
        )
        if not reach.logins:
            return
        self._connection.execute(_sql.TOUCHED.format(log=log))
        for row in self._ask(_sql.TABLES):
            reach.tables.setdefault(row.pop("model_id"), {}).update(row)
        for row in self._ask(_sql.COLUMNS):
            table = reach.tables[row["model_id"]]
            table.setdefault("columns", set()).update(_columns(row["columns"]))
        reach.people = self._ask(_sql.PEOPLE)
        asked = {"patients": self._incident.patients_model, "children": list(self._children)}
        query = _sql.PATIENTS.format(patient_of=self._patient_of(tenant))
        patients = [row["patient"] for row in self._ask(query, **asked)]
        reach.patients |= {patient for patient in patients if patient is not None}
        reach.unresolved = patients.count(None)

    def _patient_of(self, tenant: Mapping[str, Any]) -> str:
        """Return the query that says of which patient a row of another table is."""
        parts = []
        for model, column in self._children.items():
            names = {
                "model": _literal(self._connection, str(model)),
                "name": _literal(self._connection, column),
                "column": _for_format(sql.Identifier(column).as_string(self._connection)),
                "log": tenant["log"],
            }
            parts.append(_sql.PATIENT_OF["log"].format(**names))
            if stored := self._stored(tenant, model):
                leaf, row = stored
                parts.append(_sql.PATIENT_OF["leaf"].format(**names, leaf=leaf, row=row))
        return "\nunion\n".join(parts or [_sql.PATIENT_OF["nothing"]])

    def _stored(self, tenant: Mapping[str, Any], model: UUID) -> tuple[str, str] | None:
        """Return the leaf and how a row of it is called; None where the tenant has none any more."""
        query = (
            "select ward_internal.leaf_name(%s, schema_name) as leaf, ward_internal.entry_row(%s, 'l') as row"
            " from ward_internal.tenants where id = %s"
        )
        rows = self._connection.execute(query, [model, model, tenant["id"]]).fetchall()
        there = "select to_regclass(%s) is not null"
        if rows and rows[0][0] and self._connection.execute(there, [rows[0][0]]).fetchall() == [(True,)]:
            return f"{_for_format(rows[0][0])} as l", _for_format(rows[0][1])
        return None

    def _count_stock(self, tenant: Mapping[str, Any], loss: Mapping[str, Any], reach: _Reach) -> None:
        """Count the rows that were there when a dump was made, or while a version of a key was in use."""
        since, until = loss["since"], loss["until"] if loss["kind"] == "key" else loss["since"]
        for model in self._models:
            stored = self._stored(tenant, model)
            leaf, row = stored or ("(select) as nothing where false", "null::text")
            query = _sql.STOCK.format(log=tenant["log"], leaf=leaf, row=row)
            asked = {"model": model, "since": since, "until": until}
            if model == self._incident.patients_model:
                patients = {row for (row,) in self._connection.execute(query, asked).fetchall()}
                reach.patients |= patients
                count = len(patients)
            else:
                counted = self._connection.execute(f"select count(*) from ({query}) as s", asked)  # noqa: S608
                ((count,),) = counted.fetchall()
            table = reach.tables.setdefault(model, {})
            table["rows_at_rest"] = max(count, table.get("rows_at_rest", 0))
            table["is_copied"] = table.get("is_copied", False) or loss["kind"] == "dump"

    def _releases(self) -> Releases:
        paths = files(self._keeper)
        made = Releases(begin_of(paths))
        for each in releases(paths):
            if each is None:
                made.damaged += 1
                continue
            made.released.setdefault((each.tenant, each.version), []).append(each)
        return made

    def _document(
        self, tenant: Mapping[str, Any], losses: Rows, reach: _Reach, keys: Iterable[Any], logged: Releases
    ) -> dict[str, Any]:
        numbers = {number for login in reach.logins for number in login["losses"]}
        used = [loss for loss in losses if loss["kind"] in _AT_REST or loss["number"] in numbers]
        suspects = [
            Suspect(
                loss["kind"], loss["since"], loss["until"], loss["version"], loss["what"] == SERVER
                and loss["kind"] == "host",
            )
            for loss in used
        ]  # fmt: skip
        verdicts = judge(
            list(keys), suspects, logged, tenant["id"],
            subjects={str(loss["what"]) for loss in used if loss["kind"] == "subject"},
            tokens={token_digest(login["token_id"]) for login in reach.logins if login["token_id"]},
            rows_opened=sum(table.get("rows_read", 0) for table in reach.tables.values()),
            last_opened=max((row["last"] for row in reach.people if row["rows_read"]), default=None),
            tombstones=self._tombstones,
        )  # fmt: skip
        tables = [self._table(model, table) for model, table in reach.tables.items()]
        return {
            "id": str(tenant["id"]),
            "slug": tenant["slug"],
            "status": tenant["status"],
            "covered_entity": tenant["covered_entity"] or tenant["name"],
            "business_associate": tenant["business_associate"],
            "losses": [loss["number"] for loss in used],
            "patients": len(reach.patients),
            "rows_of_unknown_patients": reach.unresolved,
            "subjects": sorted({login["subject"] for login in reach.logins if login["subject"]}),
            "revocable": _revocable(reach.logins, used),
            "tables": sorted(tables, key=lambda table: str(table["table"])),
            "classes": sorted({name for table in tables for name in table["classes"]}),
            "keys": [verdict.document() for verdict in verdicts],
            "people": [_plain(row) for row in reach.people],
            "events": [_plain(row) for row in reach.events],
            "gaps": [_plain(row) for row in reach.gaps],
        }

    def _table(self, model: UUID, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what went of a table: of a dump all of it, columns that are not sealed in clear."""
        known = self._models.get(model, {"face": str(model), "sealed": {}, "clear": [], "audit": "row"})
        opened = sorted(told.get("columns", ()))
        sealed = known["sealed"]
        named = [*sealed] if told.get("rows_at_rest") else [name for name in opened if name in sealed]
        return {
            "table": known["face"],
            "rows_read": told.get("rows_read", 0),
            "rows_written": told.get("rows_written", 0),
            "rows_at_rest": told.get("rows_at_rest", 0),
            "statements_without_rows": told.get("statements_without_rows", 0),
            "columns": opened,
            "classes": sorted({sealed[name] for name in named}),
            "in_clear": list(known["clear"]) if told.get("is_copied") else [],
            "reads_journalled": known["audit"],
        }

    def _ask(self, query: str, *values: object, **named: object) -> Rows:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, named or values).fetchall()


_USED = ("number", "kind", "what", "since", "until")


def _columns(text: str) -> set[str]:
    """Return the columns that an entry names, as ``audit_log.columns`` has them."""
    return {quoted.replace('""', '"') or plain for quoted, plain in _COLUMN.findall(text)}


def _revocable(logins: Rows, losses: Rows) -> list[list[str]]:
    """Return issuer and subject of those whose own credential was lost."""
    own = {loss["number"] for loss in losses if loss["kind"] in ("token", "subject")}
    named = {(str(row["issuer"]), str(row["subject"])) for row in logins if own.intersection(row["losses"])}
    return [list(each) for each in sorted(named)]


def _literal(connection: Connection, text: str) -> str:
    return _for_format(sql.Literal(text).as_string(connection))


def _for_format(text: str) -> str:
    """Return SQL that goes into a query with parameters."""
    return text.replace("%", "%%")


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
