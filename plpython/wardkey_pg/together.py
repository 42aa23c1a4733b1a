"""The modules of a backend's first login, compiled into one file.

Each that is looked for and read on its own takes a backend 0.07 ms more. Docstrings and annotations of
functions take it 0.4 ms in all, and are left out. ``python -m wardkey_pg.together`` is run once, by the
interpreter of the server and in the directory that PL/Python imports from. Where the file is missing, or of
another version of Python, the modules are found as usual.
"""

from __future__ import annotations

import ast
import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path

__all__ = ["MODULES", "write"]

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
    "wardkey_pg.context",
    "wardkey_pg.sealing",
    "wardkey_pg.entry",
)


def write(directory: Path) -> None:
    """Compile the modules in ``directory`` into the file that a backend looks for.

    It holds the magic number of this version's code (4 bytes), then a list: name, whether it is a package,
    and code of each.
    """
    modules = []
    for name in MODULES:
        path = directory.joinpath(*name.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = _Lean().visit(ast.parse(source.read_bytes()))
        place = str(source.relative_to(directory))
        code = compile(tree, place, "exec", annotations.compiler_flag, dont_inherit=True, optimize=2)
        modules.append((name, path.is_dir(), code))
    (directory / "wardkey_pg" / "together").write_bytes(MAGIC_NUMBER + marshal.dumps(modules))


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
