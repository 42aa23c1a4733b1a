"""A provider is found by its scheme; a package it lacks is named with the command that brings it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wardkey.kms import KmsConfigurationError, load_provider, open_kms

# scheme: extra, a package it brings
EXTRAS = {
    "vault": ("vault", "hvac"),
    "pkcs11": ("pkcs11", "pkcs11"),
    "awskms": ("aws", "boto3"),
    "gcpkms": ("gcp", "google.cloud.kms_v1"),
}


@pytest.mark.parametrize(
    "uri", ["", "local", "hunter2", "hunter2://x", "VAULT://x", "vault", "base:", "_settings:x"]
)
def test_an_unknown_kms_is_said_and_not_repeated(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KmsConfigurationError, match="known schemes: local:") as caught:
        open_kms(uri, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_every_provider_has_its_class() -> None:
    for scheme in ("local", *EXTRAS):
        assert load_provider(f"{scheme}://x").scheme == scheme  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", EXTRAS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(scheme: str) -> None:
    extra, package = EXTRAS[scheme]
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"  # as if it were not installed
        "from wardkey.kms import KmsConfigurationError, load_provider\n"
        f"try: load_provider('{scheme}:')\n"
        "except KmsConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"pip install 'wardkey[{extra}]'" in done.stdout and f"({package}" in done.stdout, done.stderr
