"""Each request is a transaction of its token's tenant: Django's test client on a real database."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import AsyncClient, Client, override_settings
from django.views import debug

from tests.support.database import Database
from wardkey.access import budgets


class Site:
    """Django's test client with tokens of one tenant."""

    def __init__(self, database: Database, tenant: str) -> None:
        self.client, self.database, self.tenant = Client(raise_request_exception=False), database, tenant

    def headers(self, **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.database.token(self.tenant, **claims)}"}

    def get(self, path: str = "/persons", **claims: Any) -> Any:
        return self.client.get(path, headers=self.headers(**claims))

    def add(self, mrn: str, name: str, **more: str) -> Any:
        return self.client.post("/persons", {"mrn": mrn, "name": name, **more}, headers=self.headers())

    def names(self) -> Any:
        return self.get().json()["names"]


@pytest.fixture(autouse=True)
def nothing_left(site: Database) -> Iterator[None]:
    """After each test nothing is open, and the tables are empty."""
    yield
    wards = connections["wards"]
    assert wards.connection is None and wards.get_autocommit() and not wards.in_atomic_block
    with site.admin() as admin:
        busy = "select usename from pg_stat_activity where datname = current_database() and state <> 'idle'"
        assert admin.execute(busy).fetchall() == [("postgres",)]
        admin.execute("delete from hospital.persons")


@pytest.fixture
def acme(site: Database) -> Site:
    return Site(site, "acme")


@pytest.fixture
def globex(site: Database) -> Site:
    return Site(site, "globex")


def test_two_tenants_by_turns_and_at_once(acme: Site, globex: Site) -> None:
    for number in range(3):
        assert acme.add(str(number), f"A{number}").status_code == 200
        assert globex.add(str(number), f"G{number}").status_code == 200
    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(lambda site: (site.tenant, site.names()), [acme, globex] * 20))
    names = {"acme": ["A0", "A1", "A2"], "globex": ["G0", "G1", "G2"]}
    assert all(answer == names[tenant] for tenant, answer in seen)


def test_a_request_without_a_good_token_is_refused(acme: Site, site: Database) -> None:
    acme.add("1", "Ann")
    stranger = site.issuer.sign_token("0b6f0000-0000-4000-8000-00000000000b", "x", "ADMIN")
    for header, status, challenge in (
        ({}, 401, "Bearer"),
        ({"authorization": "Basic YTpi"}, 401, "Bearer"),
        ({"authorization": "Bearer nonsense"}, 401, 'Bearer error="invalid_token"'),
        ({"authorization": f"Bearer {expired(site, 'acme')}"}, 401, 'Bearer error="invalid_token"'),
        ({"authorization": f"Bearer {stranger}"}, 403, None),
    ):
        answer = acme.client.get("/persons", headers=header)
        assert (answer.status_code, answer.get("WWW-Authenticate")) == (status, challenge)
        assert b"Ann" not in answer.content
    assert acme.names() == ["Ann"]
    assert acme.client.get("/nothing").status_code == 200  # no statement, no login


def expired(database: Database, tenant: str) -> str:
    """A token that was good an hour ago."""
    header, body, _ = database.token(tenant).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims |= {name: claims[name] - 3600 for name in ("iat", "nbf", "exp")}
    signed = f"{header}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}"
    signature = base64.urlsafe_b64encode(database.issuer._key.sign(signed.encode()))
    return f"{signed}.{signature.decode().rstrip('=')}"


def test_a_tenant_that_is_suspended_between_two_requests(site: Database) -> None:
    slug = site.new_tenant()
    connections.settings["wards"]["OPTIONS"]["wards"]["tenants"][str(site.tenant_id(slug))] = slug
    late = Site(site, slug)
    late.add("1", "Ann")
    with site.admin() as admin:
        admin.execute("select ward.suspend_tenant(%s)", [slug])
        refused = late.get()
        assert (refused.status_code, refused.content) == (403, b"wardkey: tenant is not active\n")
        admin.execute("select ward.resume_tenant(%s)", [slug])
        assert late.names() == ["Ann"]


def test_an_error_in_a_view_takes_its_writes_back(acme: Site) -> None:
    assert acme.add("1", "Ann", fail="yes").status_code == 500
    assert acme.add("2", "Bob").json() == {"names": ["Bob"]}


