"""An issuer is added to and removed from the database and the keeper together, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.support import providers, tokens
from tests.support.cli import Wardkey
from wardkey.keeper.trust import read_documents

ADD = ["issuer", "add", "--issuer", tokens.ISSUER, "--audience", "wardkey"]


@pytest.fixture
def keeper_directory(tmp_path: Path) -> Path:
    """A keeper's directory of the test's own: the running keeper keeps its issuers."""
    directory = tmp_path / "keeper"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


@pytest.fixture
def on(database, keeper_directory) -> list[str]:
    return ["--dsn", database.dsn(), "--keeper-directory", str(keeper_directory)]


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(
        json.dumps({"keys": [tokens.jwk("EdDSA"), tokens.jwk("ES256"), tokens.jwk("RS256", use="enc")]})
    )
    return path


def known(postgresql: psycopg.Connection, directory: Path) -> tuple[set[str], set[str]]:
    """Who is trusted by the database, beside its embedded issuer, and by the keeper."""
    rows = postgresql.execute("select issuer from ward.issuers where issuer not like 'wardkey:embedded:%'")
    return {row[0] for row in rows}, {
        document["issuer"] for document in read_documents(directory / "issuers.json")
    }


def test_settings_say_what_a_providers_tokens_call_things(wardkey, on, tmp_path, postgresql):
    keycloak, path = tmp_path / "certs.json", str(providers.EXAMPLES / "keycloak.json")
    keycloak.write_bytes(providers.keycloak_jwks())
    wardkey(*ADD, "--jwks", str(keycloak), "--settings", path, "--claim-subject", "preferred_username", *on)
    query = "select document from ward.issuers where issuer = %s"
    (document,) = postgresql.execute(query, [tokens.ISSUER]).fetchone()
    assert document["max_lifetime"] == 300 and document["roles"]["clinician"] == "EVALUATOR"
    assert document["claims"]["subject"] == "preferred_username"
    bad = tmp_path / "bad.json"
    for text, said in (
        ('{"keys": []}', "name issuer, audience or keys"),
        ("[]", "not a JSON object"),
        ('{"claims": "sub"}', "claims: must be a JSON object"),
        ('{"max_lifetime": "x"}', "max_lifetime: must be a number"),
        ('{"roles": {"x": "OWNER"}}', "roles.x: must be one of"),
    ):
        bad.write_text(text)
        assert said in wardkey(*ADD, "--jwks", str(keycloak), "--settings", str(bad), *on, code=1).stderr
    assert postgresql.execute(query, [tokens.ISSUER]).fetchone() == (document,)


def test_add_list_replace_remove(wardkey, on, jwks, postgresql, keeper_directory):
    added = wardkey(
        *ADD, "--jwks", str(jwks), "--claim-tenant", "https://x/tenant", "--max-lifetime", "60", *on
    )
    assert "key-EdDSA, key-ES256" in added.stdout
    assert "keys[2] left out" in added.stderr
    assert known(postgresql, keeper_directory) == ({tokens.ISSUER}, {tokens.ISSUER})
    documents = read_documents(keeper_directory / "issuers.json")
    assert documents == [
        row[0]
        for row in postgresql.execute("select document from ward.issuers where issuer = %s", [tokens.ISSUER])
    ]
    listed = json.loads(wardkey("issuer", "list", "--json", *on).stdout)
    (row,) = [row for row in listed if row["issuer"] == tokens.ISSUER]
    assert row == {
        "issuer": tokens.ISSUER,
        "audience": "wardkey",
        "keys": ["key-EdDSA (EdDSA)", "key-ES256 (ES256)"],
        "claims": {"tenant_id": "https://x/tenant"},
        "max_lifetime": 60,
        "database": True,
        "keeper": True,
    }
    wardkey(*ADD, "--jwks", str(jwks), *on)
    assert read_documents(keeper_directory / "issuers.json")[0]["max_lifetime"] == 900
    wardkey("issuer", "remove", tokens.ISSUER, *on)
    assert known(postgresql, keeper_directory) == (set(), set())
    error = json.loads(wardkey("--json", "issuer", "remove", tokens.ISSUER, *on, code=1).stderr)
    assert error["sqlstate"] == "WK204"


def test_keys_are_refreshed_and_nothing_else(wardkey, on, jwks, postgresql, keeper_directory, tmp_path):
    """By cron: what the provider publishes is believed, what it does not is not."""
    refresh = ["--json", "issuer", "refresh", tokens.ISSUER, *on]
    assert "no such issuer" in wardkey(*refresh, "--jwks", str(jwks), code=1).stderr
    wardkey(*ADD, "--jwks", str(jwks), "--claim-tenant", "https://x/tenant", "--max-lifetime", "60", *on)
    before = read_documents(keeper_directory / "issuers.json")
    query = "select document, xmin::text from ward_internal.issuers where issuer = %s"
    ((document, version),) = postgresql.execute(query, [tokens.ISSUER])

    def refreshed(*keys: object, code: int = 0):
        (tmp_path / "now.json").write_text(json.dumps({"keys": keys}))
        return wardkey(*refresh, "--jwks", str(tmp_path / "now.json"), code=code)

    same = json.loads(refreshed(tokens.jwk("EdDSA"), tokens.jwk("ES256")).stdout)
    assert (same["changed"], same["added"], same["removed"]) == (False, [], [])
    assert postgresql.execute(query, [tokens.ISSUER]).fetchall() == [(document, version)]
    for keys in ([], [tokens.jwk("RS256", use="enc")], [tokens.jwk("EdDSA", d="c2VjcmV0")]):
        refreshed(*keys, code=1)  # a provider that errs takes nobody's keys away
    assert read_documents(keeper_directory / "issuers.json") == before

    rotated = json.loads(refreshed(tokens.jwk("ES256"), tokens.jwk("RS256")).stdout)
    assert (rotated["added"], rotated["removed"]) == (["key-RS256"], ["key-EdDSA"])
    (now, _), (theirs,) = (
        postgresql.execute(query, [tokens.ISSUER]).fetchone(),
        read_documents(keeper_directory / "issuers.json"),
    )
    assert now == theirs
    assert [key.pop("kid") for key in now["keys"]] == ["key-ES256", "key-RS256"]
    assert {**now, "keys": None} == {**document, "keys": None}

    wardkey(*ADD, "--jwks", str(jwks), "--only", "keeper", *on)
    error = wardkey(*refresh, "--jwks", str(jwks), code=1).stderr
    assert "different documents" in error  # it gives nobody's trust to the other


def test_a_database_that_refuses_leaves_the_keeper_as_it_was(wardkey, on, jwks, postgresql, keeper_directory):
    postgresql.execute(
        "create function public.refuse() returns trigger language plpgsql as $$begin raise 'no'; end$$;"
        "create constraint trigger refuse after insert or delete on ward_internal.issuers"
        "  deferrable initially deferred for each row execute function public.refuse()"
    )
    wardkey(*ADD, "--jwks", str(jwks), *on, code=1)  # the statement succeeds, the commit fails
    assert known(postgresql, keeper_directory) == (set(), set())
    postgresql.execute("drop trigger refuse on ward_internal.issuers")
    wardkey(*ADD, "--jwks", str(jwks), *on)
    postgresql.execute(
        "create trigger refuse before delete on ward_internal.issuers"
        "  for each row execute function public.refuse()"
    )
    wardkey("issuer", "remove", tokens.ISSUER, *on, code=1)
    assert known(postgresql, keeper_directory) == ({tokens.ISSUER}, {tokens.ISSUER})


def test_a_keeper_that_cannot_be_written_leaves_the_database_as_it_was(
    wardkey, on, jwks, postgresql, keeper_directory
):
    (keeper_directory / "issuers.json").mkdir()
    wardkey(*ADD, "--jwks", str(jwks), *on, code=1)
    (keeper_directory / "issuers.json").rmdir()
    (keeper_directory / "issuers.json").write_text("{")
    error = wardkey(*ADD, "--jwks", str(jwks), *on, code=1).stderr
    assert "issuers.json" in error and "hint" in error
    (keeper_directory / "issuers.json").unlink()
    assert known(postgresql, keeper_directory) == (set(), set())
    missing = [*on[:3], str(keeper_directory / "elsewhere")]
    assert "is not here" in wardkey(*ADD, "--jwks", str(jwks), *missing, code=1).stderr
    assert known(postgresql, keeper_directory) == (set(), set())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 2),
        (["--jwks", "JWKS", "--jwks-url", "https://x"], 2),
        (["--jwks", "/nonexistent"], 2),
        (["--jwks", "JWKS", "--max-lifetime", "0"], 2),
        (["--jwks-url", "http://id.example/jwks"], 1),
        (["--jwks", "JWKS", "--claim-role", "exp"], 1),
        (["--jwks", "JWKS", "--claim-role", "sub"], 1),
    ],
    ids=str,
)
def test_bad_input_changes_nothing(wardkey, on, jwks, postgresql, keeper_directory, options, code):
    words = [str(jwks) if word == "JWKS" else word for word in options]
    assert wardkey(*ADD, *words, *on, code=code).stderr.startswith("error: ")
    assert known(postgresql, keeper_directory) == (set(), set())


def test_a_private_key_is_not_published(wardkey, on, tmp_path, postgresql, keeper_directory):
    path = tmp_path / "private.json"
    path.write_text(json.dumps({"keys": [tokens.jwk("EdDSA", d="c2VjcmV0")]}))
    done = wardkey(*ADD, "--jwks", str(path), *on, code=1)
    assert "private" in done.stderr and "c2VjcmV0" not in done.stderr
    assert known(postgresql, keeper_directory) == (set(), set())


def test_two_os_users_do_a_half_each(wardkey, database, jwks, postgresql, keeper_directory):
    """A user who reaches the keeper's directory need not reach the database, and the other way round."""
    keeper = ["--only", "keeper", "--keeper-directory", str(keeper_directory), "--dsn", "host=/nowhere"]
    base = ["--only", "database", "--keeper-directory", "/nowhere", "--dsn", database.dsn()]
    wardkey(*ADD, "--jwks", str(jwks), *keeper)
    assert known(postgresql, keeper_directory) == (set(), {tokens.ISSUER})
    wardkey(*ADD, "--jwks", str(jwks), *base)
    assert known(postgresql, keeper_directory) == ({tokens.ISSUER}, {tokens.ISSUER})
    (row,) = json.loads(wardkey("--json", "issuer", "list", *keeper).stdout)
    assert (row["keeper"], row["database"]) == (True, None)
    for half in (base, keeper):
        wardkey("issuer", "remove", tokens.ISSUER, *half)
    assert known(postgresql, keeper_directory) == (set(), set())
