"""The modules of a backend's first login, compiled into one file.

Each that is looked for and read on its own takes a backend 0.07 ms more. Docstrings and annotations of
functions take it 0.4 ms in all, and are left out. ``python -m wardkey_pg.together`` is run once, by the
interpreter of the server and in the directory that PL/Python imports from. Where the file is missing, or of
another version of Python, the modules are found as usual.

The file also says where modules in C are, which saves a backend the search, and makes two of the many modules
in ``cryptography``'s library loadable without the others (see ``wardkey_core.ciphers``). Those others are
imported by the library itself for a value that does not verify, and it aborts the process where that fails:
so all of it has to be importable here.
"""

from __future__ import annotations

import ast
import marshal
from collections.abc import Iterator
from importlib import import_module
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path

__all__ = ["LIBRARIES", "MODULES", "write"]

MODULES = (  # each behind those that it imports
    "cryptography.__about__",
    "cryptography",
    "cryptography.hazmat",
    "cryptography.hazmat.bindings",
    "wardkey_core",
    "wardkey_core.errors",
    "wardkey_core.identity",
    "wardkey_core.plain_json",
    "wardkey_core.records",
    "wardkey_core.policy",
    "wardkey_core.ciphers",
    "wardkey_core.envelope",
    "wardkey_core.jwk",
    "wardkey_core.tokens",
    "wardkey_core.journal",
    "wardkey_core.wire",
    "wardkey_pg._host",
    "wardkey_pg.keyring",
    "wardkey_pg.keeper",
    "wardkey_pg.reads",
    "wardkey_pg.registry",
    "wardkey_pg.statements",
    "wardkey_pg.ended",
    "wardkey_pg.counts",
    "wardkey_pg.context",
    "wardkey_pg.sealing",
    "wardkey_pg.entry",
)

_RUST = "cryptography.hazmat.bindings._rust"
LIBRARIES = {  # where each module in C is: the library of which module, itself if none is said
    "_json": "_json",
    "_ctypes": "_ctypes",
    "_socket": "_socket",
    "_blake2": "_blake2",
    "_sha256": "_sha256",
    "_sha2": "_sha2",  # since Python 3.12
    f"{_RUST}.openssl.aead": _RUST,
    f"{_RUST}.openssl.ed25519": _RUST,
}


def write(directory: Path) -> None:
    """Compile the modules in ``directory`` into the file that a backend looks for.

    It holds the magic number of this version's code (4 bytes), then two lists: name and path of each module
    in C, relative if it is in ``directory``; name, whether it is a package, and code of each other one.
    """
    modules = []
    for name in MODULES:
        path = directory.joinpath(*name.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = _Lean().visit(ast.parse(source.read_bytes()))
        place = str(source.relative_to(directory))
        code = compile(tree, place, "exec", annotations.compiler_flag, dont_inherit=True, optimize=2)
        modules.append((name, path.is_dir(), code))
    made = marshal.dumps((list(_libraries(directory)), modules))
    (directory / "wardkey_pg" / "together").write_bytes(MAGIC_NUMBER + made)


def _libraries(directory: Path) -> Iterator[tuple[str, str]]:
    import_module("cryptography.exceptions")
    for name, library in LIBRARIES.items():
        spec = find_spec(library)
        if spec is not None and spec.has_location and spec.origin:  # else built in, or not of this version
            path = Path(spec.origin).resolve()
            is_ours = path.is_relative_to(directory.resolve())
            yield name, str(path.relative_to(directory.resolve()) if is_ours else path)


class _Lean(ast.NodeTransformer):
    """Leaves out annotations of functions, and the import of what the compiler is told by a flag."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "__future__" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


if __name__ == "__main__":
    write(Path())
