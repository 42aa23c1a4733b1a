"""``wardkey token`` prints a token that database and keeper take; ``wardkey keeper`` says how it does."""

from __future__ import annotations

import json
import time

import pytest
from wardkey_core.tokens import Issuer, verify

from tests.support.cli import Wardkey


@pytest.fixture
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


def test_the_token_logs_in(wardkey, database):
    arguments = [
        "token",
        "--tenant",
        "acme",
        "--subject",
        "dr.grey",
        "--role",
        "viewer",
        "--dsn",
        database.dsn(),
    ]
    done = wardkey(*arguments)
    assert done.stdout.count("\n") == 1 and done.stdout.count(".") == 2
    with database.tenant("acme") as connection:
        connection.execute("select ward.login_session(%s)", [done.stdout.strip()])
        assert connection.execute("select ward.subject(), ward.role()").fetchone() == ("dr.grey", "VIEWER")
    more = ("--json", "--lifetime", "60", "--purpose", "treatment")
    facts = json.loads(wardkey(*arguments, *more).stdout)
    claims = verify(facts["token"], Issuer.from_document(database.issuer.document()), time.time())
    assert claims.tenant_id == facts["tenant_id"] == str(database.tenant_id("acme"))
    assert claims.expires_at - claims.issued_at == 60 + 60 and claims.purpose == "treatment"
    assert facts["token"] != done.stdout.strip()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"--tenant": "nobody"}, 1),
        ({"--role": "root"}, 2),
        ({"--subject": ""}, 2),
        ({"--subject": "a\nb"}, 2),
        ({"--lifetime": "901"}, 2),
        ({"--lifetime": "0"}, 2),
        ({"--purpose": "p" * 256}, 2),
    ],
    ids=str,
)
def test_bad_input_gets_no_token(wardkey, database, changes, code):
    options = {"--tenant": "acme", "--subject": "x", "--role": "ADMIN", "--dsn": database.dsn(), **changes}
    done = wardkey("token", *(word for option in options.items() for word in option), code=code)
    assert done.stdout == ""


def test_the_keeper_tells_how_it_does(wardkey, cluster):
    facts = wardkey.json("keeper", "status")
    assert facts["provider"] == "local" and facts["pid"] > 0
    assert facts.keys() >= {"version", "started_at", "cached_keys", "kms_calls", "releases", "refusals"}
    assert "local" in wardkey("keeper", "status").stdout
    nowhere = wardkey("keeper", "status", "--socket", "/nonexistent/keeper.sock", code=3)
    assert "wardkey up" in nowhere.stderr
