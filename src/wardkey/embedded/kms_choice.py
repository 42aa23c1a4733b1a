"""Which KMS a home uses: ``kms.json`` of keeper and orchestrator, and the credentials beside them.

Nothing is changed unless both can open the KMS: its package is here, the URI makes sense, credentials are
whole. The KMS itself is not asked; that is what ``wardkey kms check`` does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from ..daemon.files import UnsafeFileError, read_guarded, write_atomically
from ..daemon.programs import OsUser, clean_environment
from ..errors import ServerError
from ..keeper.trust import locked
from ..kms import (
    KmsConfigurationError,
    KmsError,
    configured,
    is_same,
    may_hold,
    open_kms,
    provider_of,
    scheme_of,
)
from ..kms.configured import CONFIGURATION_FILE, DEFAULT_KMS, TENANTS, Configuration, Own
from .home import Home

__all__ = [
    "THROUGH_KEEPER",
    "Choice",
    "Side",
    "check_move",
    "credential_files",
    "forget",
    "sides",
    "use",
    "use_cells",
]

THROUGH_KEEPER = DEFAULT_KMS
"""What the orchestrator's kms.json says where the orchestrator has no credential of its own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A KMS and what goes with it. ``admin_uri``, ``admin_credential``: the orchestrator's."""

    uri: str
    admin_uri: str | None = None
    credential: Path | None = None
    admin_credential: Path | None = None
    ca: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Side:
    """The keeper's or the orchestrator's directory, and who owns what is in it."""

    directory: Path
    owner: OsUser

    def read(self) -> Configuration:
        """Raises ServerError."""
        try:
            return configured.read(self.directory)
        except KmsError as error:
            raise ServerError(str(error), "mend the file, or restore it from a backup") from None

    def write(self, configuration: Configuration) -> None:
        configured.write(self.directory, configuration, (self.owner.uid, self.owner.gid))

    def place(self, tenant: UUID | None, number: int = 0) -> Path:
        """Return where the credentials are: the cell's, or those of a tenant's own KMS."""
        return self.directory if tenant is None else configured.directory_of(self.directory, tenant, number)

    def install(self, files: Mapping[str, bytes], tenant: UUID | None, number: int = 0) -> None:
        """Put credentials in their place, readable by their owner alone."""
        owner = (self.owner.uid, self.owner.gid)
        with ExitStack() as stack:
            place = self.directory
            if tenant is not None:
                for name in (TENANTS, str(tenant), *([str(number)] if number else ())):
                    place = self._make(stack, place, name)
            for name, data in files.items():
                write_atomically(place / name, data, owner=owner)

    def remove(self, tenant: UUID, gone: Own | None = None) -> None:
        """Remove the credentials of a tenant's own KMSes, or of one of them."""
        with suppress(FileNotFoundError), ExitStack() as stack:
            place = self._open(stack, self.directory, TENANTS)
            if gone is None:
                return shutil.rmtree(place / str(tenant))
            place = self._open(stack, place, str(tenant))
            if gone.place:
                return shutil.rmtree(place / str(gone.place))
            for name in credential_files(gone.kms):
                (place / name).unlink(missing_ok=True)

    def _make(self, stack: ExitStack, parent: Path, name: str) -> Path:
        with suppress(FileExistsError):
            (parent / name).mkdir(0o700)
        return self._open(stack, parent, name)

    def _open(self, stack: ExitStack, parent: Path, name: str) -> Path:
        """Return a path to a directory that its owner cannot turn into a symbolic link under root's hands."""
        descriptor = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        os.fchown(descriptor, self.owner.uid, self.owner.gid)
        os.fchmod(descriptor, 0o700)
        return Path(f"/proc/self/fd/{descriptor}")


def sides(home: Home) -> tuple[Side, Side]:
    """Return the keeper's side of ``home`` and the orchestrator's."""
    return Side(home.keeper, home.keeper_user()), Side(home.orchestrator, OsUser.current())


def credential_files(uri: str) -> tuple[str, ...]:
    """Return the names of the file with the credential and of that with trusted certificates, if any."""
    try:
        return provider_of(uri).files
    except KmsConfigurationError as error:
        raise ServerError(str(error)) from None


