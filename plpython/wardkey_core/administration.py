"""What a DBA or operator asked for and cannot have: WK114, WK201–WK285, WK402; and all errors by SQLSTATE.

Apart from the others, because a backend needs none of them to log in, and making a class takes it 15 µs.
"""

from __future__ import annotations

from .errors import WardError


class AdministrationError(WardError):
    """Something a DBA or operator asked for cannot be done."""


class TableInUse(AdministrationError):
    """Others held a lock for too long; nothing was changed."""

    sqlstate = "WK114"


class InvalidSlug(AdministrationError):
    """A slug is a lower-case letter, then letters, digits and underscores."""

    sqlstate = "WK201"


class DuplicateTenant(AdministrationError):
    """The slug, or its role or schema, is there already."""

    sqlstate = "WK202"


class UnknownTenant(AdministrationError):
    """No tenant has that slug."""

    sqlstate = "WK203"


class UnknownObject(AdministrationError):
    """No such table, column, key, issuer or setting, or not protected."""

    sqlstate = "WK204"


class NoPrimaryKey(AdministrationError):
    """A model table needs a primary key, of plain columns."""

    sqlstate = "WK205"


class TypeCannotBeSealed(AdministrationError):
    """Values of that type cannot be sealed."""

    sqlstate = "WK206"


class SealedIndex(AdministrationError):
    """An index or constraint would be over ciphertext."""

    sqlstate = "WK207"


class TableNotEmpty(AdministrationError):
    """The table has rows, and nobody can say whose they are."""

    sqlstate = "WK208"


class Unsupported(AdministrationError):
    """What a model table or log cannot have or do."""

    sqlstate = "WK209"


class WardNotEmpty(AdministrationError):
    """The ward still has rows."""

    sqlstate = "WK210"


class NotConfirmed(AdministrationError):
    """The confirmation is missing, or of something else."""

    sqlstate = "WK211"


class NotAllowed(AdministrationError):
    """The caller's role may not do this, or a reason is missing."""

    sqlstate = "WK212"


class RotationRunning(AdministrationError):
    """Keys of the tenant are being changed by somebody else."""

    sqlstate = "WK213"


class KeyInUse(AdministrationError):
    """Rows or transactions still need the key."""

    sqlstate = "WK214"


class RotationPaused(AdministrationError):
    """The rotation is paused."""

    sqlstate = "WK215"


class TenantShredded(AdministrationError):
    """The tenant was shredded; its slug is not given again."""

    sqlstate = "WK216"


class OnHold(AdministrationError):
    """A legal hold keeps the log and the keys of its values."""

    sqlstate = "WK217"


class ChangeRefused(AdministrationError):
    """The change would not be right in every ward."""

    sqlstate = "WK218"


class NotInTheLog(AdministrationError):
    """Neither database nor log know the table, row or subject."""

    sqlstate = "WK228"


class RestoreRefused(AdministrationError):
    """The dump cannot be put back into the ward; nothing was changed."""

    sqlstate = "WK229"


class NoBaa(AdministrationError):
    """A tenant is let in with a business associate agreement only: ``require_baa`` is on."""

    sqlstate = "WK230"


class InvalidBaa(AdministrationError):
    """These are not the facts of an agreement, or it is recorded already."""

    sqlstate = "WK231"


class InvalidRegion(AdministrationError):
    """That is no region, or not one that this tenant's keys can be in."""

    sqlstate = "WK241"


class RuleNamesSealedColumn(AdministrationError):
    """A row rule compares a sealed column, which the database cannot read."""

    sqlstate = "WK258"


class RuleCallsFunction(AdministrationError):
    """A row rule calls a function whose answer or errors would not keep rows apart."""

    sqlstate = "WK259"


class InvalidRowRule(AdministrationError):
    """What a row rule says is no condition on one row, or its name is taken."""

    sqlstate = "WK260"


class RuleForUnknownRole(AdministrationError):
    """No token has such a role."""

    sqlstate = "WK261"


class ClaimDoesNotFit(AdministrationError):
    """A claim of the token is not of the type to which a row rule casts it; no row is read or written."""

    sqlstate = "WK262"


class InvalidMeasure(AdministrationError):
    """A measure's query does what none may, or its name is taken."""

    sqlstate = "WK263"


class NoGroupFloor(AdministrationError):
    """A measure has no floor for its groups, or one below 11."""

    sqlstate = "WK264"


class PeriodNotClosed(AdministrationError):
    """Measures are published for a period that has ended."""

    sqlstate = "WK265"


class AlreadyPublished(AdministrationError):
    """A measure is published, and released, once for a period."""

    sqlstate = "WK266"


class NotDelegated(AdministrationError):
    """No such payer, or no such delegation to it."""

    sqlstate = "WK267"


class WouldReveal(AdministrationError):
    """What was to be released would tell a cell that is not shown; nothing was released."""

    sqlstate = "WK268"


class InvalidCounts(AdministrationError):
    """A measure does not count in this ward."""

    sqlstate = "WK269"


class InvalidSearch(AdministrationError):
    """A sealed column cannot be searched that way, or is already."""

    sqlstate = "WK271"


class SearchNotBuilt(AdministrationError):
    """Rows from before the search was added have no tokens yet."""

    sqlstate = "WK272"


class MaskDoesNotFit(AdministrationError):
    """The mask of a value of this type would not be one."""

    sqlstate = "WK233"


class InvalidPolicy(AdministrationError):
    """Nobody would see a class in the clear, or somebody would write what he does not see."""

    sqlstate = "WK234"


class PolicyWidened(AdministrationError):
    """A tenant narrows the platform's policy, and does not widen it."""

    sqlstate = "WK235"


class InvalidGrant(AdministrationError):
    """That is no break-glass request, or none in that state."""

    sqlstate = "WK246"


class InvalidIncident(AdministrationError):
    """Not the facts of an incident, or the evidence does not bear out its conclusion."""

    sqlstate = "WK285"


class InvalidBudget(AdministrationError):
    """A budget is a number of rows of a sealed table, for a role, in a window of a minute to a year."""

    sqlstate = "WK254"


class InvalidHoneyRow(AdministrationError):
    """A honey row is a row of a tenant that is there, named by its primary key."""

    sqlstate = "WK256"


class EntryTooLong(AdministrationError):
    """The log's entry could not be written as text; the change is refused."""

    sqlstate = "WK402"


def _conditions(cls: type[WardError]) -> list[type[WardError]]:
    own = [cls] if "sqlstate" in vars(cls) else []
    return own + [each for child in cls.__subclasses__() for each in _conditions(child)]


BY_SQLSTATE: dict[str, type[WardError]] = {
    cls.sqlstate: cls for child in WardError.__subclasses__() for cls in _conditions(child)
}
