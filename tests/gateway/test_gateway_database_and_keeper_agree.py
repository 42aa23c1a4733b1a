"""Tokens of Keycloak and Entra ID: gateway, database and keeper read the same tenant, role and subject."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.support import gateways, providers, tokens
from tests.support.database import Database
from wardkey.gateway import AsgiGateway, Trust
from wardkey.identity import issuers

CLAIMS: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "keycloak": lambda tenant, changes: providers.keycloak_claims(time.time(), tenant, **changes),
    "entra": lambda _, changes: providers.entra_claims(time.time(), **changes),
}
SUBJECT = {
    "keycloak": "36fa0f91-f94d-4a0c-afed-6b7d952e47da",
    "entra": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
}
VIEWER: dict[str, dict[str, Any]] = {
    "keycloak": {"resource_access": {"wardkey": {"roles": ["front-desk"]}}},
    "entra": {"roles": ["Ward.FrontDesk"]},
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "keycloak": [
        {"typ": "ID"},
        {"aud": ["wardkey", "portal"]},
        {"tenant_id": tokens.DROP},
        {"resource_access": {"wardkey": {"roles": ["front-desk", "clinic-admin"]}}},
        {"realm_access": {"roles": ["ADMIN"]}, "role": "ADMIN", "resource_access": {}},
    ],
    "entra": [
        {"scp": tokens.DROP},
        {"tid": "9188040d-6c67-4c5b-b112-36a304b66dad"},
        {"roles": ["Ward.Admin", "Ward.FrontDesk"]},
        {"uti": tokens.DROP},
        {"ver": "1.0"},
    ],
}


@pytest.fixture(params=["keycloak", "entra"])
def provider(request: pytest.FixtureRequest, database: Database) -> Iterator[tuple[str, str]]:
    """A provider, registered in the database and the keeper for tenant acme."""
    tenant = str(database.tenant_id("acme"))
    document, keeper = providers.document(request.param, tenant), database.cluster.home.keeper
    with database.admin(autocommit=False) as connection:
        issuers.register(connection, keeper, document)
        yield request.param, tenant
        issuers.remove(connection, keeper, document["issuer"])


def test_all_three_know_who_asks(provider: tuple[str, str], database: Database) -> None:
    name, tenant = provider
    trust = Trust([providers.document(name, tenant)])
    signed = providers.signed(CLAIMS[name](tenant, {}))
    with gateways.serve(AsgiGateway(gateways.echo(), trust)) as port:
        status, seen = gateways.ask(port, gateways.authorization(signed))
        ours = gateways.auth_headers(seen)
        assert status == 200 and ours["xauthtenant"] == [tenant]
        assert ours["xauthrole"] == ["EVALUATOR"] and ours["xauthsubject"] == [SUBJECT[name]]
        with database.tenant("acme") as connection, connection.transaction():
            connection.execute("select ward.login(%s)", [signed])
            connection.execute("insert into patients (name) values ('Ada')")  # under a released key
            assert connection.execute("select name from patients").fetchall() == [("Ada",)]
        viewer = providers.signed(CLAIMS[name](tenant, VIEWER[name]))
        assert gateways.auth_headers(gateways.ask(port, gateways.authorization(viewer))[1])["xauthrole"] == [
            "VIEWER"
        ]
        with database.tenant("acme") as connection, connection.transaction(force_rollback=True):
            connection.execute("select ward.login(%s)", [viewer])
            assert connection.execute("select name from patients").fetchall() == [("Ada",)]
            with pytest.raises(psycopg.Error) as refused, connection.transaction():
                connection.execute("insert into patients (name) values ('Bob')")
            assert refused.value.sqlstate == "WK006"
        with database.tenant("globex") as connection, pytest.raises(psycopg.Error) as other:
            connection.execute("select ward.login(%s)", [signed])
        assert other.value.sqlstate == "WK004"


def test_all_three_refuse_the_same(provider: tuple[str, str], database: Database) -> None:
    name, tenant = provider
    trust = Trust([providers.document(name, tenant)])
    with gateways.serve(AsgiGateway(gateways.echo(), trust)) as port, database.tenant("acme") as connection:
        for changes in REFUSED[name]:
            signed = providers.signed(CLAIMS[name](tenant, changes))
            assert gateways.ask(port, gateways.authorization(signed))[0] == 401, changes
            with pytest.raises(psycopg.Error) as refused:
                connection.execute("select ward.login(%s)", [signed])
            assert refused.value.sqlstate == "WK002", changes
