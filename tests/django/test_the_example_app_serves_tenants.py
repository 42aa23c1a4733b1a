"""docs/examples/django_app, as its page says: set up, migrated, served by WSGI and by ASGI over a socket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep

import httpx
import pytest

from tests.support.database import Database, clone
from tests.support.ports import free_port
from wardkey.embedded import Cluster

APP = Path(__file__).parents[2] / "docs/examples/django_app"
SERVERS = {
    "wsgi": ["manage.py", "runserver", "--noreload", "{port}"],
    "asgi": ["-m", "uvicorn", "--log-level", "warning", "--port", "{port}", "practice.asgi:application"],
}


class App:
    """The app on a database of its own."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database = database
        config = database.cluster.home.config()
        assert config is not None
        passwords = directory / "pgpass"
        passwords.touch(0o600)
        passwords.write_text(database.cluster.home.pgpass.read_text() + "*:*:*:practice:of this test\n")
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "practice.settings",
            "PYTHONDONTWRITEBYTECODE": "1",  # docs stay as they are
            "PGHOST": str(database.cluster.home.run),
            "PGPORT": str(config.port),
            "PGDATABASE": database.name,
            "PGPASSFILE": str(passwords),
            "SECRET_KEY": "of this test",
            "DJANGO_SUPERUSER_PASSWORD": "of this test",
        }

    def manage(self, *words: str, **more: str) -> str:
        command = [sys.executable, "-W", "error", "manage.py", *words]
        done = subprocess.run(
            command, cwd=APP, env={**self.environment, **more}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def served(self, how: str) -> Iterator[str]:
        port = str(free_port())
        command = [sys.executable, *(word.replace("{port}", port) for word in SERVERS[how])]
        url = f"http://127.0.0.1:{port}"
        with subprocess.Popen(command, cwd=APP, env=self.environment, stdout=subprocess.DEVNULL) as server:
            try:
                while True:
                    assert server.poll() is None
                    try:
                        httpx.get(url, timeout=60)
                        break
                    except httpx.ConnectError:
                        sleep(0.05)
                yield url
            finally:
                server.terminate()

    def as_whom(self, url: str, tenant: str, **claims: str) -> httpx.Client:
        token = self.database.token(tenant, tenant=tenant, **claims)
        return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60)


@pytest.fixture(scope="module")
def app(cluster: Cluster, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with clone(cluster, template) as database, database.admin() as admin:
        app = App(database, tmp_path_factory.mktemp("app"))
        psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", database.dsn(), "-f", APP / "setup.sql"]
        subprocess.run(psql, check=True)
        try:
            admin.execute("alter role practice password 'of this test'")
            app.manage("migrate", "--database", "owner", "-v0", OWNER="postgres")
            app.manage("migrate", "-v0")
            yield app
        finally:
            admin.execute("drop owned by practice cascade; drop role practice")


def test_it_is_complete(app: App) -> None:
    app.manage("makemigrations", "--check", "--dry-run")
    app.manage("makemigrations", "--check", "--dry-run", OWNER="postgres")
    app.manage("check", "--fail-level", "WARNING")


@pytest.mark.parametrize("how", SERVERS)
def test_each_tenant_has_its_own(app: App, how: str) -> None:
    ann = {"number": how, "name": "Ann", "born": "1960-01-02"}
    visit = {"treatment": "D1110", "begins": "2026-03-01T12:00:00Z", "finding": "fine"}
    with app.served(how) as url, ExitStack() as stack:
        acme, globex, viewer = (
            stack.enter_context(app.as_whom(url, tenant, **claims))
            for tenant, claims in (("acme", {}), ("globex", {}), ("acme", {"role": "VIEWER"}))
        )
        assert acme.post("/clients", json=ann).status_code == 201
        assert acme.post(f"/clients/{how}/appointments", json=visit).json() == {
            "appointments": [["2026-03-01T12:00:00Z", "Cleaning", "fine"]]
        }
        assert {"number": how, "name": "Ann"} in acme.get("/clients").json()["clients"]
        assert globex.get("/clients").json() == {"pages": 1, "clients": []}
        assert globex.get(f"/clients/{how}/appointments").status_code == 404
        assert viewer.post("/clients", json={**ann, "number": "2"}).status_code == 403
        assert httpx.get(f"{url}/clients", timeout=60).status_code == 401


def test_the_admin_shows_the_ward_of_the_token(app: App) -> None:
    app.manage("createsuperuser", "--noinput", "--username", "root", "--email", "")
    with app.served("wsgi") as url, app.as_whom(url, "acme") as browser:
        browser.post("/clients", json={"number": "admin", "name": "Ann of the admin", "born": "1960-01-02"})
        browser.get("/admin/login/")
        form = {
            "username": "root",
            "password": "of this test",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        assert browser.post("/admin/login/?next=/admin/", data=form).status_code == 302
        assert "Ann of the admin" in browser.get("/admin/practice/client/", params={"q": "admin"}).text
        assert browser.get("/admin/practice/client/", headers={"authorization": ""}).status_code == 401
