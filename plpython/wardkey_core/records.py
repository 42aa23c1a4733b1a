"""Immutable records with named fields, for what every backend imports.

``Record`` is ``typing.NamedTuple`` to type checkers and in what it does. ``typing`` itself costs each backend
10 ms, with ``re``, ``enum`` and ``collections``, which it imports; what no backend imports uses NamedTuple.
"""

from __future__ import annotations

from operator import itemgetter

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class Record(tuple):
        """A tuple whose items have the names of the class's annotations, and their defaults."""

        __slots__ = ()

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            for place, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(place)))

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                given = cls._defaults | dict(zip(cls._fields, values, strict=False)) | named
                if len(values) > len(cls._fields) or given.keys() != set(cls._fields):
                    raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")
                values = [given[name] for name in cls._fields]
            return super().__new__(cls, values)

        def __repr__(self) -> str:
            fields = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

        def __getnewargs__(self):
            return tuple(self)

        def _replace(self, **named):
            return type(self)(**dict(zip(self._fields, self, strict=True)) | named)
