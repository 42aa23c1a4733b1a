"""A backup opens on another machine, and the drill says so; without state and identity it does not."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyrage
import pytest
from wardkey_core import keeper_client, wire

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from tests.support.redis_server import RedisServer
from wardkey.backup.making import digest
from wardkey.daemon import units
from wardkey.daemon.files import identity_of
from wardkey.embedded import Cluster, Home

SECRET = "Augusta Ada"
INSERT = (
    "insert into patients (mrn, given, family, birth_date, gender)"
    f" values (gen_random_uuid(), '{SECRET}', 'L', '1815-12-10', 'female')"
)


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Wardkey]:
    """A home with three clinics: one with rows under two keys, one suspended, one empty; and a cache."""
    directory = make_directory(cluster.home.python)
    redis = RedisServer().start()
    wardkey = Wardkey(directory / "home")
    try:
        wardkey("up")
        wardkey("migrate")
        for slug in ("acme", "globex", "empty"):
            wardkey("tenant", "create", slug, "--name", slug)
        for number in range(3):
            if number == 1:
                with psycopg.connect(Cluster(Home(directory / "home")).dsn()) as admin:
                    admin.execute("select ward.rotate_key('acme', 'test')")
            wardkey("psql", "--tenant", "acme", "--subject", "me", "-qc", INSERT)
        wardkey("tenant", "suspend", "globex")
        wardkey("cache", "use", redis.url)
        wardkey("metrics", "token", "platform")
        yield wardkey
    finally:
        wardkey("down")
        throw_away(directory)
        redis.remove()


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
    assert facts["files"] > 3 and facts["directory"] == str(directory)
    assert facts["method"] == "base" and facts["tenants"] >= 3
    return directory


def seconds_patient() -> Iterator[None]:
    """Yield until a minute has passed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
    raise AssertionError("what was waited for did not come")


def test_the_drill_opens_every_tenant_and_leaves_nothing(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Of a server of one's own, whose keeper is told of."""
    home = Home(Path(served.home))
    dsn, directory = Cluster(home).dsn(), tmp_path / "own"
    options = ("--dump", "--recipient", key[0], "--keeper-directory", str(home.keeper))
    served("--dsn", dsn, "backup", str(directory), *options)
    facts = served.json("restore", str(directory), "--identity", str(key[1]), "--drill")
    tried = {one["tenant"]: one for one in facts["tenants"]}
    assert facts["ok"] and facts["method"] == "dump"
    assert tried.keys() >= {"acme", "globex", "empty", "platform"}
    assert (tried["acme"]["rows"], tried["acme"]["keys"]) == (3, 2)
    assert all(one["entries"] > 0 for one in tried.values())
    assert tried["acme"]["values"] >= 9
    assert (tried["globex"]["status"], tried["globex"]["keys"], tried["globex"]["rows"]) == (
        "suspended",
        1,
        0,
    )
    assert not Path(facts["home"]).exists()
    status = served.json("status")
    assert status["running"] is True and status["backup"]["drill_is_good"] is True
    assert "proven to open" in served("status").stdout
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
    ours, theirs = (each.json("status")["metrics"]["port"] for each in (moved, served))
    assert ours and theirs and ours != theirs
    assert moved.json("cache", "show")["url"] == served.json("cache", "show")["url"]
    assert Cluster(home).invalidator.configured
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


SEALED = """
    select exists (select from ward_internal.audit_batches as b join ward.tenants as t on t.id = b.tenant_id
      where t.slug = 'empty')"""


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


def _short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _say(backup: Path, **members: object) -> None:
    manifest = backup / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | members))


def _agree(backup: Path) -> None:
    """Have the manifest say what the files are now, as somebody who changes both would."""
    _say(backup, files={path.name: digest(path) for path in backup.glob("*.age")})


