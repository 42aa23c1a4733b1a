"""Errors raised by wardkey inside PostgreSQL, and their SQLSTATEs (class WK).

WardError
├── ContextError      who is asking: WK001–WK007
├── SealError         values and their keys: WK101–WK107
├── AdministrationError  what a DBA asked for: WK201–WK269, WK402
├── VersionMismatch   WK301
└── AuditUnavailable  WK401

Messages are constants: no plaintext, key, token, claim or payload is ever part of one.
"""

from __future__ import annotations


class WardError(Exception):
    """Base class: an SQLSTATE, a message and a hint."""

    sqlstate = "WK000"
    default_message = "wardkey error"
    default_hint = "this is a defect of wardkey: please report it"

    def __init__(self, message: str | None = None, hint: str | None = None) -> None:
        self.message = message or self.default_message
        self.hint = hint if hint is not None else self.default_hint
        super().__init__(self.message)


class ContextError(WardError):
    """The question who is asking has no acceptable answer."""


class NoContext(ContextError):
    sqlstate = "WK001"
    default_message = "no tenant context in this transaction"
    default_hint = "call ward.login(token) first, in the same transaction"


class InvalidToken(ContextError):
    sqlstate = "WK002"
    default_message = "token is not valid"
    default_hint = "ask your identity provider for a new token; issuers are listed in ward.issuers"


class TokenExpired(ContextError):
    sqlstate = "WK003"
    default_message = "token has expired"
    default_hint = "ask your identity provider for a new token"


class WrongTenant(ContextError):
    sqlstate = "WK004"
    default_message = "token belongs to another tenant"
    default_hint = "connect as the login role of the token's tenant; a transaction has one tenant and subject"


class TenantNotActive(ContextError):
    sqlstate = "WK005"
    default_message = "tenant is not active"
    default_hint = "an operator can resume it with: wardkey tenant resume SLUG"


class RoleMayNotWrite(ContextError):
    sqlstate = "WK006"
    default_message = "the role of this token may not write"
    default_hint = "use a token of a role that writes; which do: select * from ward.policy"


class ContextStale(ContextError):
    sqlstate = "WK007"
    default_message = "the context has to be looked up again, which a parallel plan does not allow"
    default_hint = "call ward.login(token) again in this transaction"


class SealError(WardError):
    """A value cannot be sealed or opened."""


class OpenFailed(SealError):
    sqlstate = "WK101"
    default_message = "sealed value does not open"
    default_hint = (
        "it was altered or moved, or its key is not the one it was sealed under; treat as an incident"
    )


class KeeperUnavailable(SealError):
    sqlstate = "WK102"
    default_message = "the keeper does not answer"
    default_hint = "check the keeper with: wardkey status"


class KeyRefused(SealError):
    sqlstate = "WK103"
    default_message = "the keeper refused to release the key"
    default_hint = "the keeper's release log says why"


class KeyUnknown(SealError):
    sqlstate = "WK104"
    default_message = "no usable key of that version"
    default_hint = "the key was retired or destroyed, or the value is older than the tenant's keys"


class CommitmentMismatch(SealError):
    sqlstate = "WK105"
    default_message = "the released key is not the one the registry committed to"
    default_hint = "the key registry was altered; treat as an incident"


class KeyDestroyed(SealError):
    sqlstate = "WK106"
    default_message = "the key was destroyed"
    default_hint = "what was sealed under it cannot be opened again"


class RegionRefused(SealError):
    sqlstate = "WK240"
    default_message = "the keeper does not serve the region of the key"
    default_hint = "keys are opened by the keeper of their region: wardkey doctor"


class GrantRefused(SealError):
    sqlstate = "WK245"
    default_message = "the keeper refused the break-glass grant"
    default_hint = "the keeper's release log says why"


class KeeperBusy(KeeperUnavailable):
    sqlstate = "WK113"
    default_message = "the keeper has too many requests of this tenant, or in all"
    default_hint = (
        "retry the transaction; a backend asks again for keeper_timeout seconds before it says this"
    )


class KeysChanged(SealError):
    sqlstate = "WK107"
    default_message = "the tenant's keys were rotated during this statement"
    default_hint = "retry the transaction"


class ClassHidden(SealError):
    sqlstate = "WK232"
    default_message = "the role of this token may not see columns of this class"
    default_hint = "leave the column out; what a role sees: select * from ward.policy"


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


class EntryTooLong(AdministrationError):
    """The log's entry could not be written as text; the change is refused."""

    sqlstate = "WK402"


class VersionMismatch(WardError):
    sqlstate = "WK301"
    default_message = "extension wardkey and Python module wardkey_pg are of different versions"
    default_hint = "run wardkey install, then: alter extension wardkey update"


class AuditUnavailable(WardError):
    sqlstate = "WK401"
    default_message = "reads cannot be journalled on this server"
    default_hint = (
        "use the primary server; there the journal needs the scribe's replication slot: wardkey status"
    )


def _conditions(cls: type[WardError]) -> list[type[WardError]]:
    own = [cls] if "sqlstate" in vars(cls) else []
    return own + [each for child in cls.__subclasses__() for each in _conditions(child)]


BY_SQLSTATE: dict[str, type[WardError]] = {
    cls.sqlstate: cls for child in WardError.__subclasses__() for cls in _conditions(child)
}
