"""A backup opens on another machine, and the drill says so; without state and identity it does not."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.embedded import Cluster, Home

SECRET = "Augusta Ada"


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Wardkey]:
    """A home with three clinics: one with rows under two keys, one suspended, one empty."""
    directory = make_directory(cluster.home.python)
    wardkey = Wardkey(directory / "home")
    try:
        wardkey("up")
        wardkey("migrate")
        for slug in ("acme", "globex", "empty"):
            wardkey("tenant", "create", slug, "--name", slug)
        insert = (
            "insert into patients (mrn, given, family, birth_date, gender)"
            f" values (gen_random_uuid(), '{SECRET}', 'L', '1815-12-10', 'female')"
        )
        for number in range(3):
            if number == 1:
                with psycopg.connect(Cluster(Home(directory / "home")).dsn()) as admin:
                    admin.execute("select ward.rotate_key('acme', 'test')")
            wardkey("psql", "--tenant", "acme", "--subject", "me", "-qc", insert)
        wardkey("tenant", "suspend", "globex")
        yield wardkey
    finally:
        wardkey("down")
        throw_away(directory)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    made = pyrage.x25519.Identity.generate()
    path = tmp_path_factory.mktemp("age") / "key.txt"
    path.write_text(f"# made by a test\n{made}\n")
    yield str(made.to_public()), path


@pytest.fixture(scope="module")
def backup(served: Wardkey, key: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("backups") / "monday"
    facts = served.json("backup", str(directory), "--recipient", key[0])
    assert facts["state_files"] > 3 and facts["directory"] == str(directory)
    return directory


def test_the_drill_opens_every_tenant_and_leaves_nothing(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Of a server of one's own, whose keeper is told of."""
    home = Home(Path(served.home))
    dsn, directory = Cluster(home).dsn(), tmp_path / "own"
    options = ("--recipient", key[0], "--keeper-directory", str(home.keeper))
    served("--dsn", dsn, "backup", str(directory), *options)
    facts = served.json("restore", str(directory), "--identity", str(key[1]), "--drill")
    tried = {one["tenant"]: one for one in facts["tenants"]}
    assert facts["ok"] and tried.keys() == {"acme", "globex", "empty"}
    assert (tried["acme"]["rows"], tried["acme"]["keys"]) == (3, 2)
    assert tried["acme"]["values"] >= 9
    assert (tried["globex"]["status"], tried["globex"]["keys"], tried["globex"]["rows"]) == (
        "suspended",
        1,
        0,
    )
    assert not Path(facts["home"]).exists()
    assert served.json("status")["running"] is True
    with psycopg.connect(dsn) as admin:  # the drill's issuer is nobody's here
        assert admin.execute("select count(*) from ward.issuers").fetchone() == (1,)


def test_it_is_restored_on_another_machine(
    served: Wardkey, key: tuple[str, Path], backup: Path, new_home: Callable[[], Home]
) -> None:
    home = new_home()
    moved = Wardkey(home.path)
    python = home.path.parent / "python"
    home.python.rename(python)
    home.path.rmdir()
    facts = moved.json("restore", str(backup), "--identity", str(key[1]))
    assert facts["ok"]
    answer = moved(
        "psql", "--tenant", "acme", "--subject", "me", "-qAtc", "select distinct given from patients"
    ).stdout
    assert answer.strip() == SECRET
    checks = json.loads(moved.try_out("--json", "doctor").stdout)
    # what was read since the backup is lost, and that is told for 30 days
    assert [one["check"] for one in checks if one["outcome"] in ("fail", "warn")] == ["journal-whole"]
    assert "something in" in moved("restore", str(backup), "--identity", str(key[1]), code=1).stderr


def test_nothing_of_it_is_in_clear(backup: Path, served: Wardkey) -> None:
    keeper = Home(Path(served.home)).keeper
    secrets = [path.read_bytes() for path in keeper.rglob("*.key")] + [SECRET.encode(), b"SCRAM-SHA-256"]
    assert len(secrets) > 2
    for file in backup.iterdir():
        content = file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
        assert not any(secret in content for secret in secrets), file.name


