"""The modules of a backend in one file, beside their packages: finding each by itself takes 0.1 ms.

The file is made with the directory of packages: ``python -m wardkey_pg._bundle DIRECTORY``. It has what .pyc
files have: the magic number of the interpreter, then marshalled code. Where there is none, or one of another
interpreter, modules are imported as always.
"""

from __future__ import annotations

import marshal
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

__all__ = ["FILE", "use"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

FILE = "wardkey.modules"
_CRYPTOGRAPHY = (  # what is imported on the way to its library
    "cryptography/__init__.py",
    "cryptography/__about__.py",
    "cryptography/hazmat/__init__.py",
    "cryptography/hazmat/bindings/__init__.py",
)


def use(directory: str) -> None:
    """Import what the bundle of ``directory`` has from there."""
    try:
        with open(f"{directory}/{FILE}", "rb") as file:  # noqa: PTH123 - no pathlib in a backend
            content = file.read()
    except OSError:
        return
    if content.startswith(MAGIC_NUMBER):
        modules = marshal.loads(content[len(MAGIC_NUMBER) :])  # noqa: S302 - code, as trusted as a .pyc there
        sys.meta_path.insert(0, _Bundle(directory, modules))


class _Bundle:
    """Finder and loader of ``modules``: by name the place of the source, and code."""

    def __init__(self, directory: str, modules: Mapping[str, tuple[str, bytes]]) -> None:
        self._directory = directory
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in self._modules:
            return None
        place = f"{self._directory}/{self._modules[name][0]}"
        spec = ModuleSpec(name, self, origin=place)  # type: ignore[arg-type]
        spec.has_location = True
        if place.endswith("/__init__.py"):
            spec.submodule_search_locations = [place.removesuffix("/__init__.py")]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        exec(marshal.loads(self._modules[module.__name__][1]), module.__dict__)  # noqa: S102, S302


def _make(directory: str) -> None:
    """Write the bundle of a directory of packages."""
    from pathlib import Path

    base = Path(directory)
    ours = [*base.glob("wardkey_core/*.py"), *base.glob("wardkey_pg/*.py")]
    modules: dict[str, tuple[str, bytes]] = {}
    for file in (*ours, *(base / name for name in _CRYPTOGRAPHY)):
        place = file.relative_to(base).as_posix()
        name = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        code = compile(file.read_bytes(), place, "exec", dont_inherit=True)
        modules[name] = (place, marshal.dumps(code))
    (base / FILE).write_bytes(MAGIC_NUMBER + marshal.dumps(modules))


if __name__ == "__main__":
    _make(sys.argv[1])