@contextmanager
def served() -> Iterator[str]:
    """The site on a socket, all requests in one thread, as a worker of a server has them."""
    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=_Quiet) as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not to stderr."""


def test_what_a_view_leaves_open_is_over_with_its_request(acme: Site, globex: Site) -> None:
    with served() as url:
        for site in (acme, globex) * 2:
            assert httpx.get(f"{url}/leaves", headers=site.headers(), timeout=60).status_code == 200
            for other in (acme, globex):
                answer = httpx.get(f"{url}/persons", headers=other.headers(), timeout=60)
                assert answer.json() == {"names": []}
            assert httpx.get(f"{url}/persons", timeout=60).status_code == 401


def test_a_statement_outside_of_a_transaction_is_refused(acme: Site) -> None:
    with override_settings(DEBUG=True):
        answer = acme.get("/outside")
    assert answer.status_code == 500
    assert b"is outside of a transaction" in answer.content


def test_a_role_sees_what_the_policy_leaves_it(acme: Site) -> None:
    acme.add("1", "Ann")
    hidden = acme.get(role="ANALYST")
    assert hidden.status_code == 403 and b"may not see columns of this class" in hidden.content
    assert (
        acme.client.post(
            "/persons", {"mrn": "2", "name": "B"}, headers=acme.headers(role="VIEWER")
        ).status_code
        == 403
    )
    assert acme.get(role="VIEWER").json() == {"names": ["Ann"]}


def test_a_budget_that_is_used_up_is_no_fault_of_the_server(acme: Site, site: Database) -> None:
    for mrn in "123":
        acme.add(mrn, "Ann")
    keeper = site.cluster.home.keeper
    with site.admin() as admin:
        budgets.set_(admin, keeper, "acme", "VIEWER", "hospital.persons", 2)
        try:
            spent = acme.get(role="VIEWER")
        finally:
            budgets.drop(admin, keeper, "acme", "VIEWER", "hospital.persons")
    assert spent.status_code == 429 and b"used up" in spent.content
    assert acme.get(role="VIEWER").status_code == 200


def test_a_template_may_query(acme: Site) -> None:
    """Django renders it after the view's transaction."""
    acme.add("1", "Ann")
    assert acme.get("/rendered").content == b"Ann;\n"
    assert acme.client.get("/rendered").status_code == 401


def test_async_views(acme: Site, globex: Site) -> None:
    acme.add("1", "Ann")
    globex.add("1", "Gus")

    async def ask() -> list[Any]:
        client = AsyncClient()
        sites = [acme, globex] * 10
        requests = [
            client.get(path, headers=one.headers())
            for one in sites
            for path in ("/persons/async", "/persons", "/rendered")
        ]
        return [answer.content.decode() for answer in await asyncio.gather(*requests)]

    answers = asyncio.run(ask())
    for number, answer in enumerate(answers):
        mine, other = ("Ann", "Gus") if number // 3 % 2 == 0 else ("Gus", "Ann")
        assert mine in answer and other not in answer


def test_no_page_and_no_log_has_the_token(acme: Site, caplog: pytest.LogCaptureFixture) -> None:
    """With DEBUG, Django logs statements with their parameters and shows the variables of frames."""
    headers = acme.headers()
    token = headers["authorization"].split()[1]
    with override_settings(DEBUG=True), caplog.at_level(logging.DEBUG, "django.db.backends"):
        for path in ("/fails", "/outside"):
            page = acme.client.get(path, headers=headers)
            assert page.status_code == 500 and b"Local vars" in page.content
            assert token.split(".")[2] not in page.content.decode()
        acme.client.post("/persons", {"mrn": "1", "name": "Ann Secret"}, headers=headers)
        logged = [query["sql"] for query in connections["wards"].queries]
        assert acme.client.get("/persons", headers={"authorization": f"Bearer {token}x"}).status_code == 401
    told = "\n".join([record.getMessage() + repr(record.__dict__) for record in caplog.records])
    for text in (told, repr(logged)):
        assert 'INSERT INTO "persons"' in text
        assert not any(word in text for word in (token.split(".")[2], "ward.login", "Ann Secret"))


@pytest.fixture
def without_values() -> Iterator[None]:
    debug.get_default_exception_reporter_filter.cache_clear()
    with override_settings(
        DEBUG=True, DEFAULT_EXCEPTION_REPORTER_FILTER="wardkey.django.reporting.WithoutValues"
    ):
        yield
    debug.get_default_exception_reporter_filter.cache_clear()


def test_a_report_can_be_without_values(acme: Site, without_values: None) -> None:
    page = acme.get("/fails").content.decode()
    assert "value too long for type character varying(40)" in page and "Local vars" in page
    assert "Ann Secret" not in page
    page = acme.add("1", "Ann Secret", fail="yes").content.decode()
    assert "after the insert" in page and "Ann Secret" not in page