def _changed(backup: Path, to: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(backup, to)
    change(to)
    return to


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _as_link(path: Path, recipient: str) -> None:
    """A state of somebody who has the recipient only, with a file that leads out of the home."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("keeper/../../../stolen")
        archive.addfile(member, io.BytesIO(b""))
    path.write_bytes(pyrage.encrypt(stream.getvalue(), [pyrage.x25519.Recipient.from_str(recipient)]))


CHANGES: dict[str, Callable[[Path, str], object]] = {
    "another dump": lambda path, _: _flip(path / "wardkey.dump", -1),
    "another state": lambda path, _: _flip(path / "state.tar.age", 400),
    "the end is missing": lambda path, _: (path / "state.tar.age").write_bytes(
        (path / "state.tar.age").read_bytes()[:-30]
    ),
    "a path out of it": lambda path, recipient: _as_link(path / "state.tar.age", recipient),
    "nothing of ours": lambda path, _: (path / "state.tar.age").write_bytes(b"x" * 1000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused_and_leaves_nothing(
    served: Wardkey, key: tuple[str, Path], backup: Path, tmp_path: Path, change: str
) -> None:
    changed = _changed(backup, tmp_path / "changed", lambda path: CHANGES[change](path, key[0]))
    home = Path(served.home)
    before = sorted(home.parent.iterdir())
    done = served("restore", str(changed), "--identity", str(key[1]), "--drill", code=1)
    assert "hint:" in done.stderr and "Traceback" not in done.stderr
    assert sorted(home.parent.iterdir()) == before


def test_another_identity_opens_nothing(served: Wardkey, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    assert (
        "does not open" in served("restore", str(backup), "--identity", str(other), "--drill", code=1).stderr
    )


def test_the_drill_finds_a_tenant_that_does_not_open(
    served: Wardkey, key: tuple[str, Path], backup: Path, tmp_path: Path
) -> None:
    """The state lacks a KEK, as a backup of the keeper from before the tenant was made would."""

    def forget(path: Path) -> None:
        identity = pyrage.x25519.Identity.from_str(key[1].read_text().splitlines()[1])
        plain = pyrage.decrypt((path / "state.tar.age").read_bytes(), [identity])
        with psycopg.connect(Cluster(Home(Path(served.home))).dsn()) as admin:
            (tenant,) = admin.execute("select id::text from ward.tenants where slug = 'acme'").fetchone()  # type: ignore[misc]
        stream = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(plain)) as archive,
            tarfile.open(fileobj=stream, mode="w") as less,
        ):
            names = [one.name for one in archive]
            assert any(tenant in name for name in names), names
            for one in archive:
                if tenant not in one.name:
                    less.addfile(one, archive.extractfile(one))
        (path / "state.tar.age").write_bytes(pyrage.encrypt(stream.getvalue(), [identity.to_public()]))

    changed = _changed(backup, tmp_path / "less", forget)
    facts = json.loads(
        served("restore", str(changed), "--identity", str(key[1]), "--drill", "--json", code=1).stdout
    )
    errors: dict[str, Any] = {one["tenant"]: one["error"] for one in facts["tenants"]}
    assert errors["acme"] and errors["globex"] is None and not facts["ok"]


def test_a_backup_is_whole_or_not_there(
    served: Wardkey, backup: Path, key: tuple[str, Path], tmp_path: Path
) -> None:
    assert "already" in served("backup", str(backup), "--recipient", key[0], code=1).stderr
    assert (
        "not an age recipient" in served("backup", str(tmp_path / "b"), "--recipient", "age1x", code=1).stderr
    )
    nowhere = ("--dsn", f"host={tmp_path} dbname=none", "--keeper-directory", str(tmp_path))
    served(*nowhere[:2], "backup", str(tmp_path / "b"), "--recipient", key[0], *nowhere[2:], code=1)
    assert sorted(tmp_path.iterdir()) == []
