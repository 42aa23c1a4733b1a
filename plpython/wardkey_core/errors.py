"""Errors raised by wardkey inside PostgreSQL, and their SQLSTATEs (class WK).

WardError
├── ContextError      who is asking: WK001–WK007
├── SealError         values and their keys: WK101–WK107
├── AdministrationError  what a DBA asked for: in module administration
├── NeedleRefused     WK273
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


class LoginsEnded(ContextError):
    sqlstate = "WK255"
    default_message = "the logins of this subject were ended"
    default_hint = "an operator looks into it and lets the subject in again: wardkey access honey lift"


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


class BudgetExhausted(SealError):
    sqlstate = "WK253"
    default_message = "the budget of rows that this role may open of the table is used up"
    default_hint = "it is renewed when its window ends; an operator sees it with: wardkey access budget usage"


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
    default_hint = (
        "leave the column out; UPDATE and DELETE read whole rows; what a role sees: select * from ward.policy"
    )


class NeedleRefused(WardError):
    """What is looked for, or a value that is to be found, is nothing that can be."""

    sqlstate = "WK273"
    default_message = "that cannot be searched"
    default_hint = "say what to look for"


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
