"""kms.json: what was written is read; a file that says something else is refused and says where."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from wardkey.kms import KmsConfigurationError, is_same, may_hold
from wardkey.kms.configured import CONFIGURATION_FILE, Configuration, Entry, directory_of, read, write

ACME = UUID("0b6f0000-0000-4000-8000-00000000000a")


def test_without_a_file_it_is_the_local_kms(tmp_path: Path) -> None:
    assert read(tmp_path) == Configuration((Entry("local:"),), {})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cells = [Entry("vault://127.0.0.1:1/transit"), Entry("local:", state="left")]
    whole = Configuration((*cells, Entry("local:", ACME)), {"SOFTHSM2_CONF": "/a b"})
    own = [
        Entry("local:", ACME, "left"),
        Entry("vault://b/x", ACME, name="2"),
        Entry("aws:", ACME, "left", "1"),
    ]
    moved = whole.with_owned(ACME, own)
    back = moved.with_owned(ACME, [Entry("vault://b/x", ACME, "left", "2")])
    for configuration in (whole, moved, back, Configuration((Entry("awskms://x"),)), Configuration()):
        write(tmp_path, configuration, owner=(os.geteuid(), os.getegid()))
        assert read(tmp_path) == configuration
    assert (tmp_path / CONFIGURATION_FILE).stat().st_mode & 0o777 == 0o600
    assert [own.name for own in moved.owned(ACME)] == ["2", "0", "1"]
    assert [each.label for each in moved.of(ACME)] == ["own/2", "vault", "own/0", "own/1", "local"]
    assert [each.label for each in back.of(ACME)] == ["vault", "own/2", "local"]
    assert moved.with_owned(ACME, ()) == Configuration(tuple(cells), whole.environment)
    assert moved.owned(ACME)[0].directory(tmp_path) == directory_of(tmp_path, ACME, "2")
    assert directory_of(tmp_path, ACME) == tmp_path / "tenants" / str(ACME) / "0"
    assert cells[0].directory(tmp_path) == tmp_path


_VAULT = '{"uri": "vault://a"}'
_OWN = f'{{"uri": "local:", "tenant": "{ACME}"}}'


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "not JSON"),
        ("[]", "object"),
        ("[" * 100_000, "not JSON"),
        (f'{{"kms": [{_VAULT}], "kms": []}}', "twice"),
        ('{"kms": 1}', "array"),
        ('{"kms": []}', "one present"),
        ('{"kms": ["local:"]}', r"\$.kms\[0\]"),
        ('{"kms": [{}]}', "uri"),
        ('{"kms": [{"uri": 1}]}', "uri"),
        ('{"kms": [{"uri": "local"}]}', "uri"),
        ('{"kms": [{"uri": "local:\\n"}]}', "uri"),
        ('{"kms": [{"uri": "local:", "state": "gone"}]}', "state"),
        ('{"kms": [{"uri": "local:", "token": "x"}]}', "token"),
        ('{"kms": [{"uri": "local:", "name": "../x"}]}', "name"),
        ('{"kms": [{"uri": "vault:", "name": "x"}]}', "name"),
        (f'{{"kms": [{_VAULT}, {{"uri": "local:"}}]}}', "one present"),
        (f'{{"kms": [{_VAULT}, {{"uri": "vault://b", "state": "left"}}]}}', "different names"),
        (f'{{"kms": [{_VAULT}, {{"uri": "local:", "tenant": "acme"}}]}}', "tenant"),
        (f'{{"kms": [{_VAULT}, {{"uri": "local:", "tenant": "{ACME}", "name": "x"}}]}}', "number"),
        (f'{{"kms": [{_OWN}]}}', "one present"),
        (f'{{"kms": [{_VAULT}, {_OWN}, {_OWN[:-1]}, "name": "1"}}]}}', "one at most"),
        (f'{{"kms": [{_VAULT}, {_OWN}, {_OWN[:-1]}, "state": "left"}}]}}', "different names"),
        ('{"uri": "local:"}', "uri"),
        ('{"environment": []}', "environment"),
        ('{"environment": {"A B": "x"}}', "environment"),
        ('{"environment": {"A": 1}}', "environment"),
        ('{"environment": {"A": "\\u0000"}}', "environment"),
    ],
)
def test_anything_else_is_refused_and_says_where(tmp_path: Path, content: str, wrong: str) -> None:
    (tmp_path / CONFIGURATION_FILE).write_text(content)
    (tmp_path / CONFIGURATION_FILE).chmod(0o600)
    with pytest.raises(KmsConfigurationError, match=f"{CONFIGURATION_FILE}.*{wrong}"):
        read(tmp_path)


def test_a_file_others_may_change_is_refused(tmp_path: Path) -> None:
    write(tmp_path, Configuration())
    (tmp_path / CONFIGURATION_FILE).chmod(0o666)
    with pytest.raises(KmsConfigurationError, match="chmod 600"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("uri", "its", "anothers"),
    [
        ("vault://a:8200/x/y?tls=off", "vault:x/y/wardkey-1", "vault:x/wardkey-1"),
        ("vault://a", "vault:transit/wardkey-1", "vault:y/wardkey-1"),
        (
            "gcpkms://projects/p/locations/l",
            "gcpkms:projects/p/locations/l/keyRings/r",
            "gcpkms:projects/p/l",
        ),
        ("awskms://eu-central-1", "awskms:alias/wardkey-1", "local:1"),
        ("azure://a.vault.azure.net?hsm=on", "azure:a.vault.azure.net/wardkey-1", "azure:b/wardkey-1"),
        ("pkcs11:token=a?module-path=/x", "pkcs11:wardkey-1", "awskms:alias/wardkey-1"),
    ],
)
def test_a_keks_name_tells_which_kms_may_have_it(uri: str, its: str, anothers: str) -> None:
    assert may_hold(uri, its) and not may_hold(uri, anothers)
    assert is_same(uri, uri) and not is_same(uri, "vault://a:8200/elsewhere")
