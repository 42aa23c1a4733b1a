"""The guards of a backend: whose rows of which table are counted or watched, and who is told."""

from __future__ import annotations

import time

from wardkey_core.errors import WardError
from wardkey_core.identity import text_of

from .budgets import Guard, Purse

__all__ = ["Guards"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wardkey_core.tokens import Claims
    from wardkey_core.wire import Leased

    from .context import Context, Session
    from .ended import EndedLogins
    from .reads import Column

    _Place = tuple[str, str, str, str, bytes]  # tenant, issuer, subject, role, model

_MOST_PURSES = 64
_IDLE = 10.0  # seconds after which what a lease of somebody else left over is given back
_SETTLING = 1.0  # seconds to wait for the keeper then
_LONGEST_ROW = 1_000  # bytes of a row id in an alarm


class Guards:
    """Purses are kept from one transaction to the next, and given back when their subject is idle."""

    def __init__(self, session: Session, ended: EndedLogins) -> None:
        self._session = session
        self._ended = ended
        self._purses: dict[_Place, Purse] = {}

    def of(self, context: Context, column: Column) -> Guard:
        """Return the guard of a column's table, in this context."""
        keys, model, claims = context.keys, column.model, context.claims
        place = claims.tenant_id, claims.issuer, claims.subject, claims.role, model
        purse = (self._purses.get(place) or Purse()) if model in keys.budgets else None

        def draw(settled: Mapping[str, Any] | None, row: bytes | None) -> Leased:
            if purse is not None:
                self._keep(place, purse)
            return self._draw(context, model, settled, row)

        return Guard(
            purse,
            draw,
            keys.honey.get(model, {}),
            lambda row, ends: self._alarm(context, column, row, ends=ends),
        )

    def settle_idle(self, claims: Claims) -> None:
        """Give back what leases left over that others than this subject have not used for a while."""
        now, who = time.monotonic(), (claims.tenant_id, claims.issuer, claims.subject)
        for place, purse in list(self._purses.items()):
            if place[:3] != who and now - purse.drawn_at > _IDLE:
                self._settle(place)

    def settle_all(self) -> None:
        """The same of all: the backend ends."""
        for place in list(self._purses):
            self._settle(place, at_exit=True)

    def _keep(self, place: _Place, purse: Purse) -> None:
        """Remember a purse that is about to get a lease."""
        self._purses.pop(place, None)
        self._purses[place] = purse
        if len(self._purses) > _MOST_PURSES:
            self._settle(next(iter(self._purses)))

    def _settle(self, place: _Place, *, at_exit: bool = False) -> None:
        """Forget a purse. What the keeper is not told stays counted."""
        settled = self._purses.pop(place).settled()
        if settled is not None:
            try:  # noqa: SIM105 - contextlib is imported by no backend
                self._session.keeper(_SETTLING, at_exit=at_exit).settle(place[0], settled)
            except WardError:
                pass

    def _draw(
        self, context: Context, model: bytes, settled: Mapping[str, Any] | None, row: bytes | None
    ) -> Leased:
        """Have the keeper lease rows of ``model``, and journal what it wants told."""
        claims, table = context.claims, text_of(model)
        leased = self._session.keeper().lease(claims.tenant_id, table, context.token, settled, row)
        if leased.alert is not None:
            detail = {"model": table, "role": claims.role, "budget": leased.limit}
            self._session.report(f"budget_{leased.alert}", detail)
        return leased

    def _alarm(self, context: Context, column: Column, row: bytes, *, ends: bool) -> None:
        """Tell the platform's log that a honey row was opened, and end its subject's logins if that is so.

        The tenant's own log has the read, and no more: who reads it is not told which row that is. Whatever
        fails, the row is shown as any other.
        """
        from wardkey_core.journal_reader import readable  # most backends never do

        claims, is_ended = context.claims, False
        if ends:
            try:
                self._session.keeper().end_logins(claims.tenant_id, context.token)
                is_ended = True
            except WardError:  # this backend knows, and the alarm says that others do not
                self._ended.add(claims)
        detail = {
            "alarm": True,
            "tenant": claims.tenant_id,
            "model": text_of(column.model),
            "row": readable(column.form, row[:_LONGEST_ROW]),
            "ends_logins": ends,
            "logins_ended": is_ended,
        }
        self._session.report_to_platform("honey_row_opened", detail)