def use(
    home: Home, choice: Choice, tenant: UUID | None = None, *, needed: Collection[str] | None = None
) -> bool:
    """Let the cell, or one tenant, use the KMS of ``choice``. True when a running keeper must be restarted.

    It cannot load a further package when it is not root any more, and has read credentials and environment.
    ``needed``: schemes under which the cell's keys are wrapped, or the names of the KEKs that the tenant's
    are or were under, None when that is not known. The KMS used before goes on unwrapping if it may hold one
    of them. Raises ServerError.
    """
    names = credential_files(choice.uri)
    if len(names) < 2 and (choice.ca or (choice.credential and not names)):
        raise ServerError(f"{scheme_of(choice.uri)}: takes no such file", "leave out --ca, or --credential")
    keeper, orchestrator = sides(home)
    with locked(home.keeper / CONFIGURATION_FILE):
        before, managed = keeper.read(), orchestrator.read()
        environment = {**before.environment, **choice.environment}
        number = 0 if tenant is None else _number(before, tenant, choice.uri)
        places = [side.place(tenant, number) for side in (keeper, orchestrator)]
        admin_uri = _admin_uri(choice, places[1], _managing(managed, tenant, number))
        files = _files(choice.uri, places[0], choice.credential, choice.ca)
        admin_files = _files(admin_uri, places[1], choice.admin_credential, choice.ca)
        _try(home, choice.uri, places[0], files, environment)
        _try(home, admin_uri, places[1], admin_files, environment)
        known = _files(choice.uri, places[0], None, None)
        keeper.install(files, tenant, number)
        orchestrator.install(admin_files, tenant, number)
        if tenant is None:
            after = _moved(before, choice.uri, needed)
            manages = _following(managed, admin_uri, after)
        else:
            after = _brought(before, tenant, Own(choice.uri, number), needed)
            manages = _managed_so(managed, tenant, after, admin_uri)
        orchestrator.write(replace(manages, environment={**managed.environment, **choice.environment}))
        keeper.write(replace(after, environment=environment))
        if tenant is not None:
            _clear(home, tenant, before, after)
    loaded = {scheme_of(uri) for uri in _uris(before)}
    replaced = files != known and choice.uri in _uris(before)
    return environment != before.environment or replaced or scheme_of(choice.uri) not in loaded


def use_cells(home: Home, tenant: UUID, *, needed: Collection[str] | None = None) -> None:
    """Let a tenant go back to the cell's KMS. ``needed``: as for ``use``. Raises ServerError."""
    keeper, orchestrator = sides(home)
    with locked(home.keeper / CONFIGURATION_FILE):
        before, managed = keeper.read(), orchestrator.read()
        own, cells = before.own(tenant), (before.kms, *before.former)
        if own and scheme_of(own.kms) == "vault" and any(is_same(own.kms, other) for other in cells):
            raise ServerError(
                f"the cell's Vault has a mount {provider_of(own.kms).place(own.kms)} too:"
                " two KEKs would have one name",
                "move the tenant to another mount first, with wardkey kms use and wardkey keys rewrap",
            )
        after = _brought(before, tenant, None, needed)
        orchestrator.write(_managed_so(managed, tenant, after, None))
        keeper.write(after)
        _clear(home, tenant, before, after)


def forget(home: Home, tenant: UUID) -> None:
    """Remove what is there of a tenant's own KMSes, credentials too: the tenant was not made, or is gone."""
    with locked(home.keeper / CONFIGURATION_FILE):
        for side in sides(home):
            said = side.read()
            if said.owns(tenant):
                side.write(said.bring(tenant, None))
            side.remove(tenant)


def check_move(home: Home, uri: str, tenant: UUID | None = None) -> None:
    """Raise ServerError where a tenant's KEK would have the same name in two KMSes.

    A Vault's KEKs are named by their mount, and nothing in a name tells two Vaults apart: of the tenant's own
    ones, one at the same mount is the same one, maybe at another address.
    """
    said = sides(home)[0].read()
    if scheme_of(uri) == "vault" and any(is_same(uri, other) for other in (said.kms, *said.former)):
        raise ServerError(
            f"the cell's Vault has a mount {provider_of(uri).place(uri)} too:"
            " two KEKs of the tenant would have one name",
            "mount the transit engine of the tenant's own Vault at another path"
            + ("; the cell's KMS itself is: wardkey kms use cell --tenant" if tenant else ""),
        )


def _number(said: Configuration, tenant: UUID, uri: str) -> int:
    """Return the place of the tenant's KMS at ``uri``: the one it has, else a new one."""
    owns = said.owns(tenant)
    known = (own.place for own in owns if is_same(own.kms, uri))
    return next(known, max((own.place + 1 for own in owns), default=0))


def _managing(managed: Configuration, tenant: UUID | None, number: int) -> str:
    """Return how the orchestrator manages KEKs in this place until now."""
    if tenant is None:
        return managed.kms
    return next((own.kms for own in managed.owns(tenant) if own.place == number), THROUGH_KEEPER)


