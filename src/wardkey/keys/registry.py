"""What the database knows of keys, read for the operator's side. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from ..errors import TenantShredded, UnknownTenant
from .policy import Key, Policy, TenantKeys
from .rotation import Facts

__all__ = [
    "Connection",
    "Ward",
    "keeper_socket",
    "keks_of",
    "keks_to_destroy",
    "read_keys",
    "read_policy",
    "read_tenants",
    "read_ward",
    "tenant_id",
]

Connection = psycopg.Connection[Any]

_GONE = ("shredding", "shredded")

_TENANTS = """
select t.id, t.slug, t.key_mode as mode, t.status, t.region,
       (select q.reason from ward_internal.rotation_requests as q
         where q.tenant_id = t.id and q.done_at is null limit 1) as request,
       exists (select from ward_internal.rotations as r
                where r.tenant_id = t.id and r.finished_at is null and r.paused) as paused,
       exists (select from ward_internal.rotations as r
                where r.tenant_id = t.id and r.finished_at is null) as begun,
       exists (select from ward_internal.audit_holds as h where h.tenant_id = t.id) as held,
       coalesce(f.fields, 0)::bigint as fields
  from ward_internal.tenants as t
  left join lateral (
    select sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0) * s.columns) as fields
      from (select model_id, count(*) as columns from ward_internal.sealed_columns group by model_id) as s
      join pg_class as c on c.oid = to_regclass(ward_internal.leaf_name(s.model_id, t.schema_name))
  ) as f on true
 where %(slugs)s::text[] is null or t.slug = any (%(slugs)s)
 order by t.slug"""

_KEYS = """
select k.tenant_id, k.version, k.state, k.kek, k.kek_version, k.created_at, k.wrapped_at, k.reason,
       k.replaced_at, k.retired_at, k.destroyed_at
  from ward_internal.tenant_keys as k
 where k.tenant_id = any (%s) order by k.tenant_id, k.version"""

_WARD = """
select t.id, t.slug,
       coalesce((select jsonb_object_agg(k.version, k.state) from ward_internal.tenant_keys as k
                  where k.tenant_id = t.id), '{}') as states,
       not exists (select from ward_internal.tenant_keys as k
                    where k.tenant_id = t.id and k.state = 'decrypt-only' and k.fence is null) as fenced,
       coalesce((select r.paused from ward_internal.rotations as r
                  where r.tenant_id = t.id and r.finished_at is null
                  order by r.started_at desc limit 1), false) as paused,
       exists (select from ward_internal.rotations as r
                where r.tenant_id = t.id and r.finished_at is null) as begun,
       (select count(*) from ward_internal.older_transactions(t.id)) as older,
       (select coalesce(jsonb_agg(jsonb_build_array(m.id, m.face,
                 pg_relation_size(c.oid) / current_setting('block_size')::integer) order by m.id), '[]')
          from ward_internal.models as m
          join pg_class as c on c.oid = to_regclass(ward_internal.leaf_name(m.id, t.schema_name))
         where exists (select from ward_internal.sealed_columns as s where s.model_id = m.id)) as leaves
  from ward_internal.tenants as t where t.slug = %s"""


@dataclass(frozen=True, slots=True)
class Ward:
    """What a rotation's worker has to know. ``leaves``: model id → name of the face and blocks on disk."""

    id: UUID
    slug: str
    facts: Facts
    leaves: Mapping[str, tuple[str, int]]


def read_policy(connection: Connection) -> Policy:
    """Return the periods that are set, else the defaults."""
    values = dict(connection.execute("select name, value from ward_internal.settings").fetchall())
    default = Policy()

    def days(name: str, otherwise: timedelta) -> timedelta:
        return timedelta(days=int(values[name])) if name in values else otherwise

    return Policy(
        days("cryptoperiod", default.cryptoperiod),
        days("kek_cryptoperiod", default.kek_cryptoperiod),
        int(values.get("most_fields", default.most_fields)),
        days("grace", default.grace),
    )


_DISABLED = """
select distinct tenant_id from ward_internal.kek_versions
 where disabled_at <= clock_timestamp() - %s and destroyed_at is null"""


