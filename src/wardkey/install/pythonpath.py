"""The directory of Python packages that PL/Python imports: ``cryptography`` and our own modules.

It is filled by the interpreter of the server, byte-compiled, owned by the user who fills it and readable by
everybody, so that the OS user of the server cannot change the code it runs.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import wardkey_core
import wardkey_pg

from ..daemon.programs import clean_environment, run
from ..errors import ServerError

__all__ = ["REQUIREMENT", "STAMP", "fill"]

REQUIREMENT = "cryptography>=43"
STAMP = "wardkey.stamp"

_OURS = {package.__name__: Path(package.__path__[0]) for package in (wardkey_core, wardkey_pg)}


def fill(directory: Path, interpreter: Path) -> bool:
    """Make ``directory`` hold what the server needs; True when it had to be made or renewed."""
    packages, module = _stamps(interpreter)
    old, draft = directory.with_name(f"{directory.name}.old"), directory.with_name(f"{directory.name}.new")
    if not directory.exists() and old.exists():
        old.rename(directory)
    present = _read(directory / STAMP)
    if present == packages + module:
        return False
    for leftover in (old, draft):
        shutil.rmtree(leftover, ignore_errors=True)
    if present.startswith(packages):
        shutil.copytree(directory, draft, ignore=shutil.ignore_patterns(*_OURS))
    else:
        draft.mkdir(parents=True)
        _install_packages(draft, interpreter)
    for name, source in _OURS.items():
        shutil.copytree(source, draft / name, ignore=shutil.ignore_patterns("__pycache__"))
    # unchecked: no backend looks at the sources, which nobody changes in place
    compile_all = [str(interpreter), "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    run([*compile_all, str(draft)], "cannot byte-compile")
    together = [str(interpreter), "-B", "-X", "no_debug_ranges", "-m", "wardkey_pg.together"]
    run(together, "cannot byte-compile", environment=clean_environment(), directory=draft)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    (draft / STAMP).write_text(packages + module)
    if directory.exists():
        directory.rename(old)
    draft.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _install_packages(directory: Path, interpreter: Path) -> None:
    install = ["install", "--quiet", "--only-binary=:all:", "--no-warn-script-location"]
    install += ["--root-user-action=ignore", "--target", str(directory), REQUIREMENT]
    run(
        [*_pip(interpreter), *install],
        f"cannot install {REQUIREMENT} for the server's Python",
        hint="pip must reach a package index, or find wheels through PIP_FIND_LINKS",
    )


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


def _stamps(interpreter: Path) -> tuple[str, str]:
    """Return what the packages depend on, and what our own modules do."""
    digest = hashlib.sha256()
    for name, source in _OURS.items():
        for file in sorted(source.rglob("*.py")):
            digest.update(f"{name}/{file.relative_to(source)}\0".encode() + file.read_bytes() + b"\0")
    version = run([str(interpreter), "-c", "import sys; print(sys.version)"], f"{interpreter} does not run")
    return f"{REQUIREMENT}\n{version.strip()}\n", f"wardkey {digest.hexdigest()}\n"


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
