"""Immutable records with named fields, for what every backend imports.

``Record`` is ``typing.NamedTuple`` to type checkers and in what it does. ``typing`` itself costs each backend
10 ms, with ``re``, ``enum`` and ``collections``, which it imports; what no backend imports uses NamedTuple.
"""

from __future__ import annotations

from _operator import itemgetter  # what module operator is made of, without reading it

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class _Kind(type):
        def __new__(cls, name, bases, members):
            fields = tuple(members.get("__annotations__", ()))
            members["_fields"] = fields
            members["_defaults"] = {field: members[field] for field in fields if field in members}
            members |= {field: property(itemgetter(place)) for place, field in enumerate(fields)}
            return super().__new__(cls, name, bases, {**members, "__slots__": ()})

    class Record(tuple, metaclass=_Kind):
        """A tuple whose items have the names of the class's annotations, and their defaults."""

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                given = dict(zip(cls._fields, values, strict=False))
                whole = cls._defaults | given | named
                if len(values) > len(given) or given.keys() & named or whole.keys() != set(cls._fields):
                    raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}, each once")
                values = [whole[name] for name in cls._fields]
            return super().__new__(cls, values)

        def __repr__(self) -> str:
            fields = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

        def __getnewargs__(self):
            return tuple(self)

        def _replace(self, **named):
            return type(self)(**dict(zip(self._fields, self, strict=True)) | named)
