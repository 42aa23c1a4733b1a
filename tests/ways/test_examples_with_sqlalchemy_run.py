"""The examples with SQLAlchemy run in the reference clinic: docs/examples/orm.py, docs/examples/models.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.dumps import empty_database
from wardkey.embedded import Cluster
from wardkey.embedded.issuer import embedded_issuer
from wardkey.install import migrations

EXAMPLE = Path(__file__).parents[2] / "docs/examples/orm.py"


def test_two_tenants_share_an_engine(cluster: Cluster) -> None:
    with empty_database(cluster) as database:
        migrations.migrate(database.dsn())
        with database.admin() as admin:
            admin.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])
            embedded_issuer(admin, cluster.home)
        slugs = [database.new_tenant() for _ in range(2)]
        tokens = [database.token(slug, tenant=slug) for slug in slugs]
        environment = {
            "WARDKEY_WARD_DSN": database.dsn("tenant_{tenant}"),
            "WARDKEY_TOKENS": " ".join(tokens),
            "PYTHONDONTWRITEBYTECODE": "1",  # beside models.py
        }
        done = subprocess.run(
            [sys.executable, EXAMPLE], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["King ['check-up']", "0 of the other tenant"]
