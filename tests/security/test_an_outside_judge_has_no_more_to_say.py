"""pgrls, which knows nothing of wardkey, finds in its database what is listed here, with reasons."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from .conftest import Wards

_PGRLS = Path(sys.executable).with_name("pgrls")
_WARD = r"(sealed_\w+\.\w+|clinic\.patients)"
_LOG = r"(tenant_\w+\.audit_log|ward_internal\.audit_platform)"
ACCEPTED = {
    # Nobody but superusers and services has a privilege on the registry: there is no row to choose.
    ("SEC001", r"ward_internal\.\w+"),
    # Shapes are always empty, shared tables are everybody's by declaration.
    ("SEC001", r"ward_model\.\w+|clinic\.icd10"),
    # Policies are for every role, so that none is forgotten; privileges say who comes to them. Without a
    # context the condition raises WK001.
    ("SEC003", rf"{_WARD}\.ward_tenant|{_LOG}\.ward_(read|write)"),
    # Tenants may not insert. The trigger that does takes the tenant from the table it fires on, and the
    # constraint of the partition holds it.
    ("SEC005", rf"{_LOG}\.ward_write"),
    ("SEC028", rf"{_LOG}\.ward_write"),
    # A log has one policy a command: OR joins nothing.
    ("SEC007", _LOG),
    # Partitions by month are reached through the log, whose policies hold.
    ("SEC009", rf"{_LOG}_\d+_\d+"),
    # The trigger that writes the log has its owner's rights, so that it can; tenants cannot.
    ("SEC013", r"sealed_\w+\.\w+\.ward_audit(_truncate)?"),
    # Each says why it is one, pins its path and is revoked from PUBLIC: test_sql_keeps_the_house_rules.
    ("SEC014", r"(ward|ward_internal|tenant_\w+)\.\w+"),
    # Leakproof in truth: they compare tokens with tokens, raise no error about one, and are no tenant's.
    ("SEC017", r"ward_internal\.is_(containing|overlapping)"),
    # The permissive policy lets through what the restrictive one, ward_fence, allows: the tenant's rows.
    ("SEC020", rf"{_WARD}\.ward_tenant"),
    # Partitioned by tenant: of one leaf, or log, all rows have the one value.
    ("PERF003", rf"{_LOG}\.ward_read"),
    # A face's rights are those of ward_owner, who is under the forced policies of the leaf like everybody.
    ("VIEW001", r"tenant_\w+\.patients"),
    # A face has no condition of its own to be passed by; the leaf's policy is a barrier itself.
    ("VIEW002", r"tenant_\w+\.patients"),
}


def findings(wards: Wards) -> list[tuple[str, str]]:
    names = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
    schemas = ",".join(name for (name,) in wards.admin.execute(names).fetchall())
    command = [
        _PGRLS,
        "lint",
        "--database-url",
        wards.database.dsn(),
        "--schemas",
        schemas,
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode in (0, 1), done.stderr
    return [(one["rule_id"], one["location"]) for one in json.loads(done.stdout)["violations"]]


def unexplained(reported: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (rule, place)
        for rule, place in reported
        if not any(rule == known and re.fullmatch(pattern, place) for known, pattern in ACCEPTED)
    ]


def test_each_finding_of_pgrls_has_its_reason_and_each_reason_a_finding(wards: Wards) -> None:
    reported = findings(wards)
    assert unexplained(reported) == []
    assert [
        (known, pattern)
        for known, pattern in ACCEPTED
        if not any(rule == known and re.fullmatch(pattern, place) for rule, place in reported)
    ] == []
    wards.admin.execute("create table clinic.loose (id int primary key, tenant_id uuid)")
    wards.admin.execute("grant select on clinic.loose to ward_tenant")
    assert ("SEC001", "clinic.loose") in unexplained(findings(wards))
