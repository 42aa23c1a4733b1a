"""The script that ``create extension wardkey`` runs, built and parsed."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pglast
from pglast import ast
from pglast.enums import FunctionParameterMode

SQL = Path(__file__).parents[2] / "sql"


@dataclass
class Function:
    name: str
    types: list[str]
    parameters: list[str]
    language: str = ""
    volatility: str = "volatile"
    parallel: str = "unsafe"
    strict: bool = False
    definer: bool | None = None
    settings: dict[str, list[str]] = field(default_factory=dict)
    body: str = ""

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.types)})"

    @property
    def short(self) -> str:
        return self.name.split(".")[1]


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wardkey_sql_build", SQL / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def scripts() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as directory:
        return {path.name: path.read_text() for path in _module().build(Path(directory))}


def update_script() -> str:
    """Return the script of an update that changes no table."""
    return str(_module().update("")).replace("@VERSION@", _module().version())


def full_script() -> str:
    (name,) = [name for name in scripts() if name.count("--") == 1]
    return re.sub(r"^\\echo.*$", "", scripts()[name], flags=re.M)


@cache
def statements() -> list[Any]:
    return [raw.stmt for raw in pglast.parse_sql(full_script())]


def dotted(names: Any) -> str:
    return ".".join(part.sval for part in names)


def type_name(node: Any) -> str:
    names = [part.sval for part in node.names if part.sval != "pg_catalog"]
    return ".".join(names) + ("[]" if node.arrayBounds else "")


def _constant(value: Any) -> str:
    return str(value.sval if isinstance(value, ast.String) else value.ival)


def _function(node: ast.CreateFunctionStmt) -> Function:
    inputs = (
        FunctionParameterMode.FUNC_PARAM_IN,
        FunctionParameterMode.FUNC_PARAM_DEFAULT,
        FunctionParameterMode.FUNC_PARAM_INOUT,
    )
    given = [p for p in node.parameters or () if p.mode in inputs]
    made = Function(
        dotted(node.funcname), [type_name(p.argType) for p in given], [p.name or "" for p in given]
    )
    for option in node.options:
        match option.defname:
            case "language":
                made.language = option.arg.sval
            case "volatility":
                made.volatility = option.arg.sval
            case "parallel":
                made.parallel = option.arg.sval
            case "strict":
                made.strict = option.arg.boolval
            case "security":
                made.definer = bool(option.arg.boolval)
            case "set":
                made.settings[option.arg.name] = [_constant(value.val) for value in option.arg.args]
            case "as":
                made.body = option.arg[0].sval
    return made


@cache
def functions() -> dict[str, Function]:
    made = [_function(node) for node in statements() if isinstance(node, ast.CreateFunctionStmt)]
    return {function.signature: function for function in made}
