"""kms.json: what was written is read; a file that says something else is refused and says where."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from wardkey.kms import KmsConfigurationError, is_same, may_hold
from wardkey.kms.configured import CONFIGURATION_FILE, Configuration, Own, directory_of, read, write

ACME = UUID("0b6f0000-0000-4000-8000-00000000000a")


def test_without_a_file_it_is_the_local_kms(tmp_path: Path) -> None:
    assert read(tmp_path) == Configuration("local:", {}, {})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    whole = Configuration(
        "vault://127.0.0.1:1/transit", {"SOFTHSM2_CONF": "/a b"}, {ACME: "local:"}, ("local:",)
    )
    moved = whole.bring(ACME, Own("vault://b/x", 2), (Own("local:"), Own("awskms://eu-central-1", 1)))
    back = moved.bring(ACME, None, (Own("vault://b/x", 2),))
    for configuration in (whole, moved, back, Configuration("awskms://eu-central-1"), Configuration()):
        write(tmp_path, configuration, owner=(os.geteuid(), os.getegid()))
        assert read(tmp_path) == configuration
    assert (tmp_path / CONFIGURATION_FILE).stat().st_mode & 0o777 == 0o600
    assert [own.place for own in moved.owns(ACME)] == [2, 0, 1] and back.own(ACME) is None
    assert moved.bring(ACME, None) == Configuration(whole.kms, whole.environment, {}, whole.former)
    assert directory_of(tmp_path, ACME, 2) == directory_of(tmp_path, ACME) / "2"
    assert directory_of(tmp_path, ACME) == tmp_path / "tenants" / str(ACME)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"kms": 1}',
        '{"kms": "local"}',
        '{"kms": "local:\\n"}',
        '{"uri": "local:"}',
        '{"environment": []}',
        '{"environment": {"A B": "x"}}',
        '{"environment": {"A": 1}}',
        '{"environment": {"A": "\\u0000"}}',
        '{"tenants": []}',
        '{"tenants": {"acme": {"kms": "local:"}}}',
        '{"former": "awskms://eu-central-1"}',
        '{"former": [1]}',
        '{"former": ["local:"]}',
        '{"kms": "vault://a", "former": ["vault://b"]}',
        f'{{"tenants": {{"{ACME.hex}": {{"kms": "local:"}}}}}}',
        f'{{"tenants": {{"{ACME}": "local:"}}}}',
        f'{{"tenants": {{"{ACME}": {{"kms": "local:", "token": "x"}}}}}}',
        f'{{"tenants": {{"{ACME}": {{}}}}}}',
        f'{{"tenants": {{"{ACME}": {{"place": 1}}}}}}',
        f'{{"tenants": {{"{ACME}": {{"kms": "local:", "place": -1}}}}}}',
        f'{{"tenants": {{"{ACME}": {{"kms": "local:", "place": true}}}}}}',
        f'{{"tenants": {{"{ACME}": {{"former": "local:"}}}}}}',
        f'{{"tenants": {{"{ACME}": {{"kms": "vault://a", "former": [{{"kms": "vault://b"}}]}}}}}}',
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIGURATION_FILE).write_text(content)
    (tmp_path / CONFIGURATION_FILE).chmod(0o600)
    with pytest.raises(KmsConfigurationError, match=CONFIGURATION_FILE):
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
