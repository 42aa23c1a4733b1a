"""Operations of Alembic put as SQL, as far as rules look at it: all types but boolean are text."""

from __future__ import annotations

import ast

from ._strings import fold

__all__ = ["NotSaid", "as_sql"]


class NotSaid(Exception):
    """An argument is made elsewhere."""


class _Arguments:
    def __init__(self, call: ast.Call) -> None:
        self.call = call
        self.named = {keyword.arg: keyword.value for keyword in call.keywords}

    def node(self, place: int, name: str) -> ast.expr | None:
        return self.named.get(name) or (self.call.args[place] if len(self.call.args) > place else None)

    def text(self, place: int, name: str) -> str:
        return _said(self.node(place, name))

    def flag(self, name: str) -> object:
        given = self.named.get(name)
        return given.value if isinstance(given, ast.Constant) else None

    def table(self, place: int = 0, name: str = "table_name", schema: str = "schema") -> str:
        table = self.text(place, name)
        return _quoted(f"{_said(self.named[schema])}.{table}" if schema in self.named else table)

    def columns(self, place: int, name: str) -> str:
        return ", ".join(map(_quoted, _strings(self.node(place, name))))

    @property
    def not_valid(self) -> str:
        return " not valid" if self.flag("postgresql_not_valid") else ""


def as_sql(name: str, call: ast.Call) -> str | None:
    """Return an operation as SQL, None for one that is not known. Raises NotSaid."""
    one = _Arguments(call)
    match name:
        case "create_table":
            return _create_table(one)
        case "add_column":
            made = one.node(1, "column")
            if not isinstance(made, ast.Call):
                raise NotSaid
            return f"alter table {one.table()} add column {_column(made)}"
        case "alter_column":
            column, kind, nullable = one.text(1, "column_name"), one.named.get("type_"), one.flag("nullable")
            actions = [f"type {_type(kind)}"] if kind is not None else []
            actions += [f"{'drop' if nullable else 'set'} not null"] if nullable is not None else []
            changes = ", ".join(f"alter column {_quoted(column)} {action}" for action in actions)
            return f"alter table {one.table()} {changes}" if actions else None
        case "create_index":
            words = "unique index" if one.flag("unique") else "index"
            words += " concurrently" if one.flag("postgresql_concurrently") else ""
            return f"create {words} on {one.table(1)} ({one.columns(2, 'columns')})"
        case "create_unique_constraint":
            return f"alter table {one.table(1)} add unique ({one.columns(2, 'columns')})"
        case "create_check_constraint":
            return f"alter table {one.table(1)} add check ({one.text(2, 'condition')}){one.not_valid}"
        case "create_foreign_key":
            source = one.table(1, "source_table", "source_schema")
            target = one.table(2, "referent_table", "referent_schema")
            columns = one.columns(3, "local_cols")
            return f"alter table {source} add foreign key ({columns}) references {target}{one.not_valid}"
        case "drop_table":
            return f"drop table {one.table()}"
        case "drop_column":
            return f"alter table {one.table()} drop column {_quoted(one.text(1, 'column_name'))}"
        case "protect_table":
            given = one.node(1, "seal")
            return _protect(one.table(), _strings(given) if given is not None else [])
        case "share_table" | "unshare_table" | "unprotect_table":
            return f"select ward.{name.removesuffix('_table')}('{one.table()}')"
        case "add_sealed_column":
            return f"select ward.add_sealed_column('{one.table()}', '{one.text(1, 'column_name')}', 'text')"
        case "change_model_type":
            change = f"alter column {_quoted(one.text(1, 'column_name'))} type {_type(one.node(2, 'type_'))}"
            return f"alter table {one.table()} {change}"
        case "drop_model_column":
            return f"alter table {one.table()} drop column {_quoted(one.text(1, 'column_name'))} cascade"
    return None


def _said(node: ast.AST | None) -> str:
    text = fold(node)
    if text is None:
        raise NotSaid
    return text


def _strings(node: ast.expr | None) -> list[str]:
    """Return a list of strings, or the keys of a dictionary."""
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Dict(keys=parts):
            return [_said(part) for part in parts]
    raise NotSaid


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def _callee(node: ast.AST | None) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return str(getattr(function, "attr", getattr(function, "id", "")))


def _type(node: ast.expr | None) -> str:
    return "boolean" if _callee(node) == "Boolean" else "text"


def _protect(table: str, sealed: list[str]) -> str:
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in sealed)
    return f"select ward.protect('{table}', seal => array[{names}]::text[])"


def _column(call: ast.Call) -> str:
    one = _Arguments(call)
    default = one.named.get("server_default")
    expression = fold(default.args[0]) if isinstance(default, ast.Call) and default.args else None
    parts = [_quoted(one.text(0, "name")), _type(one.node(1, "type_"))]
    parts += [f"default ({expression})"] if expression else []
    parts += ["not null"] if one.flag("nullable") is False else []
    parts += ["primary key"] if one.flag("primary_key") else []
    parts += ["unique"] if one.flag("unique") else []
    for key in call.args[1:]:
        if isinstance(key, ast.Call) and _callee(key) == "ForeignKey":
            parts.append(f"references {_quoted(_said(key.args[0]).rpartition('.')[0])}")
    return " ".join(parts)


def _create_table(one: _Arguments) -> str:
    parts = []
    for part in one.call.args[1:]:
        if not isinstance(part, ast.Call):
            raise NotSaid
        match _callee(part):
            case "Column":
                parts.append(_column(part))
            case "PrimaryKeyConstraint":
                parts.append(f"primary key ({', '.join(_quoted(_said(name)) for name in part.args)})")
            case "UniqueConstraint":
                parts.append(f"unique ({', '.join(_quoted(_said(name)) for name in part.args)})")
            case "ForeignKeyConstraint":
                target = _quoted(_strings(part.args[1])[0].rpartition(".")[0])
                columns = ", ".join(map(_quoted, _strings(part.args[0])))
                parts.append(f"foreign key ({columns}) references {target}")
    return f"create table {one.table()} ({', '.join(parts)})"
