"""Which topic is whose. A name is one tenant's for good, also when that is gone and its slug given again.

A row of ``audit_topics`` says that the topic was made for this tenant, in this cluster. Making it is what
claims a name: one that Kafka has already may be another database's, and is left alone. So after a crash
between the two the tenant gets its second name, and the first stays empty.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from ..errors import PublisherError
from .messages import Mark

__all__ = ["PREFIX", "Topic", "claim", "every", "names", "renew", "save", "tell_failing", "unclaimed"]

PREFIX: Final = "audit."
_PLATFORM: Final = UUID(int=0)

Connection = psycopg.Connection[Any]
Make = Callable[[str], bool]
"""Makes a topic; False when there is one of that name, or of one too similar."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A tenant's topic, how far it has come, and ``size``: how many entries are sealed.

    ``due``: the size of the last checkpoint there is. ``slug`` is None when the tenant is gone. ``failures``:
    how often publishing failed at the mark, the last time with ``trouble``.
    """

    tenant: UUID
    slug: str | None
    name: str
    mark: Mark
    size: int
    due: int
    at: datetime
    failures: int = 0
    trouble: str | None = None

    @property
    def behind(self) -> int:
        """Entries sealed and not published."""
        return max(0, self.size - self.mark.position)


def every(connection: Connection, cluster: str | None = None, *, behind: bool = False) -> list[Topic]:
    """Return the topics of ``cluster``, or all; with ``behind`` those that lack something, longest first."""
    query = """
        select t.tenant_id, s.slug, t.topic, t.position, t.checkpoint_size, coalesce(r.size, 0),
          coalesce(c.size, 0), t.at, t.failures, t.trouble
        from ward_internal.audit_topics as t
        left join ward_internal.tenants as s on s.id = t.tenant_id
        left join ward_internal.audit_trees as r on r.tenant_id = t.tenant_id
        left join lateral (select max(size) as size from ward_internal.audit_checkpoints
          where tenant_id = t.tenant_id) as c on true
        where (%(cluster)s::text is null or t.cluster = %(cluster)s) and (not %(behind)s
          or coalesce(r.size, 0) > t.position or coalesce(c.size, 0) > t.checkpoint_size)
        order by case when %(behind)s then t.at end, t.topic"""
    rows = connection.execute(query, {"cluster": cluster, "behind": behind}).fetchall()
    return [
        Topic(tenant, _whose(tenant, slug), name, Mark(position, checkpoint), *rest)
        for tenant, slug, name, position, checkpoint, *rest in rows
    ]


def unclaimed(connection: Connection, cluster: str) -> list[UUID]:
    """Return who has a log, or will have one, and no topic in ``cluster``; those who are gone come last."""
    query = """
        select tenant_id from (
          select id as tenant_id, 1 as place, created_at from ward_internal.tenants union all
          select tenant_id, 2, null from ward_internal.audit_trees as r
          where not exists (select from ward_internal.tenants where id = tenant_id) and tenant_id <> %(nil)s
          union all select %(nil)s, 0, null) as k
        where not exists (select from ward_internal.audit_topics as t
          where t.tenant_id = k.tenant_id and t.cluster = %(cluster)s)
        order by place, created_at, tenant_id"""
    values = {"nil": _PLATFORM, "cluster": cluster}
    return [tenant for (tenant,) in connection.execute(query, values).fetchall()]


def names(tenant: UUID, slug: str | None) -> list[str]:
    """Return the names a tenant's topic may have, the best first. ``slug`` is None when it is gone."""
    if tenant == _PLATFORM:
        return [f"{PREFIX}platform", *(f"{PREFIX}platform.{secrets.token_hex(4)}" for _ in range(3))]
    stem = PREFIX + (slug or "gone")
    first = [stem] if slug else []
    return [*first, f"{stem}.{tenant.hex[:8]}", f"{stem}.{tenant.hex}", f"{stem}.{secrets.token_hex(16)}"]


def claim(connection: Connection, cluster: str, tenant: UUID, make: Make) -> tuple[str, bool]:
    """Make the tenant's topic, unless somebody has meanwhile; return its name and whether it is new.

    ``connection``: in autocommit. The row is locked while Kafka is asked: of two who claim, one waits. Raises
    PublisherError, psycopg.Error.
    """
    with connection.transaction():
        row = connection.execute(
            "insert into ward_internal.audit_topics (tenant_id, topic, cluster) values (%s, %s, '')"
            " on conflict (tenant_id) do update set tenant_id = excluded.tenant_id returning topic, cluster",
            [tenant, f"claiming {tenant}"],
        ).fetchone()
        if row and row[1] == cluster:
            return str(row[0]), False
        for name in _free(connection, tenant, names(tenant, _slug(connection, tenant))):
            if make(name):
                connection.execute(
                    "update ward_internal.audit_topics set topic = %s, cluster = %s, position = 0,"
                    " checkpoint_size = 0, at = clock_timestamp() where tenant_id = %s",
                    [name, cluster, tenant],
                )
                return name, True
        raise PublisherError(
            f"no name is free for the topic of tenant {tenant}", "Kafka has topics of all of them already"
        )


def renew(connection: Connection, topic: Topic, make: Make) -> bool:
    """Make a topic that Kafka does not know any more, to be filled from the first entry; True when made."""
    with connection.transaction():
        made = make(topic.name)
        if made:
            save(connection, topic, Mark())
    return made


def save(connection: Connection, topic: Topic, mark: Mark) -> None:
    """Store how far a topic has come. Raises PublisherError when that is not what it was before."""
    done = connection.execute(
        "update ward_internal.audit_topics set position = %s, checkpoint_size = %s, at = clock_timestamp(),"
        " failures = 0, trouble = null"
        " where tenant_id = %s and topic = %s and position = %s and checkpoint_size = %s",
        [*mark, topic.tenant, topic.name, *topic.mark],
    )
    if done.rowcount != 1:
        raise PublisherError(f"another publisher has published to {topic.name} meanwhile")


def tell_failing(connection: Connection, tenant: UUID, trouble: str) -> None:
    """Store that publishing has failed once more at the tenant's position."""
    connection.execute(
        "update ward_internal.audit_topics set failures = failures + 1, trouble = %s where tenant_id = %s",
        [trouble, tenant],
    )


def _whose(tenant: UUID, slug: str | None) -> str | None:
    return "the platform" if tenant == _PLATFORM else slug


def _slug(connection: Connection, tenant: UUID) -> str | None:
    row = connection.execute("select slug from ward_internal.tenants where id = %s", [tenant]).fetchone()
    return row and row[0]


def _free(connection: Connection, tenant: UUID, wanted: Sequence[str]) -> Iterator[str]:
    """Yield those of the names that are no other tenant's, in whatever cluster."""
    for name in wanted:
        query = "select from ward_internal.audit_topics where topic = %s and tenant_id <> %s"
        if connection.execute(query, [name, tenant]).fetchone() is None:
            yield name
