"""The part of wardkey that runs inside PostgreSQL, behind the PL/Python functions of extension "wardkey".

Everything here but ``_host`` and ``entry`` runs without PostgreSQL. It imports the standard library and
``cryptography`` only, and little of both: every backend pays for it (records are NamedTuples because
``dataclasses`` alone costs 12 ms, ``socket`` and ``uuid`` 3 ms each).
"""

import gc
import os
import sys

__version__ = "0.3.0"


class _Together:
    """Finds the modules of a first login, which module ``together`` compiled into one file."""

    def __init__(self, codes: "dict[str, object]") -> None:
        self._codes = codes

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        from _frozen_importlib import ModuleSpec  # importlib.machinery's, without reading importlib

        if name not in self._codes:
            return None
        spec = ModuleSpec(name, self, is_package="." not in name)  # type: ignore[arg-type]
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(f"{__path__[0].removesuffix(__name__)}{name}")
        return spec

    def create_module(self, spec: object) -> None:
        """Leave it to Python."""

    def exec_module(self, module: object) -> None:
        members = vars(module)
        exec(self._codes.pop(members["__name__"]), members)  # type: ignore[arg-type]  # noqa: S102


def _find_together() -> None:
    """Have the file used, if it is there and of this version of Python."""
    import marshal
    from _frozen_importlib_external import MAGIC_NUMBER

    try:
        with open(f"{__path__[0]}/together", "rb") as file:  # noqa: PTH123
            magic, codes = file.read(len(MAGIC_NUMBER)), file.read()
    except OSError:
        return
    if magic == MAGIC_NUMBER:
        sys.meta_path.insert(0, _Together(marshal.loads(codes)))  # type: ignore[arg-type]  # noqa: S302


if "plpy" in sys.modules:  # in a backend
    gc.disable()  # until ``entry`` is there: it would look again and again through what stays
    os.environ.setdefault("CRYPTOGRAPHY_OPENSSL_NO_LEGACY", "1")  # ciphers that nobody uses, 0.3 ms
    _find_together()
