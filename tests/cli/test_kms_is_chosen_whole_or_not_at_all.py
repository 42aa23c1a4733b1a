"""``wardkey kms use``: keeper and orchestrator are told both or neither; each has its own credential only."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.embedded import Home
from wardkey.embedded.kms_choice import Choice, Side, check_move, forget, serve, sides, use, use_cells
from wardkey.errors import ServerError
from wardkey.keys.kek import Keks
from wardkey.kms import configured

VAULT = "vault://127.0.0.1:1/transit?tls=off"
AWS = "awskms://eu-central-1"


@pytest.fixture
def home() -> Iterator[Home]:
    """Of a server that was never started."""
    directory = make_directory()
    yield Home(directory / "home")
    throw_away(directory)


@pytest.fixture
def wardkey(home) -> Wardkey:
    return Wardkey(home.path)


@pytest.fixture
def credential(tmp_path) -> Path:
    path = tmp_path / "given.json"
    path.write_text(json.dumps({"role_id": "keeper", "secret_id": "s"}))
    return path


@pytest.fixture
def admin_credential(tmp_path) -> Path:
    path = tmp_path / "admin.json"
    path.write_text(json.dumps({"role_id": "orchestrator", "secret_id": "s"}))
    return path


def files(home: Home) -> dict[str, bytes]:
    return {
        str(path.relative_to(home.path)): path.read_bytes()
        for top in (home.keeper, home.orchestrator)
        for path in top.rglob("*")
        if path.is_file()
    }


def test_each_gets_its_own_credential_and_nobody_else_can_read_it(
    wardkey, home, credential, admin_credential
):
    wardkey("kms", "use", VAULT, "--credential", str(credential), "--admin-credential", str(admin_credential))
    keeper, orchestrator = sides(home)
    for side, given in ((keeper, credential), (orchestrator, admin_credential)):
        path = side.directory / "vault.json"
        assert path.read_bytes() == given.read_bytes()
        for file in (path, side.directory / "kms.json"):
            assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (side.owner.uid, 0o600)
        assert (side.directory.stat().st_mode & 0o777, side.read().cell.uri) == (0o700, VAULT)
    (row,) = wardkey.json("kms", "show")["kms"]
    assert row == {
        "for": "cell",
        "tenant_id": None,
        "kms": VAULT,
        "regions": {},
        "managed_with": VAULT,
        "credential": str(home.keeper / "vault.json"),
        "admin_credential": str(home.orchestrator / "vault.json"),
    }
    assert "secret" not in wardkey("kms", "show").stdout


def test_without_a_credential_of_its_own_the_orchestrator_asks_the_keeper(wardkey, home, credential):
    wardkey("kms", "use", VAULT, "--credential", str(credential))
    assert sides(home)[1].read().cell.admin is None
    assert Keks(home.orchestrator, home.keeper_socket).uri(uuid4()) is None
    assert wardkey.json("kms", "show")["kms"][0]["managed_with"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([VAULT], "vault.json is missing"),
        ([VAULT, "--credential", "BAD"], "must hold role_id"),
        ([VAULT, "--credential", "GOOD", "--admin-credential", "BAD"], "orchestrator/vault.json"),
        ([VAULT, "--credential", "GOOD", "--admin-uri", "vault://h?x=y"], "option that is unknown"),
        (["vault://user@h/transit", "--credential", "GOOD"], "without a credential"),
        (["frob://x"], "known schemes"),
        (["local:", "--credential", "GOOD"], "takes no such file"),
        (["pkcs11:token=x?module-path=/no", "--credential", "GOOD", "--ca", "GOOD"], "takes no such file"),
    ],
)
def test_what_cannot_be_used_changes_nothing(wardkey, home, credential, arguments, said):
    bad = credential.with_name("bad.json")
    bad.write_text("{}")
    paths = {"GOOD": str(credential), "BAD": str(bad)}
    wardkey("kms", "use", AWS)
    before = files(home)
    stderr = wardkey("kms", "use", *(paths.get(word, word) for word in arguments), code=1).stderr
    assert said in stderr
    assert files(home) == before


def test_the_operators_own_environment_is_not_taken_for_the_keepers(wardkey):
    assert "missing" in wardkey("kms", "use", VAULT, code=1, VAULT_TOKEN="s.x").stderr
    wardkey("kms", "use", VAULT, "--env", "VAULT_TOKEN=s.x")


@pytest.mark.parametrize(
    ("uri", "package", "extra"),
    [
        ("gcpkms://projects/p/locations/l", "google.cloud.kms_v1", "gcpkms"),
        (AWS, "boto3", "awskms"),
        (VAULT, "hvac", "vault"),
        ("pkcs11:token=x?module-path=/x.so", "pkcs11", "pkcs11"),
        ("azure://x.vault.azure.net", "azure.identity", "azure"),
    ],
)
@pytest.mark.parametrize("command", [["kms", "use", "URI"], ["up", "--kms", "URI"]])
def test_a_missing_package_is_named_with_the_command_that_installs_it(home, uri, package, extra, command):
    words = ["--home", str(home.path), *(uri if word == "URI" else word for word in command)]
    script = (
        f"import sys; sys.modules[{package!r}] = None; from wardkey.cli import main; sys.exit(main({words}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install 'wardkey[{extra}]'" in done.stderr, done.stderr
    assert not (home.keeper / "kms.json").exists()


def test_a_kms_from_before_goes_on_unwrapping_while_keys_are_there(home, credential, admin_credential):
    def left(side: Side) -> list[str]:
        return [each.uri for each in side.read().owned(None) if each.is_left]

    in_vault, in_aws = f"vault:transit/wardkey-{uuid4()}", f"awskms:alias/wardkey-{uuid4()}"
    home.make_directories()
    use(home, Choice(VAULT, credential=credential, admin_credential=admin_credential), needed=())
    keeper, orchestrator = sides(home)
    assert left(keeper) == []
    use(home, Choice(AWS), needed={in_vault})
    assert left(keeper) == left(orchestrator) == [VAULT]
    use(home, Choice(AWS, admin_uri=AWS), needed=None)
    assert left(keeper) == left(orchestrator) == [VAULT]
    use(home, Choice("local:"), needed={in_aws, in_vault})
    assert left(keeper) == left(orchestrator) == [AWS, VAULT]
    use(home, Choice(VAULT), needed={in_vault, in_aws})
    assert left(keeper) == left(orchestrator) == [AWS]
    assert keeper.read().cell.uri == orchestrator.read().cell.uri == VAULT
    use(home, Choice(VAULT), needed={in_vault})
    assert left(keeper) == left(orchestrator) == []


def test_repeating_it_keeps_what_the_orchestrator_was_told(home, credential, admin_credential):
    home.make_directories()
    admin_uri = f"{VAULT}&keeper=wardkey-keeper"
    given = Choice(VAULT, admin_uri, credential, admin_credential)
    assert use(home, given, needed=())  # the keeper runs with local: and has not loaded this
    before = files(home)
    assert not use(home, Choice(VAULT), needed=())
    assert not use(home, given, needed=())
    assert files(home) == before
    assert use(home, Choice(VAULT, credential=admin_credential), needed=())  # it has read the other one
    assert use(home, Choice(VAULT, environment={"A": "b"}), needed=())


def test_a_list_that_the_keepers_user_changed_is_not_believed(home):
    home.make_directories()
    use(home, Choice(AWS, admin_uri=AWS), needed=())
    keeper, orchestrator = sides(home)
    keeper.write(configured.Configuration((configured.Entry("awskms://theirs", admin="awskms://theirs"),)))
    assert Keks(home.orchestrator, home.keeper_socket).uri(uuid4()) == AWS
    serve(home, ["eu-de"])  # whatever is changed next
    for side in (keeper, orchestrator):
        assert (side.read().cell.uri, side.read().cell.admin, side.read().regions) == (AWS, AWS, ("eu-de",))


def test_a_tenants_own_kms_has_a_place_of_its_own_and_leaves_nothing(home, credential, admin_credential):
    home.make_directories()
    use(home, Choice(AWS), needed=())
    tenant, cell = uuid4(), files(home)
    use(home, Choice(VAULT, None, credential, admin_credential), tenant)
    for side, given in zip(sides(home), (credential, admin_credential), strict=True):
        place = configured.directory_of(side.directory, tenant)
        assert [own.uri for own in side.read().owned(tenant)] == [VAULT]
        assert (place / "vault.json").read_bytes() == given.read_bytes()
        for directory in (place, place.parent, place.parent.parent):
            assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (side.owner.uid, 0o700)
    keks = Keks(home.orchestrator, home.keeper_socket)
    assert (keks.uri(tenant), keks.uri(uuid4())) == (VAULT, None)
    forget(home, tenant)
    assert files(home) == cell
    orchestrator = sides(home)[1]  # as when a command was killed between the two files
    said = orchestrator.read()
    orchestrator.write(said.with_owned(tenant, [configured.Entry(VAULT, tenant)]))
    forget(home, tenant)
    assert files(home) == cell


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else's directory is meant")
def test_root_follows_no_link_that_the_keepers_user_made(home, credential, tmp_path):
    home.make_directories()
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    (home.keeper / "tenants").symlink_to(mine)
    with pytest.raises(OSError):
        use(home, Choice(VAULT, credential=credential), uuid4())
    assert (list(mine.iterdir()), mine.stat().st_uid) == ([], 0)


def test_two_keks_of_a_tenant_never_have_one_name(home, credential):
    home.make_directories()
    use(home, Choice(VAULT, credential=credential), needed=())
    with pytest.raises(ServerError, match="mount transit too"):
        check_move(home, "vault://elsewhere:8200")
    check_move(home, "vault://elsewhere:8200/acme")
    check_move(home, AWS)
    tenant = uuid4()
    use(home, Choice("vault://elsewhere:8200", credential=credential), tenant)
    with pytest.raises(ServerError, match="mount transit too"):
        use_cells(home, tenant)


def test_each_of_a_tenants_kmses_has_credentials_of_its_own(home, credential, admin_credential):
    home.make_directories()

    def names(side: Side) -> list[str]:
        return [own.name for own in side.read().owned(tenant)]

    tenant, first, second = uuid4(), "vault://a:8200/a", "vault://b:8200/b"
    kek = f"vault:a/wardkey-{tenant}"
    use(home, Choice(first, None, credential, admin_credential), tenant)
    with pytest.raises(ServerError, match="no Vault credential"):  # the first one's is not sent to the second
        use(home, Choice(second), tenant, needed={kek})
    use(home, Choice(second, second + "?keeper=k", admin_credential, credential), tenant, needed={kek})
    for side, texts in zip(sides(home), ("keeper orchestrator", "orchestrator keeper"), strict=True):
        said = side.read()
        assert [(own.name, own.uri.partition("?")[0]) for own in said.owned(tenant)] == [
            ("1", second),
            ("0", first),
        ]
        files = [configured.directory_of(side.directory, tenant, name) / "vault.json" for name in "01"]
        assert [json.loads(file.read_text())["role_id"] for file in files] == texts.split()
        assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
        assert stat.S_IMODE(files[1].parent.stat().st_mode) == 0o700
    use(home, Choice("vault://elsewhere:1/b"), tenant, needed={kek})  # another address of the second
    assert names(sides(home)[0]) == ["1", "0"]
    use(home, Choice(first), tenant, needed={kek})  # back to the first: its credential is there
    for side in sides(home):
        assert names(side) == ["0"]
        assert not configured.directory_of(side.directory, tenant, "1").exists()
        assert (configured.directory_of(side.directory, tenant) / "vault.json").exists()
    use_cells(home, tenant, needed={kek})
    assert all(own.is_left for side in sides(home) for own in side.read().owned(tenant))
    assert all(names(side) == ["0"] for side in sides(home))
    use_cells(home, tenant, needed=())
    for side in sides(home):
        assert not names(side) and not list((side.directory / "tenants").rglob("*.json"))
