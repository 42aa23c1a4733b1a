"""docs/examples/fastapi_app.py under uvicorn, as its page says: two tenants, three roles, over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.database import Database
from tests.support.gateways import EXAMPLES, running
from tests.support.ports import free_port


@pytest.fixture
def url(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with database.admin() as admin:
        admin.execute((EXAMPLES / "afternoon/tables.sql").read_text())
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # into docs/
    monkeypatch.setenv("WARDKEY_WARDS_DSN", database.dsn("tenant_{tenant}"))
    monkeypatch.setenv("WARDKEY_ISSUERS", str(database.cluster.home.keeper / "issuers.json"))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app", "--port", str(port)]
    with running([*map(str, command)], tmp_path / "log", "Application startup complete"):
        yield f"http://127.0.0.1:{port}"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_requests_of_two_tenants(url: str, database: Database) -> None:
    def client(slug: str, role: str) -> httpx.Client:
        token = database.token(slug, f"{role} of {slug}", role, tenant=slug)
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    with client("acme", "EVALUATOR") as doctor, client("acme", "ANALYST") as analyst:
        ada = {"mrn": "4711", "name": "Ada Grey", "birth_date": "1991-06-24", "zip": "02287"}
        assert doctor.post("/people", json=ada).json() == 1
        again = doctor.post("/people", json={**ada, "name": "Secret"})
        assert (again.status_code, again.json()["code"]) == (409, "23505") and "Secret" not in again.text
        assert doctor.get("/people").json() == [
            {"id": 1, "mrn": "4711", "birth_date": "1991-06-24", "zip": "02287"}
        ]
        assert doctor.get("/people/1/name").json() == "Ada Grey"
        assert doctor.delete("/people/1").status_code == 403
        assert [row["birth_date"] for row in analyst.get("/people").json()] == ["1991-01-01"]
        hidden = analyst.get("/people/1/name")
        assert (hidden.status_code, hidden.json()["code"]) == (403, "WK232")
        assert analyst.post("/people", json={**ada, "mrn": "1"}).json()["code"] == "WK006"
    with client("globex", "ADMIN") as other:
        assert other.get("/people").json() == []
        assert other.get("/people/1/name").status_code == 404
        assert other.delete("/people/1").status_code == 204
    with client("acme", "ADMIN") as admin:
        assert len(admin.get("/people").json()) == 1
        assert admin.delete("/people/1").status_code == 204
        assert admin.get("/people").json() == []
    assert httpx.get(f"{url}/health").json() == "ok"
    assert httpx.get(f"{url}/people").status_code == 401
