"""``Sealed``: a field of Django whose column is sealed, of a class and with a mask that a migration keeps."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core import checks
from django.db.models import Field

__all__ = ["Sealed", "SealedField"]


def Sealed(field: Any, *, classified: str = "clinical", mask: str | None = None) -> Any:  # noqa: N802
    """Return ``field`` for a sealed column: ``Sealed(models.DateField(), classified="quasi", mask="year")``.

    ``classified``: the class, which decides who sees it. ``mask``: what roles see that see the class masked;
    by default what the class says. Both can be changed by a migration, the type cannot.
    """
    _, _, arguments, options = field.deconstruct()
    declared: Any = type(field)
    sealed = _sealed(declared)(*arguments, **options)
    sealed.classified, sealed.mask = classified, mask
    return sealed


class SealedField(Field):
    """What the classes of sealed fields have in common; each is also that of the field it was made of."""

    declared: type[Field]
    classified: str
    mask: str | None

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        name, _, arguments, options = super().deconstruct()
        says = {"classified": self.classified} | ({"mask": self.mask} if self.mask else {})
        return name, "wardkey.django.models.Sealed", [self.declared(*arguments, **options)], says

    def clone(self) -> Any:
        _, _, arguments, options = self.deconstruct()
        return Sealed(*arguments, **options)

    def check(self, **options: Any) -> list[checks.CheckMessage]:
        messages: list[checks.CheckMessage] = super().check(**options)
        if self.unique or self.db_index or self.is_relation or self.generated:
            what = "a key, index, relation or generated column cannot be sealed"
            hint = "equal plaintexts have different ciphertexts: do not seal it, or drop the key or index"
            messages.append(checks.Error(what, hint, self, "wardkey.E001"))
        return messages


@cache
def _sealed(declared: Any) -> Any:
    # of the same name, by which some fields say their type
    members = {"declared": declared, "__module__": declared.__module__}
    return type(declared.__name__, (SealedField, declared), members)