# what is done to it, and what the refusal says; those of the second list change the manifest, too
CHANGES: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "another database": (lambda path, _: _flip(path / "base.tar.age", -1), "base.tar.age was changed"),
    "a short database": (lambda path, _: _short(path / "base.tar.age"), "base.tar.age was changed"),
    "a short state": (lambda path, _: _short(path / "state.tar.age"), "state.tar.age was changed"),
    "no database": (lambda path, _: (path / "base.tar.age").unlink(), "there is no"),
    "no state": (lambda path, _: (path / "state.tar.age").unlink(), "there is no"),
    "no manifest": (lambda path, _: (path / "manifest.json").unlink(), "there is no"),
    "half a manifest": (lambda path, _: _short(path / "manifest.json"), "is no manifest"),
    "a later wardkey": (lambda path, _: _say(path, wardkey="99.1.0"), "is of wardkey 99.1.0"),
}
SKILLED: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "another database": (lambda path, _: _flip(path / "base.tar.age", -1), "is not the one"),
    "another state": (lambda path, _: _flip(path / "state.tar.age", 400), "does not open"),
    "a short state": (lambda path, _: _short(path / "state.tar.age"), "does not open"),
    "a path out of it": (lambda path, to: _as_link(path / "state.tar.age", to), "no file of it"),
    "nothing of ours": (lambda path, _: (path / "state.tar.age").write_bytes(b"x" * 1000), "not open"),
}


@pytest.mark.parametrize(
    ("change", "is_skilled"), [*((name, False) for name in CHANGES), *((name, True) for name in SKILLED)]
)
def test_what_was_changed_is_refused_and_leaves_nothing(
    served: Wardkey, key: tuple[str, Path], backup: Path, tmp_path: Path, change: str, is_skilled: bool
) -> None:
    do, refusal = (SKILLED if is_skilled else CHANGES)[change]
    changed = _changed(backup, tmp_path / "changed", lambda path: do(path, key[0]))
    if is_skilled:
        _agree(changed)
    home = Path(served.home)
    before = sorted(home.parent.iterdir())
    done = served("restore", str(changed), "--identity", str(key[1]), "--drill", code=1)
    assert refusal in done.stderr and "hint:" in done.stderr
    assert sorted(home.parent.iterdir()) == before


