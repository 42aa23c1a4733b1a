"""The rules, by family: a module each."""

from __future__ import annotations

from .._rule import Rule
from . import client, flow, locks, names, reading, tenancy

__all__ = ["BY_TYPE", "FAMILIES", "RULES"]

FAMILIES: dict[str, list[Rule]] = {
    "Reading": reading.RULES,
    "Tenancy": tenancy.RULES,
    "PHI flow": flow.RULES,
    "Names": names.RULES,
    "Locks": locks.RULES,
    "Clients": client.RULES,
}
RULES: dict[str, Rule] = {rule.id: rule for members in FAMILIES.values() for rule in members}
BY_TYPE: dict[type, list[Rule]] = {}
"""The rules that look at nodes of a type."""

for _rule in RULES.values():
    for _type in _rule.on:
        BY_TYPE.setdefault(_type, []).append(_rule)
