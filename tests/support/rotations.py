"""What the worker of a rotation does, in a few lines: batches until the end, then retirement."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.database import Connection


class Resealed(NamedTuple):
    rows: int
    fields: int
    failed: int
    skipped: int


def rotate(admin: Connection, slug: str = "acme", reason: str = "a test") -> int:
    row = admin.execute("select ward.rotate_key(%s, %s)", [slug, reason]).fetchone()
    assert row
    return int(row[0])


def reseal(admin: Connection, slug: str = "acme", blocks: int = 50) -> Resealed:
    """One pass over all tables; each batch is a transaction of its own if ``admin`` is in autocommit."""
    total = [0, 0, 0, 0]
    for (model,) in admin.execute("select id from ward.models order by face").fetchall():
        block: int | None = 0
        while block is not None:
            row = admin.execute(
                "select * from ward_internal.reseal(%s, %s, %s, %s)", [slug, model, block, blocks]
            ).fetchone()
            assert row
            total = [sum(pair) for pair in zip(total, row[:4], strict=True)]
            block = row[4]
    return Resealed(*total)


def retire(admin: Connection, slug: str = "acme") -> list[int]:
    row = admin.execute("select ward.retire_keys(%s)", [slug]).fetchone()
    assert row
    return list(row[0])


def versions(admin: Connection, slug: str = "acme") -> dict[int, int]:
    """Return how many values are sealed under which version."""
    query = "select version, sum(fields)::int from ward.key_rows(%s) group by 1"
    return dict(admin.execute(query, [slug]).fetchall())


def states(admin: Connection, slug: str = "acme") -> dict[int, str]:
    return dict(admin.execute("select version, state from ward.keys where slug = %s", [slug]).fetchall())
