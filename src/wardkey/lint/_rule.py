"""What a rule is, what it looks at, and what it finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, cast

from pglast import ast

from ..install.resources import rule_page

if TYPE_CHECKING:
    from ._model import Project

__all__ = [
    "Finding",
    "Hit",
    "Look",
    "Origin",
    "Rule",
    "Rules",
    "Statement",
    "array",
    "filled",
    "hit",
    "nodes_of",
    "value",
]

Severity = Literal["error", "warning"]
"""error: it fails, or tells what it must not; warning: it does so in some circumstances."""

_HEAD = re.compile(
    r"# (WL\d{3}) ([a-z-]+) \((error|warning)\)\n\nFinding: (.+?)\n\nFix: (.+?)\n\n", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Hit:
    """``values`` go into the rule's message and fix; ``place`` is an offset in the statement's text."""

    values: tuple[str, ...]
    place: int | None = None


def hit(*values: object, at: Any = None) -> Hit:
    """Return a hit at a node, or at the beginning of the statement."""
    place = getattr(at, "location", None)
    return Hit(tuple(map(str, values)), place if place is not None and place >= 0 else None)


Origin = Literal["sql", "body", "python", "executed", "call"]
"""A script, a function's body, a string that looks like SQL, one that is executed, a call of Alembic's."""


@dataclass(eq=False, slots=True)
class Statement:
    """One statement, where it stands, and its nodes by type.

    ``line`` is that of the beginning of ``text``, in which ``start`` and the locations of nodes are offsets.
    ``variables`` are those of a PL/pgSQL function that hold sealed values: name → column → sources.
    """

    path: str
    node: Any
    text: str
    line: int
    start: int
    end: int
    origin: Origin
    nodes: dict[type, list[Any]]
    variables: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    def line_at(self, place: int | None) -> int:
        return self.line + self.text.count("\n", 0, self.start if place is None else place)

    @property
    def words(self) -> str:
        """The statement on one line, by which a baseline knows it."""
        return " ".join(self.text[self.start : self.end].split())


Look = Callable[[Any, Statement, "Project"], Iterator[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """``look`` is called with each node of the types ``on``; the page says all else.

    In ``message`` and ``fix``, {0} is the first of the values of a hit.
    """

    id: str
    name: str
    severity: Severity
    message: str
    fix: str
    page: str
    on: tuple[type, ...]
    look: Look

    @property
    def finds(self) -> str:
        return filled(self.message, *"…" * 9)


@dataclass(frozen=True, slots=True)
class Finding:
    """``begins`` is the line of the statement; ``mark`` is the same while the statement is."""

    rule: Rule
    path: str
    line: int
    begins: int
    message: str
    fix: str
    mark: str

    @classmethod
    def of(cls, rule: Rule, statement: Statement, one: Hit) -> Finding:
        begins, message = statement.line_at(None), filled(rule.message, *one.values)
        mark = sha256(f"{rule.id}\0{message}\0{statement.words}".encode()).hexdigest()[:16]
        line, fix = statement.line_at(one.place), filled(rule.fix, *one.values)
        return cls(rule, statement.path, line, begins, message, fix, mark)


def filled(text: str, *values: str) -> str:
    return re.sub(r"\{(\d)\}", lambda place: values[int(place[1])], text)


class Rules(list[Rule]):
    """The rules of a family, each made of its page in docs/rules and a function by ``rule``."""

    def rule(self, id_: str, *on: type) -> Callable[[Look], Look]:
        page = rule_page(id_)
        head = _HEAD.match(page)
        if head is None or head[1] != id_:
            raise ValueError(f"the page of {id_} does not begin as pages of rules do")
        message, fix = (" ".join(text.split()) for text in head.groups()[3:])

        def add(look: Look) -> Look:
            self.append(Rule(id_, head[2], cast(Severity, head[3]), message, fix, page, on, look))
            return look

        return add


@cache
def _children(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets a node's attributes that hold nodes."""
    slots: Mapping[str, Any] = kind.__slots__
    names = [name for name, slot in slots.items() if slot.c_type.endswith("*") and slot.c_type != "char*"]
    get = attrgetter(*names) if names else lambda node: ()
    return get if len(names) != 1 else lambda node: (get(node),)


def nodes_of(root: Any, stop: type | tuple[type, ...] = ()) -> dict[type, list[Any]]:
    """Return the nodes at and below ``root`` by type, without looking below nodes of ``stop``."""
    by_kind: dict[type, list[Any]] = {}
    todo = [root]
    while todo:
        node = todo.pop()
        kind: Any = type(node)
        if kind is tuple:
            todo += node
        elif issubclass(kind, ast.Node):
            by_kind.setdefault(kind, []).append(node)
            if node is root or not issubclass(kind, stop):
                todo += [child for child in _children(kind)(node) if child is not None]
    return by_kind


def value(node: Any) -> Any:
    """Return what a constant says, a list for an array or '{a, b}'::text[], None for anything else."""
    match node:
        case ast.TypeCast():
            said = value(node.arg)
            is_array = bool(node.typeName.arrayBounds)
            return array(said) if is_array and isinstance(said, str) else said
        case ast.A_ArrayExpr():
            return [value(element) for element in node.elements or ()]
        case ast.NamedArgExpr():
            return value(node.arg)
        case ast.A_Const(val=ast.String()):
            return node.val.sval
        case ast.A_Const(val=ast.Boolean()):
            return bool(node.val.boolval)
        case ast.A_Const(val=ast.Integer()):
            return node.val.ival
        case _:
            return None


def array(text: str) -> list[str]:
    """Return the elements of an array of names as PostgreSQL writes it."""
    return [part.strip().strip('"') for part in text.strip("{} \n").split(",") if part.strip()]
