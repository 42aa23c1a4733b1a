"""Tokens that read metrics: made here, of 256 random bits; the database has their digests only."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

import psycopg

from ..daemon.files import write_atomically

__all__ = ["drop", "make", "owners", "path"]

_PREFIX = "wkm_"  # so that scanners for secrets know one
_OWNERS = """
select t.slug, m.made_at, m.made_by from ward_internal.tenants as t
  left join ward_internal.metrics_tokens as m on m.tenant_id = t.id
  where t.status not in ('shredding', 'shredded')
union all
select null, m.made_at, m.made_by from (values ('00000000-0000-0000-0000-000000000000'::uuid)) as p (id)
  left join ward_internal.metrics_tokens as m on m.tenant_id = p.id
order by 1 nulls first"""


def make(connection: psycopg.Connection[Any], slug: str | None, file: Path | None = None) -> str:
    """Make the tenant's token, the platform's without a slug, in place of the one before; return it.

    It is written into ``file``, mode 0600, before it holds: Prometheus reads it there. Raises WardError,
    OSError.
    """
    token = _PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        "select ward.set_metrics_token(%s, %s)", [slug, hashlib.sha256(token.encode()).digest()]
    )
    if file is not None:
        write_atomically(file, token.encode())
    return token


def drop(connection: psycopg.Connection[Any], slug: str | None) -> str:
    """Have nobody read the metrics of the tenant, or of the platform."""
    connection.execute("select ward.drop_metrics_token(%s)", [slug])
    return ""


def owners(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Return the platform and all tenants, and since when each has a token; never, where that is None."""
    return [
        {"tenant": slug or "platform", "path": path(slug), "made_at": made_at, "made_by": made_by}
        for slug, made_at, made_by in connection.execute(_OWNERS).fetchall()
    ]


def path(slug: str | None) -> str:
    """Return where the metrics of the tenant are, or of the platform."""
    return "/metrics" if slug is None else f"/metrics/{slug}"
