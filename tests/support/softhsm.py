"""SoftHSM with a token of the run's own: a module that this process, and those it starts, load."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
LABEL = "wardkey test"


class SoftHsm:
    """One token. The module is told where it is by the environment, once for each process."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="wkhsm"))
        (self.base / "tokens").mkdir()
        configuration = self.base / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {self.base}/tokens\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        self.pin = secrets.token_hex(8)
        self.uri = f"pkcs11:token={LABEL.replace(' ', '%20')}?module-path={MODULE}"
        pins = ["--pin", self.pin, "--so-pin", secrets.token_hex(8)]
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, *pins]
        subprocess.run(command, check=True, capture_output=True)

    def give_to(self, uid: int) -> None:
        self.base.chmod(0o755)
        for path in (self.base / "tokens", *(self.base / "tokens").rglob("*")):
            os.chown(path, uid, uid)

    def remove(self) -> None:
        shutil.rmtree(self.base)


@cache
def the_token() -> SoftHsm:
    """Return the one of this process: its module keeps to the token it found when it was first started."""
    made = SoftHsm()
    atexit.register(made.remove)
    return made
