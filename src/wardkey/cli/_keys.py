"""What the commands of ``wardkey keys`` have in common: tenants chosen, done one after the other, told of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._context import Context
from ._keys_view import outcome_text, resealing
from ._output import FAILED, INTERRUPTED, emit, note, progress

if TYPE_CHECKING:
    from ..errors import WardError
    from ..keys.orchestrator import Orchestrator, Request
    from ..keys.policy import TenantKeys
    from ..keys.rewrap import Result
    from ..keys.run import Outcome
    from ..kms import KekRef

__all__ = ["Job", "accessed", "open_job", "open_orchestrator"]


@contextmanager
def open_orchestrator(context: Context) -> Iterator[Orchestrator]:
    """Connect. The first Ctrl-C or SIGTERM ends things at the next safe point, a second one at once."""
    import psycopg

    from ..daemon import sessions
    from ..keys.orchestrator import Orchestrator

    stop = threading.Event()

    def end(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        note(context, "ending after this batch; again to end at once")

    def connect() -> psycopg.Connection[tuple[Any, ...]]:
        return sessions.connect(context.admin_dsn, "wardkey keys", autocommit=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with Orchestrator(connect, context.home.orchestrator, stop, context.keeper) as orchestrator:
        yield orchestrator


@contextmanager
def open_job(context: Context, **options: Any) -> Iterator[Job]:
    """Open what does things to many tenants and tells of it at the end."""
    with open_orchestrator(context) as orchestrator:
        yield Job(context, orchestrator, **options)


class Job:
    """Does things to tenants. What is refused is told and does not keep the others from it."""

    def __init__(
        self, context: Context, orchestrator: Orchestrator, *, rate: int | None = None, patience: float = 60
    ) -> None:
        from ..keys.run import Throttle

        self.orchestrator = orchestrator
        self._context = context
        self._throttle = Throttle(share=1.0) if rate == 0 else Throttle(rate=rate)
        self._patience = patience
        self._records: list[dict[str, Any]] = []
        self._code = 0

    def end(self) -> int:
        """Print the facts and return the exit code."""
        if not self._records and not self._context.json:
            click.echo("nothing to do")
        emit(self._context, self._records, lambda: None)
        return INTERRUPTED if self.orchestrator.stopped else self._code

    def rotate(
        self, wanted: Sequence[tuple[TenantKeys, Request]], *, named: bool = False, reseal: bool = True
    ) -> None:
        """Rotate all keys, then reseal row after row: new values are under new keys as soon as can be.

        ``named``: by the operator, who is told when a rotation is under way; it is continued otherwise.
        """
        to_reseal: list[str] = []
        for tenant, request in wanted:
            if self.orchestrator.stopped:
                return
            if tenant.is_rotating and not named and not request.incident:
                to_reseal.append(str(tenant.slug))
            elif self._rotate_one(tenant, request) and tenant.slug:
                to_reseal.append(tenant.slug)
        if reseal:
            self.reseal(to_reseal)

    def _rotate_one(self, tenant: TenantKeys, request: Request) -> bool:
        version = self._try(tenant.slug, "rotate", lambda: self.orchestrator.rotate(tenant, request))
        if version is not None:
            text = f"version {version} is active"
            self._tell(tenant.slug, "rotate", text, version=version, reason=request.reason)
        return version is not None

    def reseal(self, slugs: Sequence[str]) -> None:
        """Go on with the tenants' rotations, one after the other."""
        with resealing(self._context) as watch:

            def reseal_one() -> Outcome:
                return self.orchestrator.reseal(slug, self._throttle, self._patience, watch)

            for slug in slugs:
                if self.orchestrator.stopped:
                    return
                if (outcome := self._try(slug, "reseal", reseal_one)) is not None:
                    self._note(outcome_text(outcome), {"action": "reseal", **asdict(outcome)})
                    if outcome.state != "finished":
                        self._code = FAILED

    def rewrap(self, tenants: Sequence[TenantKeys], scope: str) -> None:
        counts = {"tenants": 0, "keys": 0, "disabled": 0}
        with progress(self._context) as bar:
            task = bar.add_task("KEKs", total=len(tenants))

            def report(result: Result) -> None:
                bar.advance(task)
                if result.trouble:
                    self._refused(result.tenant.slug, "rewrap", result.trouble)
                    return
                counts["tenants"] += 1
                counts["keys"] += result.keys
                counts["disabled"] += len(result.disabled)
                for kek, why in result.left_enabled:
                    self._left_enabled(result.tenant.slug, kek, why)

            continued = self._try(None, "rewrap", lambda: self.orchestrator.rewrap(tenants, scope, report))
        if continued is not None:
            text = "KEKs of {tenants} tenants: {keys} keys rewrapped, {disabled} old versions disabled"
            state = "interrupted" if self.orchestrator.stopped else "done"
            facts = {"action": "rewrap", "state": state, **counts, "continued": continued}
            self._note(text.format(**counts), facts)

    def retire(self, tenant: TenantKeys) -> None:
        slug = str(tenant.slug)
        if (versions := self._try(slug, "retire", lambda: self.orchestrator.retire(slug))) is not None:
            self._tell(
                slug, "retire", f"retired: {', '.join(map(str, versions)) or 'none'}", versions=versions
            )

    def destroy(self, tenant: TenantKeys, version: int, *, now: bool = False) -> bool:
        """Destroy a version of the key; False when it is refused."""
        slug = tenant.slug
        if self._try(slug, "destroy", lambda: self.orchestrator.destroy(tenant, version, now=now)) is None:
            return False
        self._tell(slug, "destroy", f"version {version} destroyed", version=version)
        return True

    def destroy_keks(self, tenant: TenantKeys, *, now: bool = False) -> None:
        slug = tenant.slug
        destroyed = self._try(slug, "destroy KEK", lambda: self.orchestrator.destroy_keks(tenant.id, now=now))
        for kek in destroyed or ():
            text = f"version {kek.version} of {kek.name} destroyed"
            self._tell(slug, "destroy KEK", text, kek=kek.name, kek_version=kek.version)

    def do_what_is_due(self, *actions: str) -> None:
        """Do what the policy asks for, or those ``actions`` of it."""
        from ..keys.orchestrator import Request

        orchestrator = self.orchestrator
        tenants = orchestrator.tenants(master=True)
        pending = [
            (tenant, due)
            for tenant in tenants
            for due in orchestrator.due(tenant)
            if not actions or due.action in actions
        ]
        if rewrap := [tenant for tenant, due in pending if due.action == "rewrap"]:
            self.rewrap(rewrap, "due")
        rotate = [(tenant, Request(due.reason[:200])) for tenant, due in pending if due.action == "rotate"]
        self.rotate(rotate)
        self.reseal([str(tenant.slug) for tenant, due in pending if due.action == "reseal"])
        for tenant, due in pending:
            if due.action == "destroy" and due.version is not None:
                self.destroy(tenant, due.version)
        if not actions or "destroy" in actions:
            left = orchestrator.keks_to_destroy()
            for tenant in (tenant for tenant in tenants if tenant.id in left):
                self.destroy_keks(tenant)

    def _try(self, slug: str | None, action: str, call: Callable[[], Any]) -> Any:
        """Return what ``call`` returns, None when it was refused."""
        from ..errors import WardError

        try:
            return call()
        except WardError as error:
            if self.orchestrator.connection.broken:
                raise
            self._refused(slug, action, error)
            return None

    def _refused(self, slug: str | None, action: str, error: WardError) -> None:
        self._code = FAILED
        hint = f"; {error.hint}" if error.hint else ""
        text = f"{_name(slug)}: {action} refused: {error.message} ({error.sqlstate}){hint}"
        refusal = {"error": error.message, "sqlstate": error.sqlstate, "hint": error.hint}
        self._note(text, {"slug": slug, "action": action, "state": "refused", **refusal})

    def _left_enabled(self, slug: str | None, kek: KekRef, why: WardError) -> None:
        """Warn: the KEK left behind still opens an old backup's keys."""
        text = f"{_name(slug)}: all keys are moved, but version {kek.version} of {kek.name} is still enabled"
        hint = "disable it there, or try again: wardkey keys rewrap"
        facts = {"kek": kek.name, "kek_version": kek.version, "error": why.message, "hint": hint}
        self._note(
            f"{text}: {why.message}; {hint}",
            {"slug": slug, "action": "disable KEK", "state": "refused", **facts},
        )

    def _tell(self, slug: str | None, action: str, text: str, **facts: Any) -> None:
        self._note(f"{_name(slug)}: {text}", {"slug": slug, "action": action, "state": "done", **facts})

    def _note(self, text: str, record: dict[str, Any]) -> None:
        self._records.append(record)
        if not self._context.json:
            click.echo(text)


def accessed(
    context: Context, tenants: Sequence[TenantKeys], who: str, since: str | None, logs: Sequence[Path]
) -> list[TenantKeys]:
    """Return those of ``tenants`` whose active key was released to ``who``."""
    from ..keys.release_log import accessed_by, files
    from ..keys.when import parse_moment

    try:
        moment = None if since is None else parse_moment(since, datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from None
    accesses = accessed_by(list(logs) or files(context.home.keeper), who, moment)
    if accesses.damaged:
        note(context, f"{accesses.damaged} lines of the release log could not be read")
    return [
        tenant
        for tenant in tenants
        if tenant.active and tenant.active.version in accesses.versions.get(tenant.id, ())
    ]


def _name(slug: str | None) -> str:
    return slug or "master secret"
