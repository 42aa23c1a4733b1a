"""Promtool takes what wardkey metrics config writes; tokens are in files of mode 0600, replaced by nobody."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import yaml

from tests.metrics.conftest import SLUGS, Service
from tests.support.database import Connection
from wardkey.metrics import tokens
from wardkey.monitoring import prometheus


def test_promtool_takes_it_and_its_tokens_work(service: Service, admin: Connection, directory: Path) -> None:
    slug = service.database.new_tenant()
    target = f"127.0.0.1:{service.port}"
    written = prometheus.write(admin, directory, target, "https://runbooks.example/")
    assert written.made == [slug] and {"platform", *SLUGS} <= set(written.lacking)
    program = shutil.which("promtool")
    assert program
    checked = subprocess.run(
        [program, "check", "config", str(directory / prometheus.CONFIGURATION)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr
    (job,) = yaml.safe_load((directory / prometheus.CONFIGURATION).read_text())["scrape_configs"]
    assert job["metrics_path"] == f"/metrics/{slug}"
    assert job["static_configs"] == [{"targets": [target], "labels": {"tenant": slug}}]
    file = directory / job["authorization"]["credentials_file"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    token = file.read_text()
    assert prometheus.write(admin, directory, target, "runbooks").made == []
    assert file.read_text() == token
    service.tokens[slug] = token
    assert service.value(slug, "wardkey_transactions_total") == 0
    admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    tokens.drop(admin, None)
    service.tokens[None] = tokens.make(admin, None)
