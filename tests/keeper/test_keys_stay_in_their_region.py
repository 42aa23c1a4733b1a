"""A key is made and opened in the region it was wrapped for only, whatever the registry says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeyRefused, RegionRefused

from tests.support.cli import Wardkey
from tests.support.database import Connection, Database
from tests.support.dumps import dump, empty_database, restore
from tests.support.keepers import ACME, Keeper, reseal_over
from tests.support.sqlstate import refused
from wardkey.embedded import Cluster, Home
from wardkey.kms.configured import Configuration, Entry, write

NIL = "00000000-0000-0000-0000-000000000000"
MOVED = "update ward_internal.tenants set region = 'us' where slug = %s"


def made(keeper: Keeper, region: str, **members: Any) -> dict[str, Any]:
    """Return a new key of that region, as it is asked for."""
    key = keeper.ask(op="provision", tenant=ACME, region=region, **members)
    return {**key, "region": region}


def release(keeper: Keeper, key: dict[str, Any]) -> str:
    asked = {"token": keeper.token(), "classes": ["clinical"], **key}
    return str(keeper.ask(op="release", tenant=ACME, **asked)["classes"]["clinical"])


@pytest.fixture
def german(new_keeper: Keeper) -> Keeper:
    return new_keeper.start("--region", "eu-de")


def test_no_key_of_another_region_is_made_or_opened(german: Keeper) -> None:
    key = made(german, "eu-de")
    assert release(german, key)
    elsewhere = key | {"region": "us"}
    away = german.ask(op="provision", tenant=ACME, region="eu-de") | {"region": "us"}
    requests: list[dict[str, Any]] = [
        {"op": "release", "token": german.token(), "classes": ["clinical"], **elsewhere},
        {"op": "provision", "region": "us"},
        {"op": "provision"},  # anyone who names none means the region "default"
        {"op": "rewrap", **away},
        {"op": "kek", "action": "create", "region": "us"},
        {"op": "kek", "action": "rotate", "region": "us"},
    ]
    for request in requests:
        with pytest.raises(RegionRefused, match=r"does not serve region (us|default)"):
            german.ask(tenant=ACME, **request)
    with german.connect() as connection, pytest.raises(RegionRefused):
        reseal_over(connection, [away], b"", to=1)
    refusals = [line["sqlstate"] for line in german.log_lines() if line["outcome"] == "refused"]
    assert refusals == ["WK240"] * (len(requests) + 1)


def test_a_registry_that_says_another_region_opens_nothing(new_keeper: Keeper) -> None:
    """The keeper serves both: it is the additional data that does not fit, also after a start."""
    keeper = new_keeper.start("--region", "eu-de", "--region", "us")
    assert keeper.status()["regions"] == ["eu-de", "us"]
    key = made(keeper, "eu-de")
    assert release(keeper, key)  # which the keeper has in its cache now
    for _ in range(2):
        with pytest.raises(KeyRefused, match="refused the key"):
            release(keeper, key | {"region": "us"})
        keeper.stop()
        keeper.start("--region", "eu-de", "--region", "us")
    assert release(keeper, key)


def test_derived_keys_are_of_their_masters_region(new_keeper: Keeper) -> None:
    keeper = new_keeper.start("--region", "eu-de", "--region", "us")
    master = keeper.ask(op="provision", tenant=NIL, region="eu-de")
    secret = {name: master[name] for name in ("kek", "kek_version", "wrapped")} | {"master": 1}
    derived = keeper.ask(op="derive", tenant=ACME, version=1, region="eu-de", **secret)
    key = {**secret, "version": 1, **derived, "region": "eu-de"}
    assert release(keeper, key)
    with pytest.raises(KeyRefused):
        release(keeper, key | {"region": "us"})
    keeper.stop()
    keeper.start("--region", "us")
    for region, refusal in (("eu-de", RegionRefused), ("us", KeyRefused)):
        with pytest.raises(refusal):
            release(keeper, key | {"region": region})


def test_regions_of_the_file_are_taken_up_at_once(keeper: Keeper) -> None:
    with pytest.raises(RegionRefused):
        made(keeper, "eu-de")
    write(keeper.directory, Configuration(regions=("eu-de",)))
    assert release(keeper, made(keeper, "eu-de"))
    with pytest.raises(RegionRefused):
        keeper.provision()
    write(keeper.directory, Configuration(regions=("eu-de", "Not One")))
    assert made(keeper, "eu-de")  # what the file said before goes on to hold


@pytest.mark.parametrize("region", ["", "EU", "eu-", "eu--de", "eu de", "x" * 64, "eu\n", None])
def test_what_is_no_region_is_no_request(shared_keeper: Keeper, region: str | None) -> None:
    with pytest.raises(Unsupported):
        shared_keeper.ask(op="provision", tenant=ACME, region=region)


def test_each_region_has_its_own_place_in_a_kms() -> None:
    places = {"eu-de": "projects/p/locations/europe-west3", "us": "projects/p/locations/us-east1"}
    uri = "gcpkms://projects/p/locations/europe-west3?transport=rest"
    configuration = Configuration((Entry(uri, regions=places), Entry("local:", state="left")))
    own = [entry.uri for entry in configuration.of(ACME, "us")]  # type: ignore[arg-type]
    assert own == ["gcpkms://projects/p/locations/us-east1?transport=rest", "local:"]
    assert [entry.uri for entry in configuration.of(ACME, "eu-fr")] == ["local:"]  # type: ignore[arg-type]
    assert len(configuration.of(ACME)) == 3  # type: ignore[arg-type]


@pytest.fixture
def american(cluster: Cluster, template: str) -> Iterator[Keeper]:
    """A keeper of another region that has all else: the KEKs, and trusts the same issuers."""
    keeper = Keeper()
    shutil.copytree(cluster.home.keeper, keeper.directory, dirs_exist_ok=True)
    (keeper.directory / "release.log").unlink()
    for path in (keeper.directory, *keeper.directory.rglob("*")):
        shutil.chown(path, 0, 0)
    keeper.base.chmod(0o755)
    keeper.start("--region", "us", "--allow-uid", str(cluster.home.server_user().uid))
    keeper.socket.chmod(0o666)
    yield keeper
    keeper.remove()


def test_a_dump_beside_another_regions_keeper_opens_nothing(
    database: Database, cluster: Cluster, american: Keeper, tmp_path: Path
) -> None:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute("insert into patients (name) values ('Ada')")
    with empty_database(cluster) as elsewhere:
        restore(elsewhere, dump(database, tmp_path / "all"))
        with elsewhere.admin() as admin:
            admin.execute("select ward.repair_tenant(slug) from ward.tenants")
            with elsewhere.tenant("acme", role="ADMIN") as ward:  # beside its own keeper it does open
                assert ward.execute("select name from patients").fetchall() == [("Ada",)]
            admin.execute("select ward.set('keeper_socket', %s)", [str(american.socket)])
            with elsewhere.tenant("acme", role="ADMIN") as ward, refused("WK240"):
                ward.execute("select name from patients")
            admin.execute(MOVED, ["acme"])
            with elsewhere.tenant("acme", role="ADMIN") as ward, refused("WK103"):
                ward.execute("select name from patients")
    assert [line["sqlstate"] for line in american.log_lines() if line["outcome"] == "refused"] == [
        "WK240",
        "WK103",
    ]


def test_a_tenant_is_made_in_a_region_that_is_served_or_not_at_all(postgresql: Connection) -> None:
    for region, sqlstate in (("us", "WK240"), ("EU", "WK241"), ("", "WK241")):
        with refused(sqlstate):
            postgresql.execute("select ward.create_tenant('elsewhere', p_region => %s)", [region])
    assert postgresql.execute("select from ward.tenants where slug = 'elsewhere'").fetchone() is None
    with refused("WK241"):
        postgresql.execute("select ward.set('region', 'E U')")


def test_up_tenant_list_and_doctor_tell_the_region(new_home: Callable[[], Home]) -> None:
    home = new_home()
    wardkey = Wardkey(home.path)
    events = "select detail ->> 'region' from ward.events where kind = 'provisioned' and slug = 'globex'"
    wardkey("up", "--region", "eu-de", "--region", "eu-fr")
    try:
        wardkey("tenant", "create", "acme")
        wardkey("tenant", "create", "globex", "--region", "eu-fr")
        wardkey("tenant", "create", "hooli", "--mode", "derived")
        refusal = wardkey("tenant", "create", "initech", "--mode", "derived", "--region", "eu-fr", code=1)
        assert "the master secret is of region eu-de" in refusal.stderr
        shown = {row["slug"]: row["region"] for row in wardkey.json("tenant", "list")}
        assert shown == {"acme": "eu-de", "globex": "eu-fr", "hooli": "eu-de"}
        assert "eu-fr" in wardkey("tenant", "list").stdout
        with psycopg.connect(Cluster(home).dsn(), autocommit=True) as admin:
            assert admin.execute(events).fetchall() == [("eu-fr",)]
            admin.execute("update ward_internal.tenants set region = 'us' where slug = 'globex'")
        told = wardkey("--json", "doctor", code=4).stdout
        assert "its key 1 is bound to region eu-fr, the registry has the tenant in us" in told
        assert "of region us, which the keeper does not serve" in told
    finally:
        wardkey("down")
