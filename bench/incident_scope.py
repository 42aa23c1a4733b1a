"""How long does it take to count whom a lost credential and a stolen dump reach, over 1,000,000 entries?

The log is a clinic's: reads of 20 people, a login for 50 entries, a write in ten. A fifth of the logins are
of who was robbed. The rival is one pass of PostgreSQL over the same entries, which counts distinct rows.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _common import Figure, Server, main

from wardkey.incident import scope, store
from wardkey.incident.losses import Loss

ENTRIES = 1_000_000
_FILL = """
insert into ward_internal.audit_log (tenant_id, at, kind, operation, context, model_id, row_id, columns,
  journalled, new, id)
select %(tenant)s, now() - (%(entries)s - n) * interval '1 millisecond',
  case when n %% 10 = 0 then 'w' else 'r' end, case when n %% 10 = 0 then 'insert' else 'read' end,
  decode(md5((n / 50)::text), 'hex'), %(model)s, (n %% 50000)::text, 'name,ssn', true,
  case when n %% 10 = 0 then '{"name": "\\\\x0100000001"}'::jsonb end, 10000000 + n
from generate_series(1, %(entries)s) as n"""
_LOGINS = """
insert into ward_internal.audit_log (tenant_id, at, kind, operation, context, subject, role, database_role,
  address, detail, id)
select %(tenant)s, now() - (%(entries)s - n * 50) * interval '1 millisecond', 'e', 'login',
  decode(md5(n::text), 'hex'), 'person ' || n %% 5, 'EVALUATOR', 'tenant', '10.0.0.7',
  jsonb_build_object('token_id', n::text, 'issuer', 'i'),
  20000000 + n
from generate_series(0, %(entries)s / 50) as n"""


def run(server: Server) -> list[Figure]:
    database = server.database("incidents")
    tenant = database.tenant()
    keeper = Path(server.cluster.home.keeper)
    with database.admin() as admin:
        model = admin.execute("select id from ward_internal.models where face = 'patients'").fetchall()[0][0]
        begun = datetime.now(UTC) - timedelta(hours=2)
        admin.execute("update ward_internal.tenants set created_at = %s where id = %s", [begun, tenant.id])
        for month in (begun, datetime.now(UTC)):
            admin.execute("select ward_internal.make_audit_partition(%s, %s)", [tenant.id, month])
        for query in (_FILL, _LOGINS):
            admin.execute(query, {"tenant": tenant.id, "model": model, "entries": ENTRIES})
        (leaf,) = admin.execute("select ward_internal.audit_leaf(%s)", [tenant.id]).fetchall()[0]
        start = time.perf_counter()
        admin.execute(
            f"select count(distinct (model_id, row_id)) from {leaf} where kind in ('r', 'w')"
        ).fetchall()
        rival = time.perf_counter() - start
        seconds = {}
        for name, loss in (
            ("person", Loss("subject", begun, "person 3")),
            ("dump", Loss("dump", datetime.now(UTC), tenant=tenant.slug)),
        ):
            identity = store.open_(admin, name, datetime.now(UTC), [loss], "patients")
            start = time.perf_counter()
            told = scope.count(admin, identity, keeper)
            seconds[name] = time.perf_counter() - start
            if not told["patients"]:
                raise AssertionError(f"the {name} reaches nobody")
    return [
        Figure("scope of a lost credential over 1,000,000 entries", seconds["person"], "s", 30),
        Figure("scope of a stolen dump over 1,000,000 entries", seconds["dump"], "s", 30),
        Figure("… the first against one count of distinct rows", seconds["person"] / rival, "times"),
        Figure("… the second", seconds["dump"] / rival, "times"),
    ]


if __name__ == "__main__":
    main("incident_scope", run)
