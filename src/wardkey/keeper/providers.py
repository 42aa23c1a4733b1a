"""Which KMS holds a tenant's KEK, and how it is asked: the cell's, its former ones, and those tenants bring.

Each has threads of its own, so that one that hangs holds up no other's tenants.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import UUID

from wardkey_core.errors import KeeperUnavailable, KeyRefused, WardError

from wardkey.kms import Kms, KmsConfigurationError, KmsDenied, KmsError, may_hold, open_kms, provider_of
from wardkey.kms.configured import CONFIGURATION_FILE, TENANTS, Configuration, directory_of, read

from .trust import identity_of

__all__ = ["Provider", "Providers", "import_all"]

ATTEMPTS = 4
FIRST_PAUSE = 0.05  # seconds; doubled for each further attempt, of which a random part is waited
CELL_THREADS = 16
TENANT_THREADS = 4

_T = TypeVar("_T")
_Open = Callable[[str, Path], Kms]


def import_all(configuration: Configuration, report: Callable[[str], None]) -> None:
    """Import every provider that ``configuration`` names, while this process may still read them.

    Raises KmsConfigurationError when the cell's cannot be; what others lack is reported.
    """
    provider_of(configuration.kms)
    for uri in {*configuration.former, *_owned(configuration)}:
        try:
            provider_of(uri)
        except KmsConfigurationError as error:
            report(f"a KMS of {CONFIGURATION_FILE} cannot be used: {error}")


class Provider:
    """One KMS. It is opened when it is first asked, and again after it could not be."""

    def __init__(
        self, uri: str, directory: Path, threads: int, report: Callable[[str], None], open_: _Open
    ) -> None:
        self.uri = uri
        self.directory = directory
        self.scheme = uri.partition(":")[0]
        self.calls = 0
        self._open = open_
        self._report = report
        self._kms: Kms | None = None
        self._opening = Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kms")

    def open(self) -> Kms:
        """Return the KMS itself. Raises KmsConfigurationError."""
        with self._opening:
            if self._kms is None:
                try:
                    self._kms = self._open(self.uri, self.directory)
                except ImportError:
                    self._kms = None  # its files may be out of reach since the keeper is its own user
                except OSError as error:
                    raise KmsConfigurationError(f"cannot be opened: {error.strerror}") from None
            if self._kms is None:
                raise KmsConfigurationError("cannot be imported any more; restart the keeper")
            return self._kms

    async def ask(self, call: Callable[[Kms], _T]) -> _T:
        """Call the KMS in a thread, again after a pause when it says so.

        Raises KmsDenied, KmsConfigurationError, KeeperUnavailable, KeyRefused.
        """
        wait = 0.0
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = random.uniform(0.5, 1) * FIRST_PAUSE * 2**attempt  # noqa: S311
                await asyncio.sleep(max(pause, wait))
            self.calls += 1
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(self.open()))
            except KmsError as error:
                self._report(f"KMS {self.scheme}: {type(error).__name__}: {error}")
                if not error.transient:
                    raise
                wait = getattr(error, "retry_after", 0.0)
            except WardError:
                raise
            except Exception as error:
                # Not str(error): a provider's unforeseen exception may carry what it was given.
                self._report(f"KMS {self.scheme}: unexpected {type(error).__name__}")
                break
        else:
            raise KeeperUnavailable("the key management service does not answer", "see the keeper's log")
        raise KeyRefused("the key management service failed", "see the keeper's log")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Providers:
    """The providers of ``kms.json`` in ``directory``, which is read again when it was replaced.

    A file that cannot be used any more is reported, and what it said before goes on to hold. ``override``:
    the cell's KMS whatever the file says. Raises KmsConfigurationError.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[str], None],
        override: str | None = None,
        open_: _Open = open_kms,
    ) -> None:
        self._directory = directory
        self._report = report
        self._override = override
        self._open = open_
        self._calls: Counter[str] = Counter()  # of those that are closed
        self._opened: dict[tuple[str, Path], Provider] = {}
        self._seen = identity_of(self._path)
        self._use(read(directory))
        self.cell.open()

    @property
    def cell(self) -> Provider:
        """The cell's present KMS."""
        return self._provider(self._override or self._configuration.kms, self._directory, CELL_THREADS)

    @property
    def schemes(self) -> list[str]:
        """What is configured now, the cell's first."""
        self._look()
        uris = (*self._configuration.former, *_owned(self._configuration))
        return list(dict.fromkeys((self.cell.scheme, *(uri.partition(":")[0] for uri in uris))))

    @property
    def calls(self) -> dict[str, int]:
        """How often the KMSs of each scheme were asked."""
        counted = self._calls.copy()
        for provider in self._opened.values():
            counted[provider.scheme] += provider.calls
        return dict(counted)

    def of(self, tenant: UUID) -> list[Provider]:
        """Return where a KEK of the tenant may be: where it is made now first."""
        self._look()
        owns = [
            self._provider(each.kms, directory_of(self._directory, tenant, each.place), TENANT_THREADS)
            for each in self._configuration.owns(tenant)
        ]
        former = (self._provider(uri, self._directory, CELL_THREADS) for uri in self._configuration.former)
        present = (owns.pop(0),) if tenant in self._configuration.tenants else ()
        return [*present, self.cell, *owns, *former]

    def name_of(self, provider: Provider) -> str:
        """Return the scheme of the cell's, of which it has one each; of a tenant's ``own``, ``own/1`` …"""
        if provider.directory == self._directory:
            return provider.scheme
        first = provider.directory.parent.name == TENANTS
        return "own" if first else f"own/{provider.directory.name}"

    async def ask(self, providers: Sequence[Provider], call: Callable[[Kms], _T]) -> _T:
        """Ask the first; when it denies, the next. Raises KeyRefused, KeeperUnavailable."""
        for provider in providers:
            try:
                return await provider.ask(call)
            except KmsDenied:
                continue
            except KmsError:
                break
        if not providers:
            self._report("KMS: a KEK is of none that is configured")
        raise KeyRefused("the key management service refused the key", "see the keeper's log")

    def named(self, tenant: UUID, kek: str) -> list[Provider]:
        """Return where this KEK may be, by what its name tells: nowhere if it is not the tenant's.

        Else a DEK could be wrapped under the KEK of another tenant, and had by whoever may use that one.
        """
        if str(tenant) not in kek:  # each provider names KEKs by their tenant
            return []
        return [provider for provider in self.of(tenant) if may_hold(provider.uri, kek)]

    def close(self) -> None:
        for provider in self._opened.values():
            provider.close()

    @property
    def _path(self) -> Path:
        return self._directory / CONFIGURATION_FILE

    def _look(self) -> None:
        seen = identity_of(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._use(read(self._directory))
        except KmsConfigurationError as error:
            self._report(f"what {CONFIGURATION_FILE} said before still holds: {error}")

    def _use(self, configuration: Configuration) -> None:
        self._configuration = configuration
        os.environ.update(configuration.environment)
        cells = (self._override or configuration.kms, *configuration.former)
        wanted = {(uri, self._directory) for uri in cells}
        wanted |= {
            (own.kms, directory_of(self._directory, tenant, own.place))
            for tenant in (*configuration.tenants, *configuration.left)
            for own in configuration.owns(tenant)
        }
        for identity in self._opened.keys() - wanted:
            provider = self._opened.pop(identity)
            self._calls[provider.scheme] += provider.calls
            provider.close()

    def _provider(self, uri: str, directory: Path, threads: int) -> Provider:
        found = self._opened.get((uri, directory))
        if found is None:
            found = Provider(uri, directory, threads, self._report, self._open)
            self._opened[uri, directory] = found
        return found


def _owned(configuration: Configuration) -> set[str]:
    """Return the URIs of the KMSes that tenants bring, or brought."""
    tenants = (*configuration.tenants, *configuration.left)
    return {own.kms for tenant in tenants for own in configuration.owns(tenant)}
