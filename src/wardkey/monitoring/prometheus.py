"""What Prometheus needs: its configuration with a job for each path, rules, and a token file for each job.

::

    prometheus.yml         a job for the platform and for each tenant, which gets label ``tenant``
    wardkey.rules.yml      the alerts
    tokens/                0700; a file for each, 0600: Prometheus' user has to own them
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from ..daemon.files import write_atomically
from ..keys.registry import tenant_id
from ..metrics import tokens
from . import alerts

__all__ = ["Written", "write"]

CONFIGURATION, RULES, TOKENS = "prometheus.yml", "wardkey.rules.yml", "tokens"


@dataclass(frozen=True, slots=True)
class Written:
    """``lacking``: who has a token that is in no file here, so that Prometheus is left without it."""

    directory: Path
    tenants: Sequence[str]
    made: Sequence[str]
    lacking: Sequence[str]


def write(
    connection: psycopg.Connection[Any],
    directory: Path,
    target: str,
    runbook_url: str,
    tenant: str | None = None,
) -> Written:
    """Write ``directory``, and make a token for those who have none yet. Raises OSError, WardError.

    ``target``: HOST:PORT where the metrics are served. A token that was made before is not replaced: others
    may use it. ``tenant``: the slug of the only one that this Prometheus is to read.
    """
    owners = tokens.owners(connection)
    if tenant is not None:
        tenant_id(connection, tenant)
        owners = [owner for owner in owners if owner["path"] == tokens.path(tenant)]
    (directory / TOKENS).mkdir(mode=0o700, parents=True, exist_ok=True)
    made, lacking = [], []
    for owner in owners:
        file = directory / TOKENS / owner["tenant"]
        if owner["made_at"] is None:
            tokens.make(connection, None if owner["tenant"] == "platform" else owner["tenant"], file)
            made.append(owner["tenant"])
        elif not file.exists():
            lacking.append(owner["tenant"])
    served = [owner for owner in owners if owner["tenant"] not in lacking]
    jobs = "".join(_job(owner["tenant"], owner["path"], target) for owner in served)
    head = f"global:\n  scrape_interval: 15s\nrule_files: [{RULES}]\nscrape_configs:\n"
    write_atomically(directory / CONFIGURATION, (head + jobs).encode(), mode=0o644)
    write_atomically(directory / RULES, alerts.rules(runbook_url.rstrip("/")).encode(), mode=0o644)
    return Written(directory, [owner["tenant"] for owner in served], made, lacking)


def _job(tenant: str, path: str, target: str) -> str:
    labels = "" if tenant == "platform" else f", labels: {{tenant: {tenant}}}"
    return (
        f"  - job_name: wardkey-{tenant}\n"
        f"    metrics_path: {path}\n"
        f"    authorization: {{credentials_file: {TOKENS}/{tenant}}}\n"
        f"    static_configs: [{{targets: [{json.dumps(target)}]{labels}}}]\n"
    )
