"""The directory of Python packages that PL/Python imports: ``cryptography`` and ``wardkey_pg``.

It is filled by the interpreter of the server, byte-compiled, owned by whoever fills it and readable by
everybody, so that the OS user of the server cannot change the code it runs. Also a command, for any server::

    python -m wardkey.server.pythonpath --pg-config PG_CONFIG DIRECTORY
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

import wardkey_pg

from ..errors import ServerError
from .processes import run
from .software import Software

__all__ = ["REQUIREMENT", "STAMP", "fill"]

REQUIREMENT = "cryptography>=43"
STAMP = "wardkey.stamp"


def fill(directory: Path, interpreter: Path) -> bool:
    """Make ``directory`` hold what the server needs; True when it had to be made or renewed."""
    stamp = _stamp(interpreter)
    old, draft = directory.with_name(f"{directory.name}.old"), directory.with_name(f"{directory.name}.new")
    if not directory.exists() and old.exists():
        old.rename(directory)
    if _read(directory / STAMP) == stamp:
        return False
    for leftover in (old, draft):
        shutil.rmtree(leftover, ignore_errors=True)
    draft.mkdir(mode=0o755, parents=True)
    draft.chmod(0o755)
    _install(draft, interpreter)
    (draft / STAMP).write_text(stamp)
    if directory.exists():
        directory.rename(old)
    draft.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _install(directory: Path, interpreter: Path) -> None:
    shutil.copytree(_module(), directory / "wardkey_pg", ignore=shutil.ignore_patterns("__pycache__"))
    install = ["install", "--quiet", "--only-binary=:all:", "--no-warn-script-location"]
    install += ["--root-user-action=ignore", "--target", str(directory), REQUIREMENT]
    run(
        [*_pip(interpreter), *install],
        f"cannot install {REQUIREMENT} for the server's Python",
        hint="pip must reach a package index, or find wheels through PIP_FIND_LINKS",
    )
    run([str(interpreter), "-m", "compileall", "-q", str(directory)], "cannot byte-compile")
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _pip(interpreter: Path) -> list[str]:
    """Return pip of that interpreter, else ours working for it (environment markers must be the server's)."""
    for command in (
        [str(interpreter), "-m", "pip"],
        [sys.executable, "-m", "pip", "--python", str(interpreter)],
    ):
        try:
            run([*command, "--version"], "no pip")
        except ServerError:
            continue
        return command
    raise ServerError(f"{interpreter} has no pip", "apt-get install python3-pip")


def _stamp(interpreter: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(_module().rglob("*.py")):
        digest.update(f"{file.relative_to(_module())}\0".encode() + file.read_bytes() + b"\0")
    version = run([str(interpreter), "-c", "import sys; print(sys.version)"], f"{interpreter} does not run")
    return f"{REQUIREMENT}\n{version.strip()}\nwardkey_pg {digest.hexdigest()}\n"


def _module() -> Path:
    return Path(wardkey_pg.__path__[0])


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None


def _main() -> int:
    parser = argparse.ArgumentParser(description="Fill a directory with the packages PL/Python imports.")
    parser.add_argument("--pg-config", default="pg_config")
    parser.add_argument("directory", type=Path)
    given = parser.parse_args()
    try:
        bindir = run([given.pg_config, "--bindir"], f"{given.pg_config} failed").strip()
        software = Software.at(Path(bindir)) or Software.newest()
        given.directory.parent.mkdir(parents=True, exist_ok=True)
        changed = fill(given.directory.resolve(), software.interpreter)
    except ServerError as error:
        print(f"error: {error.message}\n hint: {error.hint}", file=sys.stderr)
        return 1
    print(f"{given.directory}: {'filled' if changed else 'up to date'} for {software.interpreter}")
    environment = f"/etc/postgresql/{software.major}/main/environment"
    print(f"let the server find it: PYTHONPATH = '{given.directory}' in {environment}, then restart it")
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
