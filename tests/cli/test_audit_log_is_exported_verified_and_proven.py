"""``wardkey audit export``, ``verify``, ``prove`` on a real database whose log was tampered with, or not."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.databases import SCRIPT, Filled, clinic_month
from tests.support.cli import Wardkey
from tests.support.database import Connection, Database
from tests.vectors import check_audit


@pytest.fixture
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


@pytest.fixture
def admin(database: Database) -> Connection:
    with database.admin() as connection:
        yield connection


@pytest.fixture
def log(admin) -> Filled:
    """Ten entries under three checkpoints, one waiting."""
    log = Filled(admin, "acme")
    log.login("dr.jones", minute=0)
    for number in range(9):
        log.read("dr.jones", str(number), minute=number + 1)
        if number in (2, 5, 8):
            log.seal(number + 1.5)
    log.read("dr.jones", "99", minute=20)
    return log


@pytest.fixture
def on(database) -> list[str]:
    return ["--dsn", database.dsn()]


@pytest.fixture
def export(wardkey, on, tmp_path) -> Callable[..., Path]:
    def export(*more: str, name: str = "log.jsonl") -> Path:
        wardkey(*on, "audit", "export", "--tenant", "acme", "--output", str(tmp_path / name), *more)
        return tmp_path / name

    return export


def entry_ids(path: Path) -> list[int]:
    return [int(line["id"]) for line in map(json.loads, path.read_bytes().splitlines()) if "at" in line]


def test_an_export_is_good_and_a_checker_without_our_code_says_the_same(wardkey, log, export):
    path = export()
    assert path.stat().st_mode & 0o777 == 0o600
    facts = wardkey.json("audit", "verify", str(path), "--key", log.fingerprint)
    # beside the read that waits: that the log was exported
    assert (facts["ok"], facts["entries"], facts["unsealed"], facts["checkpoints"]) == (True, 10, 2, 3)
    assert facts["complete_from"] and facts["complete_to"] and facts["keys"] == [log.fingerprint]
    assert log.fingerprint in check_audit.check_export(path.read_bytes())
    assert wardkey("audit", "verify", str(path)).stdout.startswith("good: ")


def test_what_was_exported_is_an_entry(log, export, admin):
    export("--from", "2026-03-02")
    row = admin.execute(
        "select detail ->> 'from', detail ->> 'format' from ward_internal.audit_log"
        " where operation = 'log_exported'"
    ).fetchone()
    assert row == ("2026-03-02T00:00:00.000000Z", "jsonl")


def test_part_of_a_log_is_verified_on_its_own(wardkey, log, export):
    path = export("--from", "2026-03-02T08:04", "--to", "2026-03-02T08:06:10")
    facts = wardkey.json("audit", "verify", str(path), "--key", log.fingerprint)
    assert facts["ok"] and facts["complete_from"] and facts["complete_to"]
    assert (facts["entries"], facts["checkpoints"]) == (3, 2)
    assert json.loads(path.read_bytes().splitlines()[0])["wardkey audit export"]["first"] == 4


def _edit(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("update ward_internal.audit_log set row_id = '1' where id = %s", [ids[4]])


def _delete(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_log where id = %s", [ids[4]])


def _insert(admin: Connection, log: Filled, ids: list[int]) -> None:
    log.put("r", "read", 3.2, row_id="7", columns="name", journalled=True)


def _twin(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute(
        "insert into ward_internal.audit_log (tenant_id, id, at, kind, operation)"
        " select tenant_id, id, at + interval '1 second', kind, operation"
        " from ward_internal.audit_log where id = %s",
        [ids[4]],
    )


def _reorder(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("update ward_internal.audit_log set id = 999999 where id = %s", [ids[4]])
    admin.execute("update ward_internal.audit_log set id = %s where id = %s", [ids[4], ids[5]])
    admin.execute("update ward_internal.audit_log set id = %s where id = 999999", [ids[5]])


def _order(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute(
        "update ward_internal.audit_batches set ids = ids[2:2] || ids[1:1] || ids[3:]"
        " where first_position = 4"
    )


def _cut(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_batches where first_position >= 7")


def _gap(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_batches where first_position = 4")


def _no_checkpoint(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_checkpoints where size = 7")


def _forge(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute(
        "update ward_internal.audit_checkpoints set checkpoint = replace(checkpoint, '08:06', '08:05')"
        " where size = 7"
    )


def _no_json(admin: Connection, log: Filled, ids: list[int]) -> None:
    admin.execute("update ward_internal.audit_checkpoints set checkpoint = '{}' where size = 7")


@pytest.mark.parametrize(
    ("tamper", "kind", "position"),
    [
        (_edit, "edited", 4),
        (_delete, "deleted", 4),
        (_insert, "inserted", None),
        (_twin, "inserted", None),
        (_reorder, "edited", 4),
        (_order, "reordered", 4),
        (_cut, "damaged", None),
        (_gap, "damaged", None),
        (_no_checkpoint, "missing", None),
        (_forge, "forged", None),
        (_no_json, "damaged", None),
    ],
)
def test_a_log_that_was_tampered_with_names_the_first_bad_entry(
    wardkey, on, log, admin, tamper, kind, position
):
    good = wardkey.json(*on, "audit", "verify", "--live", "--tenant", "acme", "--key", log.fingerprint)
    assert good["ok"] and good["entries"] == 10 and good["unsealed"] == 1
    (ids,) = admin.execute(
        "select array_agg(id order by id) from ward_internal.audit_log where tenant_id = %s", [log.tenant]
    ).fetchone()
    tamper(admin, log, ids)
    facts = wardkey.json(*on, "audit", "verify", "--live", "--tenant", "acme", code=4)
    assert (facts["ok"], facts["defect"]["kind"], facts["defect"]["position"]) == (False, kind, position)
    if position == 4 and tamper is _edit:
        assert facts["defect"]["entry"] == str(ids[4])
    assert "BAD" in wardkey(*on, "audit", "verify", "--live", "--tenant", "acme", code=4).stdout


def test_an_edited_line_of_an_export_is_named(wardkey, log, export):
    path = export()
    ids = entry_ids(path)
    path.write_bytes(path.read_bytes().replace(b'"row":"5"', b'"row":"6"'))
    facts = wardkey.json("audit", "verify", str(path), code=4)
    assert facts["defect"]["kind"] == "edited" and facts["defect"]["entry"] == str(ids[6])
    path.write_bytes(path.read_bytes()[:-40])
    assert wardkey.json("audit", "verify", str(path), code=4)["defect"] is not None


def test_a_log_that_was_cut_and_signed_by_the_right_key_does_not_continue_what_was_known(
    wardkey, on, log, admin, tmp_path
):
    live = [*on, "audit", "verify", "--live", "--tenant", "acme"]
    known = str(tmp_path / "known")
    wardkey(*live, "--remember", known)
    assert wardkey.json(*live, "--known", known)["continues_known"] is True
    admin.execute("delete from ward_internal.audit_checkpoints where size > 7")
    admin.execute("delete from ward_internal.audit_batches where first_position >= 7")
    admin.execute("delete from ward_internal.audit_log where row_id in ('6', '7', '8', '99')")
    assert wardkey.json(*live)["ok"]
    facts = wardkey.json(*live, "--known", known, code=4)
    assert facts["defect"]["kind"] == "cut tail"


def test_another_key_is_named_and_refused(wardkey, log, export, tmp_path):
    path = str(export())
    assert wardkey.json("audit", "verify", path, "--key", "00" * 32, code=4)["defect"]["kind"] == "wrong key"
    key = tmp_path / "key"
    key.write_bytes(log.public_key)
    assert wardkey.json("audit", "verify", path, "--key", str(key))["keys_trusted"]
    wardkey("audit", "verify", path, "--key", "no such key", code=2)


def test_one_entry_is_proven_and_no_other(wardkey, on, log, export, tmp_path):
    ids = entry_ids(export())
    one, other = tmp_path / "one", tmp_path / "other"
    wardkey(*on, "audit", "prove", str(ids[5]), "--tenant", "acme", "--output", str(one))
    wardkey("audit", "prove", str(ids[5]), "--export", str(tmp_path / "log.jsonl"), "--output", str(other))
    assert one.read_bytes() == other.read_bytes() and one.stat().st_mode & 0o777 == 0o600
    facts = wardkey.json("audit", "verify", str(one), "--key", log.fingerprint)
    assert (facts["ok"], facts["position"], facts["entry"]["row"]) == (True, 5, "4")
    one.write_bytes(one.read_bytes().replace(b'"row":"4"', b'"row":"5"'))
    assert wardkey.json("audit", "verify", str(one), code=4)["ok"] is False
    assert wardkey.json("audit", "verify", str(other), "--key", "00" * 32, code=4)["ok"] is False
    waiting = str(ids[-1] + 1)
    wardkey(*on, "audit", "prove", waiting, "--tenant", "acme", "--output", str(tmp_path / "no"), code=4)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_says_who_did_what_and_opens_nothing(wardkey, admin, database, export, form):
    log = clinic_month(admin)
    path = export("--format", form, "--to", "2026-03-30", name=f"log.{form}")
    assert path.stat().st_mode & 0o777 == 0o600
    if form == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert rows[5]["at"].utcoffset().total_seconds() == 0
    assert len(rows) == log.tree.end
    assert [int(row["position"]) for row in rows] == list(range(log.tree.end))
    (last,) = [row for row in rows if row["subject"] == SCRIPT and row["operation"] == "read"]
    assert (last["table"], last["row"], last["role"]) == ("patients", "17", "ADMIN")
    columns = last["columns"] if form == "parquet" else last["columns"].split(", ")
    assert columns == ['name of "X"', "ssn"]
    (refusal,) = [row for row in rows if row["operation"] == "refusal"]
    assert refusal["application"] == f"{chr(39) if form == 'csv' else ''}=cmd|{SCRIPT}"


def test_without_pyarrow_parquet_names_what_to_install(on, log, wardkey, tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not here')")
    done = wardkey(
        *on, "audit", "export", "--tenant", "acme", "--format", "parquet", "--output", str(tmp_path / "x"),
        code=1, PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}",
    )  # fmt: skip
    assert "pip install 'wardkey[parquet]'" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".x", "x"))] == []


def test_an_export_is_whole_or_not_there(wardkey, on, log, admin, tmp_path):
    target = tmp_path / "log.jsonl"
    target.write_text("mine")
    wardkey(*on, "audit", "export", "--tenant", "acme", "--output", str(target), code=1)
    assert target.read_text() == "mine"
    admin.execute("delete from ward_internal.audit_batches where first_position = 4")
    wardkey(*on, "audit", "export", "--tenant", "acme", "--output", str(tmp_path / "new"), code=4)
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl"}


def test_the_two_tenants_logs_do_not_meet(wardkey, on, log, admin, tmp_path):
    other = Filled(admin, "globex")
    other.login("eve")
    other.read("eve", "1", minute=1)
    other.seal(2)
    facts = wardkey.json(*on, "audit", "verify", "--live", "--tenant", "globex")
    assert (facts["entries"], facts["keys"]) == (2, [other.fingerprint])
    wardkey(*on, "audit", "export", "--tenant", "globex", "--output", str(tmp_path / "g"))
    assert b"dr.jones" not in (tmp_path / "g").read_bytes()


def test_no_file_steers_the_terminal(wardkey, on, log, tmp_path, admin):
    identity = log.put("e", "login", 21, application="\x1b]0;owned\x07", context=bytes(16))
    log.seal(22)
    path, proof = tmp_path / "log", tmp_path / "proof"
    wardkey(*on, "audit", "export", "--tenant", "acme", "--output", str(path))
    wardkey(*on, "audit", "prove", str(identity), "--tenant", "acme", "--output", str(proof))
    path.write_bytes(path.read_bytes().replace(b'"slug":"acme"', b'"slug":"\\u001b]0;owned\\u0007"'))
    for file in (path, proof):
        said = wardkey("audit", "verify", str(file)).stdout
        assert "\x1b" not in said and "\\x1b]0;owned" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "--live"],
        ["verify", "x", "--live", "--tenant", "acme"],
        ["prove", "1", "--output", "x"],
        ["export", "--tenant", "acme", "--output", "x", "--from", "yesterday"],
        ["export", "--tenant", "acme", "--output", "x", "--from", "2026-03-02", "--to", "2026-03-01"],
    ],
)
def test_wrong_usage(wardkey, arguments):
    wardkey("audit", *arguments, code=2)


def test_an_admin_takes_its_own_log_along_with_psql(wardkey, on, log, database, tmp_path):
    path, proof = tmp_path / "log.jsonl", tmp_path / "proof"
    inside = ["psql", "--tenant", "acme", "--subject", "officer", "--role", "ADMIN"]
    files = {"PGPASSFILE": str(database.cluster.home.pgpass)}
    path.write_text(wardkey(*on, *inside, "-Atqc", "select ward.audit_export()", **files).stdout)
    facts = wardkey.json("audit", "verify", str(path), "--key", log.fingerprint)
    assert (facts["ok"], facts["entries"], facts["unsealed"], facts["checkpoints"]) == (True, 10, 1, 3)
    assert log.fingerprint in check_audit.check_export(path.read_bytes())
    identity = str(entry_ids(path)[5])
    wardkey("audit", "prove", identity, "--export", str(path), "--output", str(proof))
    assert wardkey.json("audit", "verify", str(proof), "--key", log.fingerprint)["entry"]["id"] == identity
    query = "select ward.audit_export('2026-03-02 08:04Z', '2026-03-02 08:06:10Z')"
    path.write_text(wardkey(*on, *inside, "-Atqc", query, **files).stdout)
    facts = wardkey.json("audit", "verify", str(path), "--key", log.fingerprint)
    assert facts["ok"] and facts["complete_from"] and facts["complete_to"]
    assert (facts["entries"], facts["checkpoints"]) == (3, 2)
