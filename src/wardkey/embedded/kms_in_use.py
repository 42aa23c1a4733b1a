"""Which KMSes a home uses, for whom, and where the credentials for each are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from ..kms.configured import Configuration
from .home import Home
from .kms_choice import THROUGH_KEEPER, credential_files, sides

__all__ = ["in_use"]


def in_use(home: Home, slugs: Mapping[UUID, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row per KMS, the cell's first, and the names of environment variables the keeper is given."""
    keeper, orchestrator = sides(home)
    rows = list(_rows(keeper.read(), orchestrator.read(), slugs))
    for row in rows:
        if row["managed_with"] == THROUGH_KEEPER:
            row["managed_with"] = None
        names = credential_files(row["kms"])
        for column, side in (("credential", keeper), ("admin_credential", orchestrator)):
            path = side.place(row.get("tenant_id"), row.get("place", 0)) / names[0] if names else None
            row[column] = path if path is not None and path.exists() else None
    return rows, sorted(keeper.read().environment)


def _rows(used: Configuration, managed: Configuration, slugs: Mapping[UUID, str]) -> Iterator[dict[str, Any]]:
    yield {"for": "cell", "kms": used.kms, "managed_with": managed.kms}
    former = {uri.partition(":")[0]: uri for uri in managed.former}
    for uri in used.former:
        with_ = former.get(uri.partition(":")[0], THROUGH_KEEPER)
        yield {"for": "keys from before", "kms": uri, "managed_with": with_}
    for tenant, uri in used.tenants.items():
        yield {
            "for": slugs.get(tenant, str(tenant)),
            "tenant_id": tenant,
            "place": used.places.get(tenant, 0),
            "kms": uri,
            "managed_with": managed.tenants.get(tenant, THROUGH_KEEPER),
        }
    for tenant, owns in used.left.items():
        places = {each.place: each.kms for each in reversed(managed.left.get(tenant, ()))}
        for own in owns:
            yield {
                "for": f"{slugs.get(tenant, tenant)}, keys from before",
                "tenant_id": tenant,
                "place": own.place,
                "kms": own.kms,
                "managed_with": places.get(own.place, THROUGH_KEEPER),
            }
