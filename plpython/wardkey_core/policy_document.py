"""A policy as the keeper keeps it, and changes of one cell. Pure.

A policy document, the form in which the keeper keeps it (``policy.json``)::

    {"policy": {"ADMIN": {"identifier": {"access": "clear", "write": true}, …}, …}}
"""

from __future__ import annotations

from .policy import ACCESS, NOTHING, ROLES, Cell, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["changed", "document", "parse"]

_LONGEST = 48


def parse(given: object) -> Policy:
    """Read a policy document. Raises ValueError that says what is wrong, where."""
    if not isinstance(given, dict) or given.keys() != {"policy"} or not isinstance(given["policy"], dict):
        raise ValueError('must be {"policy": {role: {class: {"access": …, "write": …}}}}')
    policy: Policy = {}
    for role, classes in given["policy"].items():
        if role not in ROLES:
            raise ValueError(f"a role that is not one of {', '.join(ROLES)}")
        if not isinstance(classes, dict):
            raise ValueError(f"{role}: must be an object of classes")
        policy[role] = {_class(name): _cell(cell, f"{role}.{name}") for name, cell in classes.items()}
    for name in {name for classes in policy.values() for name in classes}:
        _check(policy, name)
    return policy


def document(policy: Policy) -> dict[str, Any]:
    """Return the document of a policy."""
    return {
        "policy": {
            role: {name: _members(cell) for name, cell in sorted(classes.items())}
            for role, classes in policy.items()
        }
    }


def changed(policy: Policy, role: str, name: str, cell: Cell) -> Policy:
    """Return ``policy`` with another cell. Raises ValueError where that may not be."""
    if role not in ROLES:
        raise ValueError(f"the role must be one of {', '.join(ROLES)}")
    made = {**policy, role: {**policy.get(role, {}), _class(name): _cell(_members(cell), f"{role}.{name}")}}
    _check(made, name)
    return made


def _check(policy: Mapping[str, Mapping[str, Cell]], name: str) -> None:
    if all(classes.get(name, NOTHING).access != "clear" for classes in policy.values()):
        raise ValueError(f"{name}: no role would see this class in the clear any more")


def _members(cell: Cell) -> dict[str, object]:
    return {"access": cell.access, "write": cell.write}


def _class(name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.replace("_", "a").isalnum():
        raise ValueError("a class that has no name of one")
    return name


def _cell(cell: object, where: str) -> Cell:
    if not isinstance(cell, dict) or cell.keys() != {"access", "write"}:
        raise ValueError(f"{where}: must have the members access and write")
    access, write = cell["access"], cell["write"]
    if access not in ACCESS or not isinstance(write, bool):
        raise ValueError(f"{where}: access is one of {', '.join(ACCESS)}, write is true or false")
    if write and access == "none":
        raise ValueError(f"{where}: who writes a class sees at least its mask: an update shows the old row")
    return Cell(access, write)
