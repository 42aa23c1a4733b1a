"""What a backend reads of the registry: rows of its tables, one query a table.

A backend's first login plans each of these with cold catalog caches. Over the views that people look at, or a
join, that takes several times what the tables' own rows do (docs/performance.md). So what a role sees of a
class is decided here as ``ward_internal.tenant_access`` decides it: tests/sql/test_policy_has_one_meaning.py
holds that both agree. What few logins need is read for those alone: master secrets, masks, grants.
"""

from __future__ import annotations

from wardkey_core.identity import bytes_of
from wardkey_core.policy import CLASSES, DEFAULT, NOTHING, ROLES

from .keyring import CLEAR, MASK, NONE, Class, Grant, TenantKeys, WrappedKey
from .reads import Column

__all__ = ["KEYS", "Registry"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from wardkey_core.tokens import Claims

    class Database(Protocol):
        """PostgreSQL, asked what is committed now."""

        def query_now(
            self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()
        ) -> list[Mapping[str, Any]]: ...


STATE = """
select status, key_epoch, region,
       (select generation from ward_internal.issuers where issuer = $2) as generation
  from ward_internal.tenants where id = $1 and login_role = session_user"""
ISSUER = "select document, generation from ward_internal.issuers where issuer = $1"
SETTINGS = "select name, value from ward_internal.settings"
SLOT = """
select 1 from pg_replication_slots
 where slot_name = $1 and database = current_database() and wal_status is distinct from 'lost'"""
OWN_KEYS = """
select version, state, kek, kek_version, wrapped, commitment from ward_internal.tenant_keys
 where tenant_id = $1"""
KEYS = """
select k.version, k.state, coalesce(m.kek, k.kek) as kek,
       coalesce(m.kek_version, k.kek_version) as kek_version, coalesce(m.wrapped, k.wrapped) as wrapped,
       k.commitment, m.version as master,
       case when m.version is not null then k.wrapped end as salt, t.region
  from ward_internal.tenant_keys k join ward_internal.tenants t on t.id = k.tenant_id
  left join ward_internal.tenant_keys m
    on k.kek = 'master' and m.tenant_id = '00000000-0000-0000-0000-000000000000'
   and m.version::text = k.kek_version
 where k.tenant_id = $1 and k.state in ('active', 'decrypt-only')"""
MODELS = "select id, audit, row_form from ward_internal.models"
COLUMNS = "select id, model_id, quote_ident(name) as name, class from ward_internal.sealed_columns"
MASKS = "select id, mask, kind from ward_internal.column_classes"
CLASSES_ADDED = "select name, number from ward_internal.classes"
# one snapshot: what was narrowed in one of them before it was widened in the other is seen in neither
POLICY = """
select class, access, writes, true as of_platform from ward_internal.policy where role = $2
union all
select class, access, writes, false from ward_internal.tenant_policy where tenant_id = $1 and role = $2"""
HONEY = "select model_id, row_id, ends_logins from ward_internal.honey_rows where tenant_id = $1"
GRANTED = "select id from ward_internal.break_glass where tenant_id = $1 and state = 'started'"
GRANTS = """
select id::text, issuer, subject, classes, date_part('epoch', until) as until from ward_internal.break_glass
 where tenant_id = $1 and state = 'started' and until > clock_timestamp()"""

_ACCESS = {"none": NONE, "mask": MASK, "clear": CLEAR}
_BUILT_IN = {name: number for number, name in enumerate(CLASSES, 1)}


class Registry:
    """The registry as it is committed now. Tenants are uuids as text."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def issuer(self, name: str) -> Mapping[str, Any] | None:
        """Return document, as text, and generation of an issuer."""
        return next(iter(self._database.query_now(ISSUER, ["text"], [name])), None)

    def state(self, tenant: str, issuer: str) -> Mapping[str, Any] | None:
        """Return status, key_epoch and region of the tenant, and the issuer's generation.

        None where the tenant is not the session user's.
        """
        rows = self._database.query_now(STATE, ["uuid", "text"], [tenant, issuer])
        return rows[0] if rows else None

    def settings(self) -> dict[str, str]:
        return {row["name"]: row["value"] for row in self._database.query_now(SETTINGS)}

    def has_slot(self, name: str) -> bool:
        """Whether the replication slot is there, of this database, with all its WAL."""
        return bool(self._database.query_now(SLOT, ["text"], [name]))

    def tenant_keys(
        self, name: str, claims: Claims, state: Mapping[str, Any], grant: Grant | None, *, wants_masks: bool
    ) -> TenantKeys:
        """Return the tenant's keys for the role of ``claims`` and tokens of their issuer.

        ``name``: what the keyring calls that role under ``grant``, with what its subject sees beside. Masks
        are read if the role is shown any, or if they are wanted.
        """
        tenant = claims.tenant_id
        numbers = self.numbers()
        columns, quiet = self.columns(numbers)
        classes = self.classes(tenant, claims.role, numbers)
        if grant is not None:
            for each, number in numbers.items():
                had = classes.get(number) or Class(number, each, NONE, False)
                classes[number] = had._replace(access=CLEAR) if each in grant.classes else had
        return TenantKeys(
            tenant,
            state["key_epoch"],
            self.keys(tenant, state["region"]),
            columns,
            (claims.issuer, state["generation"]),
            quiet,
            name,
            classes,
            self.grants(tenant),
            grant,
            self.masks() if wants_masks or any(its.access == MASK for its in classes.values()) else None,
            self.honey(tenant),
        )

    def keys(self, tenant: str, region: str) -> list[WrappedKey]:
        """Return the keys that may be used, and others."""
        rows = self._database.query_now(OWN_KEYS, ["uuid"], [tenant])
        if any(row["kek"] == "master" for row in rows):
            return [WrappedKey(**row) for row in self._database.query_now(KEYS, ["uuid"], [tenant])]
        return [WrappedKey(**row, region=region) for row in rows]

    def numbers(self) -> dict[str, int]:
        """Return the numbers of all classes, by name."""
        added = self._database.query_now(CLASSES_ADDED)
        return _BUILT_IN | {row["name"]: row["number"] for row in added}

    def columns(self, numbers: Mapping[str, int]) -> tuple[dict[bytes, Column], set[bytes]]:
        """Return the sealed columns by id, and of which models nothing is journalled."""
        models = {row["id"]: row for row in self._database.query_now(MODELS)}
        columns = {}
        for row in self._database.query_now(COLUMNS):
            model, number = models.get(row["model_id"]), numbers.get(row["class"])
            if model is not None and number is not None:
                columns[bytes_of(row["id"])] = Column(
                    bytes_of(row["model_id"]), row["name"], model["audit"], model["row_form"], number
                )
        return columns, {bytes_of(model["id"]) for model in models.values() if model["audit"] == "off"}

    def masks(self) -> dict[bytes, tuple[str, str]]:
        """Return mask and type of each sealed column by its id."""
        rows = self._database.query_now(MASKS)
        return {bytes_of(row["id"]): (row["mask"], row["kind"]) for row in rows}

    def classes(self, tenant: str, role: str, numbers: Mapping[str, int]) -> dict[int, Class]:
        """Return what a role sees and writes of each class: the stricter of platform's and tenant's policy.

        Of a class that wardkey brings, a cell that nobody set is the default; of any other, nothing.
        SUPER_ADMIN has no cells.
        """
        if role not in ROLES:
            return {}
        rows = self._database.query_now(POLICY, ["uuid", "text"], [tenant, role])
        platform, narrowed = (
            {
                row["class"]: (_ACCESS[row["access"]], row["writes"])
                for row in rows
                if row["of_platform"] is of_platform
            }
            for of_platform in (True, False)
        )
        classes = {}
        for name, number in numbers.items():
            cell = DEFAULT[role].get(name, NOTHING)
            most, writes = platform.get(name, (_ACCESS[cell.access], cell.write))
            least, may = narrowed.get(name, (most, writes))
            access = min(most, least)
            classes[number] = Class(number, name, access, writes and may and access != NONE)
        return classes

    def honey(self, tenant: str) -> dict[bytes, dict[bytes, bool]]:
        """Return the honey rows by model, and whether opening one ends logins."""
        honey: dict[bytes, dict[bytes, bool]] = {}
        for row in self._database.query_now(HONEY, ["uuid"], [tenant]):
            honey.setdefault(bytes_of(row["model_id"]), {})[bytes(row["row_id"])] = row["ends_logins"]
        return honey

    def grants(self, tenant: str) -> dict[tuple[str, str], Grant]:
        """Return the break-glass grants that hold, by issuer and subject."""
        if not self._database.query_now(GRANTED, ["uuid"], [tenant]):
            return {}
        return {
            (row["issuer"], row["subject"]): Grant(row["id"], frozenset(row["classes"]), row["until"])
            for row in self._database.query_now(GRANTS, ["uuid"], [tenant])
        }
