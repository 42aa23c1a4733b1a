"""Which KMS holds a tenant's KEK, and how it is asked: the cell's, its former ones, and those tenants bring.

Each has threads of its own, so that one that hangs holds up no other's tenants.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import UUID

from msgspec.structs import replace
from wardkey_core.errors import KeeperUnavailable, KeyRefused, RegionRefused, WardError

from wardkey import tracing
from wardkey.daemon.files import identity_of
from wardkey.daemon.lines import Line
from wardkey.kms import (
    Kms,
    KmsConfigurationError,
    KmsDenied,
    KmsError,
    may_hold,
    open_kms,
    pauses,
    provider_of,
    scheme_of,
)
from wardkey.kms.configured import CONFIGURATION_FILE, Configuration, Entry, read

from .latencies import KMS_SECONDS, Latencies

__all__ = ["Provider", "Providers", "configured", "import_all"]

FIRST_PAUSE = 0.1  # seconds
CELL_THREADS = 16
TENANT_THREADS = 4

_T = TypeVar("_T")
_Open = Callable[[str, Path], Kms]


def import_all(configuration: Configuration, report: Callable[[str], None]) -> None:
    """Import every provider that ``configuration`` names, while this process may still read them.

    Raises KmsConfigurationError when the cell's cannot be; what others lack is reported.
    """
    provider_of(configuration.cell.uri)
    for uri in {entry.uri for entry in configuration.kms}:
        try:
            provider_of(uri)
        except KmsConfigurationError as error:
            report(Line("kms_unusable", f"a KMS of {CONFIGURATION_FILE} cannot be used: {error}"))


def configured(directory: Path, override: str | None = None, regions: Sequence[str] = ()) -> Configuration:
    """Return what ``kms.json`` says. ``override``: the cell's KMS whatever it says; ``regions`` likewise."""
    configuration = read(directory)
    if regions:
        configuration = replace(configuration, regions=tuple(regions))
    if override is None:
        return configuration
    present = Entry(override)
    left = (each for each in configuration.owned(None) if each.is_left and each.name != present.name)
    return configuration.with_owned(None, [present, *left])


class Calls:
    """Of all KMSs: how long calls that ended well took, and how many did not."""

    def __init__(self) -> None:
        self.latencies, self.errors = Latencies(KMS_SECONDS), 0


