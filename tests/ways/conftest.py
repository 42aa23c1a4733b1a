"""A database per file, and the client of all its tenants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.database import TENANTS, Database, clone
from wardkey import Wards
from wardkey.embedded import Cluster


@pytest.fixture(scope="module")
def shared(cluster: Cluster, template: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as connection:
            connection.execute(getattr(request.module, "MODELS", ""))
        yield database


@pytest.fixture(scope="module")
def wards(shared: Database) -> Iterator[Wards]:
    slugs = {str(shared.tenant_id(slug)): slug for slug in TENANTS}
    with Wards(
        shared.dsn("tenant_{tenant}"), tenants=slugs, max_size=6, max_per_tenant=3, timeout=5
    ) as wards:
        yield wards
