"""How many entries does one publisher bring to Kafka a second?

The log is sealed before the publisher starts: reads and writes of one tenant, as the scribe leaves them. The
broker is Tansu on the same machine, with its topics in memory. Counted besides is the CPU time of the
publisher's process and of its backend.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID

from _common import Connection, Figure, Server, cpu_seconds, main
from wardkey_core.log.merkle import Range, leaf_hash
from wardkey_core.log.source import COLUMNS, bytes_of

from wardkey.publisher import config
from wardkey.publisher.config import Configuration

ENTRIES = 200_000
BATCH = 2_000  # entries the scribe seals at a time

_FILL = """
    insert into ward_internal.audit_log (tenant_id, transaction, statement, model_id, kind, operation,
      context, row_id, columns, old, new)
    select %(tenant)s, pg_current_xact_id(), 800000000000000 + n / 20, %(tenant)s, k, case k when 'r' then
      'read' else 'update' end, decode(md5((n / 1000)::text), 'hex'), (n %% 977)::text,
      'name,ssn,birth_date,phone', case k when 'w' then image end, case k when 'w' then image end
    from generate_series(1, %(count)s) as n, lateral (select case n %% 10 when 0 then 'w'::"char"
      else 'r'::"char" end as k, jsonb_build_object('id', n, 'name', '\\x01' || repeat(md5(n::text), 3),
      'ssn', '\\x01' || repeat(md5(n::text), 3)) as image) as i"""


def fill(connection: Connection, tenant: UUID) -> None:
    """Write entries and seal them, in batches."""
    connection.execute("set timezone = 'UTC'")
    connection.execute("delete from ward_internal.audit_log where tenant_id = %s", [tenant])
    connection.execute(_FILL, {"tenant": tenant, "count": ENTRIES})
    tree, ids, leaves = Range(), [], []
    query = f"select {COLUMNS} from ward_internal.audit_log as e where tenant_id = %s order by id"
    with connection.transaction(), connection.cursor("bench") as cursor:
        cursor.itersize = BATCH
        for row in cursor.execute(query, [tenant]):
            leaf = leaf_hash(bytes_of(row))
            tree.append(leaf)
            ids.append(row[1])
            leaves.append(leaf)
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ward_internal.audit_batches (tenant_id, first_position, ids, leaf_hashes, lsn)"
            " values (%s, %s, %s, %s, '0/1')",
            [
                (tenant, first, ids[first : first + BATCH], b"".join(leaves[first : first + BATCH]))
                for first in range(0, ENTRIES, BATCH)
            ],
        )
    connection.execute(
        "insert into ward_internal.audit_trees values (%s, %s, %s)"
        " on conflict (tenant_id) do update set size = excluded.size, frontier = excluded.frontier",
        [tenant, tree.end, b"".join(tree.hashes)],
    )


def run(server: Server) -> list[Figure]:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.support.kafka import Kafka

    database = server.database("publisher")
    tenant = UUID(database.tenant().id)
    kafka = Kafka().start()
    with tempfile.TemporaryDirectory() as directory, database.admin() as connection:
        fill(connection, tenant)
        file = Path(directory) / config.CONFIGURATION_FILE
        config.write(file, Configuration(kafka.servers))
        command = [sys.executable, "-m", "wardkey.publisher", "--dsn", server.cluster.dsn("publisher")]
        process = subprocess.Popen([*command, "--config", str(file)], env=dict(os.environ))

        def position() -> int:
            query = "select position from ward_internal.audit_topics where tenant_id = %s"
            row = connection.execute(query, [tenant]).fetchone()
            return row[0] if row else 0

        try:
            while not position():
                time.sleep(0.01)
            row = connection.execute(
                "select pid from pg_stat_activity where application_name = 'wardkey publisher'"
            ).fetchone()
            backend = row[0] if row else None
            first, start = position(), time.perf_counter()
            used = [cpu_seconds(process.pid), cpu_seconds(backend)]
            while (last := position()) < ENTRIES:
                time.sleep(0.02)
            wall = time.perf_counter() - start
            used = [cpu_seconds(process.pid) - used[0], cpu_seconds(backend) - used[1]]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            kafka.remove()
    count = last - first
    return [
        Figure("entries published a second, by the clock", count / wall, "/s", 5_000, "at least"),
        Figure("… of an entry's CPU: publisher", used[0] / count * 1e6, "µs"),
        Figure("… of an entry's CPU: backend", used[1] / count * 1e6, "µs"),
    ]


if __name__ == "__main__":
    main("publisher", run)
