"""A backup of a shredded tenant opens neither with the keeper's ledger nor without it.

Only a copy of the keeper's own directory, KEKs and all, does: the certificate says so, and the last test here
shows that it is what keeps the others shut.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database
from tests.support.dumps import bring_back, dump, empty_database, restore
from tests.support.homes import make_directory, throw_away
from wardkey.embedded import Cluster, Home
from wardkey.embedded.issuer import embedded_issuer
from wardkey.tenants.certificate import Certificate

_CLINIC = Path(__file__).parent.parent / "support" / "clinic.sql"


@dataclass(frozen=True)
class Shredded:
    """Tenant ``gone`` was shredded in ``database``; ``backup`` and ``keeper`` are of before."""

    database: Database
    backup: Path
    keeper: Path
    certificate: Path
    passwords: str

    @property
    def home(self) -> Home:
        return self.database.cluster.home

    @contextmanager
    def keeper_changed(self, change: Callable[[Path], object]) -> Iterator[None]:
        """Change the keeper's directory while it does not run."""
        cluster = self.database.cluster
        cluster.keeper.stop()
        kept = self.home.path.with_name("kept")
        shutil.copytree(self.home.keeper, kept)
        try:
            change(self.home.keeper)
            _own(self.home)
            cluster.start()
            yield
        finally:
            cluster.keeper.stop()
            shutil.rmtree(self.home.keeper)
            kept.rename(self.home.keeper)
            _own(self.home)
            cluster.start()


def _own(home: Home) -> None:
    owner = home.keeper_user()
    for path in (home.keeper, *home.keeper.rglob("*")):
        shutil.chown(path, owner.uid, owner.gid)
    home.keeper.chmod(0o700)


@pytest.fixture(scope="module")
def shredded(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shredded]:
    directory, files = make_directory(cluster.home.python), tmp_path_factory.mktemp("files")
    try:
        own = Cluster(Home(directory / "home"), settings={"fsync": "off"})
        own.start()
        database, wardkey = Database(own, "wardkey"), Wardkey(own.home.path)
        with database.admin() as admin:
            admin.execute(_CLINIC.read_bytes())
            embedded_issuer(admin, own.home)
        for slug in ("gone", "stays"):
            wardkey("tenant", "create", slug)
            with database.tenant(slug, role="ADMIN") as ward:
                ward.execute("insert into patients (name) values (%s)", [f"of {slug}"])
        backup = dump(database, files / "backup")
        shutil.copytree(own.home.keeper, files / "keeper")
        code = wardkey.json("tenant", "shred", "gone")["code"]
        wardkey("tenant", "shred", "gone", "--confirm", code, "--certificate", str(files / "certificate"))
        passwords = own.home.pgpass.read_text()
        yield Shredded(database, backup, files / "keeper", files / "certificate", passwords)
    finally:
        throw_away(directory)


def _names(database: Database, slug: str) -> list[tuple[object, ...]]:
    with database.tenant(slug, role="VIEWER") as ward:
        return list(ward.execute("select name from patients").fetchall())


def _refusal(shredded: Shredded) -> psycopg.Error:
    """Restore the backup elsewhere on this server; return how it is refused there."""
    with empty_database(shredded.database.cluster) as elsewhere:
        bring_back(elsewhere, shredded.backup, "gone")
        assert _names(elsewhere, "stays") == [("of stays",)]
        with pytest.raises(psycopg.Error) as refused:
            _names(elsewhere, "gone")
    return refused.value


def test_the_keeper_refuses_it_by_name(shredded: Shredded) -> None:
    refused = _refusal(shredded)
    assert refused.sqlstate == "WK106" and "tenant gone was shredded on" in str(refused)


def test_with_the_keys_of_the_backup_the_ledger_refuses_it_by_name(shredded: Shredded) -> None:
    with shredded.keeper_changed(lambda keeper: _restore_keks(keeper, shredded)):
        refused = _refusal(shredded)
    assert refused.sqlstate == "WK106" and "tenant gone was shredded on" in str(refused)


def test_without_the_ledger_the_kms_refuses_it(shredded: Shredded) -> None:
    with shredded.keeper_changed(lambda keeper: (keeper / "ledger.jsonl").unlink()):
        refused = _refusal(shredded)
    assert refused.sqlstate == "WK103"


def test_only_with_neither_it_would_open(shredded: Shredded) -> None:
    """The test of the tests above: it is ledger and KEK that keep it shut, not an error of ours."""

    def change(keeper: Path) -> None:
        (keeper / "ledger.jsonl").unlink()
        _restore_keks(keeper, shredded)

    with shredded.keeper_changed(change), empty_database(shredded.database.cluster) as elsewhere:
        bring_back(elsewhere, shredded.backup, "gone")
        assert _names(elsewhere, "gone") == [("of gone",)]


def _restore_keks(keeper: Path, shredded: Shredded) -> None:
    shutil.rmtree(keeper / "kek")
    shutil.copytree(shredded.keeper / "kek", keeper / "kek")


def test_its_password_is_forgotten(shredded: Shredded) -> None:
    assert ":tenant_stays:" in shredded.passwords and ":tenant_gone:" not in shredded.passwords


def test_certificate_is_checked_without_any_server(shredded: Shredded, tmp_path: Path) -> None:
    nowhere, file = Wardkey(tmp_path / "no home"), shredded.certificate
    public_key = base64.b64encode(Certificate.parse(file.read_bytes()).public_key).decode()
    shown = nowhere("tenant", "check-certificate", str(file)).stdout
    assert "gone" in shown and public_key in shown and "cannot say itself" in shown
    shown = nowhere("tenant", "check-certificate", str(file), "--public-key", public_key).stdout
    assert "cannot say itself" not in shown
    facts = nowhere.json("tenant", "check-certificate", str(file), "--public-key", public_key)
    assert facts["signed_by_given_key"] is True and facts["tenant"]["slug"] == "gone"
    other = base64.b64encode(bytes(32)).decode()
    assert (
        "another key"
        in nowhere("tenant", "check-certificate", str(file), "--public-key", other, code=1).stderr
    )
    nowhere("tenant", "check-certificate", str(file), "--public-key", "ä", code=2)
    for change in (lambda text: text.replace('"rows": 1', '"rows": 0'), lambda text: text + " "):
        (tmp_path / "changed").write_text(change(file.read_text()))
        error = nowhere("tenant", "check-certificate", str(tmp_path / "changed"), "--json", code=1).stderr
        assert "changed" in json.loads(error)["error"]


def test_the_keepers_public_key_is_the_certificates(shredded: Shredded) -> None:
    public_key = Wardkey(shredded.home.path).json("keeper", "status")["public_key"]
    Certificate.parse(shredded.certificate.read_bytes()).verify(base64.b64decode(public_key))


def test_certificate_is_printed_again_and_is_in_the_backups_from_now_on(
    shredded: Shredded, tmp_path: Path
) -> None:
    again = Wardkey(shredded.home.path)("tenant", "shred", "gone").stdout
    assert again.encode() == shredded.certificate.read_bytes()
    assert shredded.certificate.stat().st_mode & 0o077 == 0
    with empty_database(shredded.database.cluster) as elsewhere:
        restore(elsewhere, dump(shredded.database, tmp_path / "after"))
        with elsewhere.admin() as admin:
            (document,) = admin.execute("select certificate from ward_internal.shreddings").fetchone() or (
                None,
            )
    assert Certificate.from_document(document).to_bytes() == shredded.certificate.read_bytes()