def _brought(
    before: Configuration, tenant: UUID, own: Own | None, needed: Collection[str] | None
) -> Configuration:
    """Return the keeper's configuration with the tenant's KMS; those before stay where they are needed."""
    left = [
        each
        for each in before.owns(tenant)
        if (own is None or each.place != own.place)
        and (needed is None or any(may_hold(each.kms, kek) for kek in needed))
    ]
    return before.bring(tenant, own, tuple(left))


def _managed_so(
    managed: Configuration, tenant: UUID, keeper: Configuration, admin_uri: str | None
) -> Configuration:
    """Return the orchestrator's configuration: how it manages KEKs in each of the tenant's KMSes."""
    own, left = keeper.own(tenant), keeper.left.get(tenant, ())
    return managed.bring(
        tenant,
        Own(admin_uri, own.place) if own and admin_uri else None,
        tuple(Own(_managing(managed, tenant, each.place), each.place) for each in left),
    )


def _clear(home: Home, tenant: UUID, before: Configuration, after: Configuration) -> None:
    """Remove the credentials of KMSes that the tenant does not need any more."""
    kept = {own.place for own in after.owns(tenant)}
    for gone in before.owns(tenant):
        if gone.place not in kept:
            for side in sides(home):
                side.remove(tenant, gone)


def _admin_uri(choice: Choice, place: Path, now: str) -> str:
    """The orchestrator manages KEKs itself where it was given a URI or a credential, now or before."""
    if choice.admin_uri is None and now.partition("?")[0] == choice.uri.partition("?")[0]:
        return now
    known = credential_files(choice.uri)
    own = choice.admin_uri or choice.admin_credential or (known and (place / known[0]).exists())
    return (choice.admin_uri or choice.uri) if own else THROUGH_KEEPER


def _moved(before: Configuration, uri: str, needed: Collection[str] | None) -> Configuration:
    past = {scheme_of(former): former for former in (before.kms, *before.former)}
    kept = [former for scheme, former in past.items() if needed is None or scheme in needed]
    return replace(
        before, kms=uri, former=tuple(former for former in kept if scheme_of(former) != scheme_of(uri))
    )


def _following(managed: Configuration, uri: str, keeper: Configuration) -> Configuration:
    """Return the orchestrator's configuration, with how it manages KEKs in each former KMS of the keeper."""
    own = {scheme_of(former): former for former in (managed.kms, *managed.former)}
    former = {own.get(scheme_of(each), THROUGH_KEEPER) for each in keeper.former}
    return replace(
        managed, kms=uri, former=tuple(sorted(each for each in former if scheme_of(each) != scheme_of(uri)))
    )


def _files(uri: str, place: Path, credential: Path | None, ca: Path | None) -> dict[str, bytes]:
    """Return the contents of the files that belong in ``place``: those given, else those it has."""
    found: dict[str, bytes] = {}
    for name, given in zip(credential_files(uri), (credential, ca), strict=False):
        try:
            if given is not None:
                found[name] = given.read_bytes()
            elif (place / name).exists():
                found[name] = read_guarded(place / name, secret=not name.endswith("-ca.pem"))
        except UnsafeFileError as error:
            raise ServerError(str(error)) from None
    return found


def _try(
    home: Home, uri: str, place: Path, files: Mapping[str, bytes], environment: Mapping[str, str]
) -> None:
    """Open the KMS with ``files``, which are to be in ``place``. Raises ServerError."""
    if uri == DEFAULT_KMS:
        return
    with tempfile.TemporaryDirectory(dir=home.orchestrator, prefix=".") as name:
        draft = Path(name)
        for file, data in files.items():
            write_atomically(draft / file, data)
        try:
            with _as_the_keeper_is_started(environment):
                open_kms(uri, draft)
        except KmsError as error:
            text = str(error).replace(str(draft), str(place))
            where = "give the files with --credential, --admin-credential and --ca"
            raise ServerError(text, where if str(place) in text else None) from None


@contextmanager
def _as_the_keeper_is_started(environment: Mapping[str, str]) -> Iterator[None]:
    """What the operator's shell has (VAULT_TOKEN, AWS_PROFILE …) the keeper will not have."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(clean_environment(**environment))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _uris(said: Configuration) -> tuple[str, ...]:
    tenants = (*said.tenants, *said.left)
    return (said.kms, *said.former, *(own.kms for tenant in tenants for own in said.owns(tenant)))
