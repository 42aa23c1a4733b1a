"""Which KMSes a home uses, for whom, and where the credentials for each are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from .home import Home
from .kms_choice import credential_files, sides

__all__ = ["in_use"]


def in_use(home: Home, slugs: Mapping[UUID, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per KMS, the cell's first, and the names of environment variables the keeper is given."""
    keeper, orchestrator = sides(home)
    used = orchestrator.read()
    rows = []
    for entry in used.kms:
        whose = "cell" if entry.tenant is None else slugs.get(entry.tenant, str(entry.tenant))
        row: dict[str, Any] = {
            "for": f"{whose}, keys from before" if entry.is_left else whose,
            "tenant_id": entry.tenant,
            "kms": entry.uri,
            "regions": entry.regions,
            "managed_with": entry.admin,
        }
        names = credential_files(entry.uri)
        for column, side in (("credential", keeper), ("admin_credential", orchestrator)):
            path = entry.directory(side.directory) / names[0] if names else None
            row[column] = path if path is not None and path.exists() else None
        rows.append(row)
    return rows, sorted(used.environment)