class Provider:
    """One KMS. It is opened when it is first asked, and again after it could not be."""

    def __init__(
        self,
        entry: Entry,
        directory: Path,
        report: Callable[[str], None],
        open_: _Open,
        calls: Calls,
    ) -> None:
        self._times = calls
        self.uri = entry.uri
        self.label = entry.label
        self.scheme = scheme_of(entry.uri)
        self.calls = 0
        self._directory = entry.directory(directory)
        self._open = open_
        self._report = report
        self._kms: Kms | None = None
        self._opening = Lock()
        threads = CELL_THREADS if entry.tenant is None else TENANT_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kms")

    def open(self) -> Kms:
        """Return the KMS itself. Raises KmsConfigurationError."""
        with self._opening:
            if self._kms is None:
                try:
                    self._kms = self._open(self.uri, self._directory)
                except ImportError:  # its files may be out of reach since the keeper is its own user
                    raise KmsConfigurationError("cannot be imported any more; restart the keeper") from None
                except OSError as error:
                    raise KmsConfigurationError(f"cannot be opened: {error.strerror}") from None
            return self._kms

    async def ask(self, call: Callable[[Kms], _T]) -> _T:
        """Call the KMS in a thread, again after a pause when it says so.

        Raises KmsDenied, KmsConfigurationError, KeeperUnavailable, KeyRefused.
        """
        wait = 0.0
        for attempt, pause in enumerate(pauses(FIRST_PAUSE), 1):
            await asyncio.sleep(max(pause, wait))
            self.calls += 1
            began = time.monotonic()
            try:
                with tracing.span("wardkey.kms", wardkey_kms=self.scheme, wardkey_attempt=attempt):
                    loop = asyncio.get_running_loop()
                    answer = await loop.run_in_executor(self._pool, lambda: call(self.open()))
                self._times.latencies.add(time.monotonic() - began)
                return answer
            except KmsError as error:
                self._times.errors += 1
                self._report(Line("kms_failed", f"KMS {self.scheme}: {type(error).__name__}: {error}"))
                if not error.transient:
                    raise
                wait = error.retry_after
            except WardError:
                raise
            except Exception as error:
                self._times.errors += 1
                # Not str(error): a provider's unforeseen exception may carry what it was given.
                self._report(Line("kms_failed", f"KMS {self.scheme}: unexpected {type(error).__name__}"))
                break
        else:
            raise KeeperUnavailable("the key management service does not answer", "see the keeper's log")
        raise KeyRefused("the key management service failed", "see the keeper's log")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Providers:
    """The providers of ``kms.json`` in ``directory``, which is read again when it was replaced.

    A file that cannot be used any more is reported, and what it said before goes on to hold. ``override``:
    the cell's KMS whatever the file says; ``regions`` likewise. Raises KmsConfigurationError.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[str], None],
        override: str | None = None,
        open_: _Open = open_kms,
        regions: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._report = report
        self._override = override
        self._regions = regions
        self._open = open_
        self._calls: Counter[str] = Counter()  # of those that are closed
        self.times = Calls()
        self._opened: dict[tuple[UUID | None, str, str], Provider] = {}
        self._seen = identity_of(self._path)
        self._use(configured(directory, override, regions))
        self.cell.open()

    @property
    def cell(self) -> Provider:
        """The cell's present KMS."""
        return self._provider(self._configuration.cell)

    @property
    def schemes(self) -> list[str]:
        """What is configured now, the cell's first."""
        self._look()
        entries = (self._configuration.cell, *self._configuration.kms)
        return list(dict.fromkeys(scheme_of(entry.uri) for entry in entries))

    @property
    def calls(self) -> dict[str, int]:
        """How often the KMSs of each scheme were asked."""
        counted = self._calls.copy()
        for provider in self._opened.values():
            counted[provider.scheme] += provider.calls
        return dict(counted)

    @property
    def regions(self) -> list[str]:
        """The regions whose keys this keeper opens and makes."""
        self._look()
        return list(self._configuration.regions)

    def check_region(self, region: str) -> None:
        """Raise RegionRefused for a key of a region that is not served."""
        if region not in self.regions:
            raise RegionRefused(
                f"this keeper does not serve region {region}",
                f"it serves {', '.join(self.regions)}; keys are opened by the keeper of their region",
            )

    def of(self, tenant: UUID, region: str) -> list[Provider]:
        """Return where a KEK of the tenant may be: where it is made now first. Raises RegionRefused."""
        self.check_region(region)
        entries = self._configuration.of(tenant, region)
        if not entries:
            raise RegionRefused(f"no key management service serves region {region}", "see: wardkey kms show")
        return [self._provider(entry) for entry in entries]

    def everywhere(self, tenant: UUID) -> list[Provider]:
        """Return where a KEK of the tenant may be, whatever its region."""
        self._look()
        return [self._provider(entry) for entry in self._configuration.of(tenant)]

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
            self._report(Line("kek_of_no_kms", "KMS: a KEK is of none that is configured"))
        raise KeyRefused(
            "the key management service refused the key",
            "tenant, version and region in the registry must be those it was wrapped for: wardkey doctor; "
            "see the keeper's log",
        )

    def named(self, tenant: UUID, kek: str, region: str | None = None) -> list[Provider]:
        """Return where this KEK may be, by what its name tells: nowhere if it is not the tenant's.

        ``region``: that of the key; left out where KEKs are ended.

        Else a DEK could be wrapped under the KEK of another tenant, and released to users of that one.
        """
        if str(tenant) not in kek:  # each provider names KEKs by their tenant
            return []
        providers = self.everywhere(tenant) if region is None else self.of(tenant, region)
        return [provider for provider in providers if may_hold(provider.uri, kek)]

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
            self._use(configured(self._directory, self._override, self._regions))
        except KmsConfigurationError as error:
            self._report(Line("kms_unusable", f"what {CONFIGURATION_FILE} said before still holds: {error}"))

    def _use(self, configuration: Configuration) -> None:
        self._configuration = configuration
        os.environ.update(configuration.environment)
        for identity in self._opened.keys() - {_identity(entry) for entry in configuration.everywhere()}:
            provider = self._opened.pop(identity)
            self._calls[provider.scheme] += provider.calls
            provider.close()

    def _provider(self, entry: Entry) -> Provider:
        identity = _identity(entry)
        if identity not in self._opened:
            self._opened[identity] = Provider(entry, self._directory, self._report, self._open, self.times)
        return self._opened[identity]


def _identity(entry: Entry) -> tuple[UUID | None, str, str]:
    return entry.tenant, entry.name, entry.uri