def test_another_identity_opens_nothing(served: Wardkey, backup: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    assert (
        "does not open" in served("restore", str(backup), "--identity", str(other), "--drill", code=1).stderr
    )


def _without(backup: Path, identity_file: Path, name: str) -> None:
    """Take what has ``name`` in its name out of the state."""
    identity = pyrage.x25519.Identity.from_str(identity_file.read_text().splitlines()[1])
    plain = pyrage.decrypt((backup / "state.tar.age").read_bytes(), [identity])
    stream = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive, tarfile.open(fileobj=stream, mode="w") as less:
        names = [one.name for one in archive]
        assert any(name in each for each in names), names
        for one in archive:
            if name not in one.name:
                less.addfile(one, archive.extractfile(one))
    (backup / "state.tar.age").write_bytes(pyrage.encrypt(stream.getvalue(), [identity.to_public()]))
    _agree(backup)


def test_the_drill_finds_a_tenant_that_does_not_open_and_a_log_that_was_altered(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    """The state lacks a KEK, as a backup of the keeper from before the tenant was made would."""
    alter = (
        "update ward_internal.audit_log set application = coalesce(application, '') || %s where id ="
        " (select min(id) from ward_internal.audit_log where tenant_id ="
        " (select id from ward.tenants where slug = 'empty')) returning application"
    )
    with psycopg.connect(Cluster(Home(Path(served.home))).dsn(), autocommit=True) as admin:
        (tenant,) = admin.execute("select id::text from ward.tenants where slug = 'acme'").fetchone()  # type: ignore[misc]
        next(None for _ in seconds_patient() if admin.execute(SEALED).fetchone() == (True,))
        (altered,) = admin.execute(alter, [" or so"]).fetchone()  # type: ignore[misc]
        served("backup", str(tmp_path / "less"), "--recipient", key[0])
        admin.execute(
            "update ward_internal.audit_log set application = nullif(%s, '') where application = %s",
            [altered.removesuffix(" or so"), altered],
        )
    _without(tmp_path / "less", key[1], tenant)
    facts = served.json("restore", str(tmp_path / "less"), "--identity", str(key[1]), "--drill", code=1)
    errors: dict[str, Any] = {one["tenant"]: one["error"] for one in facts["tenants"]}
    assert errors["acme"] and errors["globex"] is None and not facts["ok"]
    assert errors["empty"].startswith("its log is ")
    assert served.json("status")["backup"]["drill_is_good"] is False


def test_a_backup_is_whole_or_not_there(
    served: Wardkey, backup: Path, key: tuple[str, Path], tmp_path: Path
) -> None:
    assert "already" in served("backup", str(backup), "--recipient", key[0], code=1).stderr
    assert (
        "not an age recipient" in served("backup", str(tmp_path / "b"), "--recipient", "age1x", code=1).stderr
    )
    nowhere = ("--dsn", f"host={tmp_path} dbname=none", "--keeper-directory", str(tmp_path))
    served(*nowhere[:2], "backup", str(tmp_path / "b"), "--recipient", key[0], *nowhere[2:], code=3)
    served("backup", str(tmp_path / "b"), code=2)  # nobody could open it
    served("restore", str(backup), "--drill", code=2)
    assert "local:" in served("backup", str(tmp_path / "b"), "--kms", "cell", code=1).stderr
    assert sorted(tmp_path.iterdir()) == []


@contextmanager
def held_up(served: Wardkey) -> Iterator[psycopg.Connection]:
    """Let pg_dump wait until the block ends."""
    with psycopg.connect(Cluster(Home(Path(served.home))).dsn()) as admin:
        admin.execute("lock table ward_internal.metrics_tokens in access exclusive mode")
        yield admin


def dumping(served: Wardkey, to: Path, recipient: str) -> subprocess.Popen[str]:
    """Return a backup that waits in pg_dump."""
    command = served.command("backup", str(to), "--dump", "--recipient", recipient)
    begun = subprocess.Popen(command, env=served.environment(), stderr=subprocess.PIPE, text=True)
    next(None for _ in seconds_patient() if list(to.parent.glob(f".{to.name}.*.partial/wardkey.dump")))
    return begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_ended_leaves_nothing(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path, number: signal.Signals
) -> None:
    with held_up(served), dumping(served, tmp_path / "b", key[0]) as begun:
        begun.send_signal(number)
        assert begun.wait(60) == 130
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_backup_leaves_is_no_backup_and_goes_with_the_next(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    with held_up(served):
        killed, beside = (dumping(served, tmp_path / name, key[0]) for name in ("killed", "beside"))
        with killed:
            killed.kill()
        assert not (tmp_path / "killed").exists() and len(list(tmp_path.glob(".*.partial"))) == 2
        served("backup", str(tmp_path / "next"), "--recipient", key[0])
        (left,) = tmp_path.glob(".*.partial")  # that of the one which still works is let alone
        assert left.name.startswith(".beside.")
    with beside:
        assert beside.wait(60) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "next"]


def test_a_key_version_destroyed_meanwhile_refuses_the_backup(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    with held_up(served):
        begun = dumping(served, tmp_path / "b", key[0])
        tombstone = wire.tombstone("6f1c0000-0000-4000-8000-000000000001", "somebody", 1)
        keeper_client.ask(Home(Path(served.home)).keeper_socket, tombstone)
    with begun:
        assert begun.wait(60) == 1 and begun.stderr
        assert "destroyed meanwhile" in begun.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_a_backup_is_whole_while_rows_and_keys_change(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path
) -> None:
    """Writers go on, tenants come, and a rotation is under way: rows go from one version to the next."""
    served("tenant", "create", "busy", "--name", "busy")
    home = Home(Path(served.home))
    written, stop = [0], threading.Event()

    def write() -> None:
        issuer = served("token", "--tenant", "busy", "--subject", "me", "--role", "admin").stdout.strip()
        with (
            psycopg.connect(Cluster(home).dsn(user="tenant_busy"), autocommit=True) as ward,
            psycopg.connect(Cluster(home).dsn(), autocommit=True) as admin,
        ):
            while not stop.is_set():
                admin.execute("select ward.create_tenant(%s)", [f"busy{written[0]}"])
                with ward.transaction():
                    ward.execute("select ward.login(%s)", [issuer])
                    ward.execute(INSERT)
                written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        next(None for _ in seconds_patient() if written[0] > 5)
        with psycopg.connect(Cluster(home).dsn()) as admin:
            admin.execute("select ward.rotate_key('busy', 'test')")
        before = written[0]
        with subprocess.Popen(served.command("keys", "reseal", "busy"), stdout=subprocess.DEVNULL):
            served("backup", str(tmp_path / "b"), "--recipient", key[0])
        after = written[0]
    finally:
        stop.set()
        writer.join()
    assert after > before
    drill = ("restore", str(tmp_path / "b"), "--identity", str(key[1]), "--drill", "--all-rows")
    facts = served.json(*drill)
    (busy,) = (one for one in facts["tenants"] if one["tenant"] == "busy")
    assert facts["ok"] and busy["keys"] == 2 and before <= busy["rows"] <= after + 1


def test_a_killed_restore_starts_nowhere_and_can_be_done_again(
    served: Wardkey, key: tuple[str, Path], backup: Path, new_home: Callable[[], Home]
) -> None:
    home = new_home()
    moved = Wardkey(home.path)
    shutil.rmtree(home.path)
    command = moved.command("restore", str(backup), "--identity", str(key[1]))
    with subprocess.Popen(command, env=moved.environment(), stderr=subprocess.DEVNULL) as begun:
        next(None for _ in seconds_patient() if (home.path / "postgres.new").exists() or home.data.exists())
        begun.kill()
    assert "cut off" in moved("up", code=1).stderr
    left = identity_of(home.restoring)
    with subprocess.Popen(command, env=moved.environment(), stderr=subprocess.DEVNULL) as begun:
        next(None for _ in seconds_patient() if identity_of(home.restoring) not in (None, left))
        begun.send_signal(signal.SIGINT)
    assert begun.returncode == 130 and not home.path.exists()


def test_who_was_shredded_after_the_backup_stays_so(
    served: Wardkey, key: tuple[str, Path], tmp_path: Path, new_home: Callable[[], Home]
) -> None:
    """The KEKs of local: are in the backup: it is the later ledger that keeps the tenant closed."""
    served("tenant", "create", "gone", "--name", "gone")
    served("psql", "--tenant", "gone", "--subject", "me", "-qc", INSERT)
    served("backup", str(tmp_path / "b"), "--recipient", key[0])
    code = served.json("tenant", "shred", "gone")["code"]
    served("tenant", "shred", "gone", "--confirm", code, "--certificate", str(tmp_path / "certificate"))
    restore = ("restore", str(tmp_path / "b"), "--identity", str(key[1]))

    def gone(facts: dict[str, Any]) -> tuple[Any, ...]:
        assert facts["ok"], facts
        (one,) = (one for one in facts["tenants"] if one["tenant"] == "gone")
        return one["status"], one["keys"], one["rows"]

    assert gone(served.json(*restore, "--drill")) == ("shredded", 0, 0)
    (tmp_path / "none").touch()
    assert gone(served.json(*restore, "--drill", "--ledger", str(tmp_path / "none"))) == ("active", 1, 1)
    served("backup", str(tmp_path / "later"), "--recipient", key[0])
    _without(tmp_path / "later", key[1], "keeper/ledger.jsonl")
    later = ("restore", str(tmp_path / "later"), *restore[2:], "--drill")
    assert gone(served.json(*later)) == ("shredded", 0, 0)
    (tmp_path / "none").write_text("")
    done = served(*later, "--ledger", str(tmp_path / "none"), code=1)
    assert re.search(r"^gone .*shredded.*\S", done.stdout, re.M) and "NOT every tenant" in done.stdout
    assert "scribe started" in done.stderr
    assert "invalidator started" not in done.stderr and "metrics" not in done.stderr
    (tmp_path / "none").write_text("{}\n")
    assert "line 1" in served(*restore, "--drill", "--ledger", str(tmp_path / "none"), code=1).stderr

    home = new_home()
    shutil.rmtree(home.path)
    moved, kept = Wardkey(home.path), Home(Path(served.home)).keeper / "ledger.jsonl"
    facts = moved.json(*restore, "--ledger", str(kept))
    assert gone(facts) == ("shredded", 0, 0) and facts["shredded"] == ["gone"]
    (kek,) = (path for path in (home.keeper / "kek").glob("*.json") if '"active": null' in path.read_text())
    assert '"sealed"' not in kek.read_text()
    assert moved.try_out("psql", "--tenant", "gone", "--subject", "me", "-c", "select 1").returncode


def test_timers_back_up_and_try_what_was_backed_up() -> None:
    """What sh makes of the units' lines, after systemd has taken its own signs out."""
    files = units.units("timers")
    lines = {}
    for name in ("backup", "drill"):
        (line,) = re.findall(r"^ExecStart=(/bin/sh -c '.*')$", files[f"wardkey-{name}.service"], re.M)
        script = re.sub(r"exec \S+", "exec echo", line.replace("%%", "%").replace("$$", "$"))
        script = script.replace(units.BACKUPS, "/usr/share/doc/../../..")
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, env={"OPTIONS": "--a 'b c'"}, check=True
        )
        lines[name] = done.stdout
        assert f"OnCalendar={'daily' if name == 'backup' else 'weekly'}" in files[f"wardkey-{name}.timer"]
    assert re.fullmatch(r"backup \S+/20\d\d-\d\d-\d\dT\d{6} --a 'b c'\n", lines["backup"])
    assert lines["drill"].startswith("restore ") and "--drill" in lines["drill"]