def keks_to_destroy(connection: Connection, policy: Policy) -> set[UUID]:
    """Return the tenants with KEK versions that have wrapped nothing for the grace."""
    return {tenant for (tenant,) in connection.execute(_DISABLED, [policy.grace]).fetchall()}


_KEKS = """
select kek, true from ward_internal.tenant_keys
 where state <> 'destroyed' and kek <> 'master' and (%(tenant)s::uuid is null or tenant_id = %(tenant)s)
union
select kek, false from ward_internal.kek_versions as k
 where left_at is not null and destroyed_at is null and (%(tenant)s::uuid is null or tenant_id = %(tenant)s)
   and not exists (
     select from ward_internal.tenants as t where t.id = k.tenant_id and t.status in ('shredding', 'shredded')
   )"""


def keks_of(connection: Connection, tenant: UUID | None = None) -> tuple[set[str], set[str]]:
    """Return the names of the KEKs that data keys are wrapped under, of one tenant or of all.

    Second, also of those that data keys were wrapped under and that are not destroyed: backups have such
    keys, and somebody has to destroy the KEK.
    """
    keks = connection.execute(_KEKS, {"tenant": tenant}).fetchall()
    return {kek for kek, used in keks if used}, {kek for kek, _ in keks}


def tenant_id(connection: Connection, slug: str) -> UUID:
    """Return the id of the tenant called ``slug``. Raises UnknownTenant."""
    row = connection.execute("select id from ward.tenants where slug = %s", [slug]).fetchone()
    if row is None:
        raise UnknownTenant("no such tenant", "list them: wardkey tenant list")
    tenant: UUID = row[0]
    return tenant


def keeper_socket(connection: Connection) -> Path:
    """Return where the database asks its keeper."""
    query = "select value from ward_internal.settings where name = 'keeper_socket'"
    row = connection.execute(query).fetchone()
    return Path(row[0] if row else "/run/wardkey/keeper.sock")


def read_tenants(
    connection: Connection, slugs: Sequence[str] | None = None, *, master: bool = False
) -> list[TenantKeys]:
    """Return tenants with their keys, by slug; all that are not shredded, unless some are named.

    ``master``: the master secret first, if there is one. Raises UnknownTenant, TenantShredded.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_TENANTS, {"slugs": None if slugs is None else list(slugs)}).fetchall()
    if slugs is None:
        rows = [row for row in rows if row["status"] not in _GONE]
    elif missing := set(slugs) - {row["slug"] for row in rows}:
        raise UnknownTenant(f"no tenant has the slug {min(missing)}", "list them: wardkey tenant list")
    elif gone := [row["slug"] for row in rows if row["status"] in _GONE]:
        raise TenantShredded(
            f"tenant {gone[0]} was shredded; it has no keys", "list them: wardkey tenant list"
        )
    keys = read_keys(connection, [row["id"] for row in rows] + [UUID(int=0)] * master)
    tenants = [TenantKeys(keys=keys.get(row["id"], ()), **row) for row in rows]
    if UUID(int=0) in keys:
        (region,) = connection.execute("select ward_internal.region_of(%s)", [UUID(int=0)]).fetchall()[0]
        tenants.insert(0, TenantKeys(UUID(int=0), None, keys[UUID(int=0)], mode="master", region=region))
    return tenants


def read_ward(connection: Connection, slug: str) -> Ward:
    """Return what is to know for the next step of a tenant's rotation. Raises UnknownTenant."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_WARD, [slug]).fetchone()
    if row is None:
        raise UnknownTenant("no tenant has that slug", "list them: wardkey tenant list")
    leaves = {model: (face, blocks) for model, face, blocks in row["leaves"]}
    states = {int(version): state for version, state in row["states"].items()}
    facts = Facts(states, tuple(leaves), row["fenced"], row["paused"], row["older"], row["begun"])
    return Ward(row["id"], row["slug"], facts, leaves)


def read_keys(connection: Connection, tenants: Sequence[UUID]) -> Mapping[UUID, list[Key]]:
    """Return the keys of each tenant that has some, oldest first."""
    keys: dict[UUID, list[Key]] = {}
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_KEYS, [list(tenants)]).fetchall():
            keys.setdefault(row.pop("tenant_id"), []).append(Key(**row))
    return keys
