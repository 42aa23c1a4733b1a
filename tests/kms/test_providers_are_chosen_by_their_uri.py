"""A provider is found by its scheme; a package it lacks is named with the command that brings it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from wardkey.kms import KmsConfigurationError, may_hold, open_kms, provider_of, providers, schemes

from .benches import ACME

# scheme, which is also the extra's name: a package that brings
EXTRAS = {
    "vault": "hvac",
    "pkcs11": "pkcs11",
    "awskms": "boto3",
    "gcpkms": "google.cloud.kms_v1",
    "azure": "azure.keyvault.keys",
}


@pytest.mark.parametrize(
    "uri", ["", "local", "hunter2", "hunter2://x", "VAULT://x", "vault", "base:", "_settings:x"]
)
def test_an_unknown_kms_is_said_and_not_repeated(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KmsConfigurationError, match="known schemes: awskms:, azure:") as caught:
        open_kms(uri, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_every_provider_has_its_class() -> None:
    assert schemes() == sorted(("local", *EXTRAS))
    for scheme in schemes():
        assert provider_of(f"{scheme}://x").scheme == scheme


def test_a_provider_is_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(inspect.getfile(provider_of("local:"))).read_text()
    (tmp_path / "drawer.py").write_text(source.replace('"local"', '"drawer"').replace("local:", "drawer:"))
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    opened = open_kms("drawer:", tmp_path)
    assert "drawer" in schemes() and opened.create_kek(ACME).name == f"drawer:{ACME}"
    assert may_hold("drawer:", f"drawer:{ACME}") and not may_hold("drawer:", f"local:{ACME}")


@pytest.mark.parametrize("scheme", EXTRAS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(scheme: str) -> None:
    package = EXTRAS[scheme]
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"  # as if it were not installed
        "from wardkey.kms import KmsConfigurationError, provider_of\n"
        f"try: provider_of('{scheme}:')\n"
        "except KmsConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"pip install 'wardkey[{scheme}]'" in done.stdout and f"({package}" in done.stdout, done.stderr
