"""Every ward is as wardkey makes it: compared, part by part, with one that is made now and rolled back.

That one's leaves are partitions of copies of the model tables, so that nobody waits for the doctor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from ._check import Check, Problem, Server
from ._describe import Parts, compare, describe

__all__ = ["CHECKS"]

_NEW_TENANT = """
insert into ward_internal.tenants
  (id, slug, name, schema_name, login_role, status, key_epoch, created_at, key_mode)
values (%s, %s, '', %s, %s, 'active', 1, now(), 'envelope')"""
_MAKE_COPY = "create table {} (like {} including all) partition by list (tenant_id)"
_WARDS = """
select id, slug, schema_name::text, ward_internal.leaf_schema(schema_name)::text, login_role::text
from ward_internal.tenants where status <> 'shredded' order by slug"""
_MODELS = """
select m.id, m.relation::text, m.relation::oid::bigint, m.shape::oid::bigint, m.shape::text
from ward_internal.models as m join pg_class as c on c.oid = m.relation join pg_class as s on s.oid = m.shape
order by 2"""
_RELATIONS = r"""
select n.nspname::text, c.oid::bigint, c.oid::regclass::text, c.relname::text
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where (n.nspname = any(%s) or n.nspname = 'ward_archive'
    or n.nspname = 'ward_internal' and c.relname ~ '^audit_platform(_\d{4}_\d\d)?$')
  and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')"""
_LOG = re.compile(r"(?:audit_log|audit_platform|log_[0-9a-f]{32})(_\d{4}_\d\d)?")
_ROLE = "pg_signal_backend"  # in place of the login role of the ward that is made: one that is there
_COPY = "doctor_"  # with the number of the model: the name of a model table's copy
_ADDED = ("trigger", "function of trigger", "rule", "policy", "child")  # what no shape has


@dataclass(frozen=True)
class _Ward:
    """A tenant's ward; without a slug, what is of no ward."""

    id: UUID | None = None
    slug: str | None = None
    schema: str = ""
    leaves: str = ""
    role: str = ""
    relations: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By oid the name, and what it is called in every ward."""

    @property
    def repair(self) -> str | None:
        return self.slug and f"select ward.repair_tenant('{self.slug}')"

    def renamed(self, oid: int, text: str) -> str:
        """Put placeholders for the ward's own names; schema and role have the same."""
        text = re.sub(rf"(?<![\w.]){re.escape(self.relations[oid][0])}(?!\w)", "@this", text)
        if self.slug is None:
            return text
        words = {self.role: "@ward", self.schema: "@ward", self.leaves: "@leaves", str(self.id): "@id"}
        return re.sub(rf"\b(?:{'|'.join(words)})\b", lambda match: words[match[0]], text)

    def named(self, name: str, text: str) -> str:
        """Put the ward's own names for the placeholders."""
        words = {"@this": name, "@ward": self.schema, "@leaves": self.leaves, "@id": str(self.id)}
        return re.sub("|".join(words), lambda match: words[match[0]], text)


def _unchanged(server: Server) -> Iterator[Problem]:
    models = server.rows(_MODELS)
    try:
        expected = _expected(server, models)
    except psycopg.DatabaseError as error:
        if server.connection.broken or isinstance(error, psycopg.errors.QueryCanceled):
            raise
        yield Problem("a new ward", f"cannot be made: {error.diag.message_primary}")
        return
    wards, logs, parents = [_Ward(*row) for row in server.rows(_WARDS)], _Ward(), _Ward()
    ward_of = _fill(wards, logs, server)
    for number, (_, name, oid, *_) in enumerate(models):
        ward_of[oid] = parents
        parents.relations[oid] = (name, f"@ward.{_COPY}{number}")
    actual = describe(server, ward_of, lambda oid, text: ward_of[oid].renamed(oid, text))
    for ward in (parents, *wards, logs):
        for oid, (name, label) in ward.relations.items():
            if label in expected:
                yield from compare(name, expected[label], actual[oid], _fix(ward, name), ward.repair)
            else:
                yield Problem(name, "is additional", f"alter table {name} set schema public;")
        missing = expected.keys() - {label for _, label in ward.relations.values()}
        for label in sorted(missing) if ward.slug else ():
            if not label.startswith(f"@ward.{_COPY}"):
                yield Problem(ward.named("", label), "is missing", f"{ward.repair};")


def _fill(wards: Iterable[_Ward], logs: _Ward, server: Server) -> dict[int, _Ward]:
    """Tell the wards their relations; return the ward of each relation."""
    by_schema = {schema: ward for ward in wards for schema in (ward.schema, ward.leaves)}
    ward_of = {}
    for schema, oid, name, relname in server.rows(_RELATIONS, [*by_schema]):
        log = _LOG.fullmatch(relname)
        label = relname if log is None else "audit_log of a month" if log[1] else "audit_log"
        ward = ward_of[oid] = by_schema.get(schema, logs)
        ward.relations[oid] = (name, f"{'@leaves' if schema == ward.leaves else '@ward'}.{label}")
    return ward_of


def _expected(server: Server, models: list[tuple[Any, ...]]) -> dict[str, Parts]:
    """Make a ward and copies of the model tables; return how they are described. No lock stays."""
    slug = f"doctor{uuid4().hex[:8]}"
    ward = _Ward(uuid4(), slug, f"tenant_{slug}", f"sealed_{slug}", _ROLE)
    run = server.connection.execute
    with server.connection.transaction(force_rollback=True):
        run("set local lock_timeout = '2s'")
        run("delete from ward_internal.models where id <> all(%s)", [[model for model, *_ in models]])
        run(sql.SQL("create schema {} authorization ward_owner").format(sql.Identifier(ward.schema)))
        run(_NEW_TENANT, [ward.id, ward.slug, ward.schema, ward.role])
        for number, (model, relation, *_) in enumerate(models):
            copy = f"{ward.schema}.{_COPY}{number}"
            run(sql.SQL(_MAKE_COPY).format(sql.SQL(copy), sql.SQL(relation)))
            run("select ward_internal.set_row_security(%s)", [copy])
            run("update ward_internal.models set relation = %s where id = %s", [copy, model])
            run("select ward_internal.build_row_rules(%s, %s)", [model, copy])
        run("select ward_internal.set_up_ward(t) from ward_internal.tenants as t where id = %s", [ward.id])
        _fill([ward], _Ward(), server)
        made = describe(server, ward.relations, ward.renamed)
    return {label: made[oid] for oid, (_, label) in ward.relations.items()}


def _shapes(server: Server) -> Iterator[Problem]:
    names = {oid: name for *_, oid, name in server.rows(_MODELS)}
    rules = {("policy", f"ward_rule_{name}") for (name,) in server.rows("select name from ward.row_rules")}
    for oid, parts in describe(server, names).items():
        added = {key: part for key, part in parts.items() if key[0] in _ADDED and key not in rules}
        yield from compare(names[oid], {}, added)


def _fix(ward: _Ward, name: str) -> Callable[[str], str]:
    return lambda text: ward.named(name, text)


CHECKS = (
    Check(
        "wards-unchanged", "wards and logs are what wardkey makes, no more, no less", _unchanged, primary=True
    ),
    Check("shapes-alone", "nothing acts on the shapes of model tables", _shapes),
)
