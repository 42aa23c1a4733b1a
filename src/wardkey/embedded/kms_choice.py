"""Which KMS a home uses: ``kms.json`` of keeper and orchestrator, and the credentials beside them.

Both have the same list. The orchestrator's is believed here: the keeper's user may change only the keeper's.
Nothing is changed unless both can open the KMS: its package is here, the URI makes sense, credentials are
whole. The KMS itself is not asked; that is what ``wardkey kms check`` does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from ..daemon.files import UnsafeFileError, locked, read_guarded, write_atomically
from ..daemon.programs import OsUser, clean_environment
from ..errors import ServerError
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
from ..kms.configured import DEFAULT_KMS, TENANTS, Configuration, Entry
from .home import Home

__all__ = [
    "Choice",
    "Side",
    "check_move",
    "credential_files",
    "forget",
    "serve",
    "sides",
    "use",
    "use_cells",
]


@dataclass(frozen=True, slots=True)
class Choice:
    """A KMS and what goes with it. ``admin_uri``, ``admin_credential``: the orchestrator's.

    ``regions``: the address that the URI has in each region; those that it had if none are given.
    """

    uri: str
    admin_uri: str | None = None
    credential: Path | None = None
    admin_credential: Path | None = None
    ca: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    regions: Mapping[str, str] = field(default_factory=dict)


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
            raise ServerError(str(error), "correct the file, or restore it from a backup") from None

    def write(self, configuration: Configuration) -> None:
        configured.write(self.directory, configuration, (self.owner.uid, self.owner.gid))

    def install(self, files: Mapping[str, bytes], entry: Entry) -> None:
        """Put credentials in their place, readable by their owner alone."""
        with ExitStack() as stack:
            place = self.directory
            for name in entry.directory(place).relative_to(place).parts:
                with suppress(FileExistsError):
                    (place / name).mkdir(0o700)
                place = self._open(stack, place / name)
            for name, data in files.items():
                write_atomically(place / name, data, owner=(self.owner.uid, self.owner.gid))

    def remove(self, tenant: UUID, name: str = "") -> None:
        """Remove the credentials of a tenant's own KMSes, or of the one of this name."""
        with suppress(FileNotFoundError), ExitStack() as stack:
            place = self._open(stack, self.directory / TENANTS)
            if name:
                place = self._open(stack, place / str(tenant))
            shutil.rmtree(place / (name or str(tenant)))

    def _open(self, stack: ExitStack, path: Path) -> Path:
        """Return a path to a directory that its owner cannot turn into a symbolic link under root's hands."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
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
    ``needed``: the names of the KEKs that keys of the cell, or of the tenant, are or were wrapped under, None
    when that is not known. The KMSes used before go on unwrapping if they may hold one of them. Raises
    ServerError.
    """
    names = credential_files(choice.uri)
    if len(names) < 2 and (choice.ca or (choice.credential and not names)):
        raise ServerError(f"{scheme_of(choice.uri)}: takes no such file", "leave out --ca, or --credential")
    keeper, orchestrator = sides(home)
    with locked(home.keeper):
        before = orchestrator.read()
        environment = {**before.environment, **choice.environment}
        entry = _entry(before, choice, tenant)
        places = [entry.directory(side.directory) for side in (keeper, orchestrator)]
        entry = replace(entry, admin=_admin_uri(choice, places[1], entry.admin))
        files = _files(choice.uri, places[0], choice.credential, choice.ca)
        admin_files = _files(entry.admin or DEFAULT_KMS, places[1], choice.admin_credential, choice.ca)
        _try(home, choice.uri, places[0], files, environment)
        _try(home, entry.admin or DEFAULT_KMS, places[1], admin_files, environment)
        replaced = files != _files(choice.uri, places[0], None, None)
        keeper.install(files, entry)
        orchestrator.install(admin_files, entry)
        after = before.with_owned(tenant, [entry, *_left(before, entry, tenant, needed)])
        _write(home, replace(after, environment=environment))
    uris = {each.uri for each in before.kms}
    must_load = scheme_of(choice.uri) not in map(scheme_of, uris)
    return environment != before.environment or (replaced and choice.uri in uris) or must_load


def serve(home: Home, regions: Sequence[str]) -> None:
    """Have the keeper make and open keys of these regions only; one that runs does so at once."""
    with locked(home.keeper):
        _write(home, replace(sides(home)[1].read(), regions=tuple(dict.fromkeys(regions))))


def use_cells(home: Home, tenant: UUID, *, needed: Collection[str] | None = None) -> None:
    """Let a tenant go back to the cell's KMS. ``needed``: as for ``use``. Raises ServerError."""
    with locked(home.keeper):
        before = sides(home)[1].read()
        for own in before.owned(tenant):
            if not own.is_left:
                hint = "move the tenant to another mount first, with wardkey kms use and wardkey keys rewrap"
                _check_names(before, own.uri, hint)
        _write(home, before.with_owned(tenant, _left(before, None, tenant, needed)))


def forget(home: Home, tenant: UUID) -> None:
    """Remove what is there of a tenant's own KMSes, credentials too: the tenant was not made, or is gone."""
    with locked(home.keeper):
        if any(side.read().owned(tenant) for side in sides(home)):
            _write(home, sides(home)[1].read().with_owned(tenant, ()))
        for side in sides(home):
            side.remove(tenant)


def check_move(home: Home, uri: str, tenant: UUID | None = None) -> None:
    """Raise ServerError where a tenant's KEK would have the same name in two KMSes.

    Of the tenant's own ones, one at the same place is the same one, maybe at another address.
    """
    hint = "mount the transit engine of the tenant's own Vault at another path"
    if tenant:
        hint += "; the cell's KMS itself is: wardkey kms use cell --tenant"
    _check_names(sides(home)[1].read(), uri, hint)


def _check_names(configuration: Configuration, uri: str, hint: str) -> None:
    provider = provider_of(uri)
    if not provider.names_tell and any(is_same(uri, cells.uri) for cells in configuration.owned(None)):
        place = provider.place(uri)
        raise ServerError(f"the cell's Vault has a mount {place} too: two KEKs would have one name", hint)


def _entry(before: Configuration, choice: Choice, tenant: UUID | None) -> Entry:
    """Return the entry for the KMS: name, regions and ``admin`` are those it has already, if any."""
    owned = before.owned(tenant)
    for known in owned:
        if is_same(known.uri, choice.uri):
            return replace(
                known, uri=choice.uri, state="present", regions=dict(choice.regions) or known.regions
            )
    new = str(max((int(own.name) + 1 for own in owned), default=0)) if tenant else ""
    return Entry(choice.uri, tenant, name=new, regions=dict(choice.regions))


def _left(
    before: Configuration, entry: Entry | None, tenant: UUID | None, needed: Collection[str] | None
) -> list[Entry]:
    """Return the KMSes used before in place of ``entry`` that may hold one of the KEKs ``needed``."""
    return [
        replace(each, state="left")
        for each in before.owned(tenant)
        if (entry is None or each.name != entry.name)
        and (needed is None or any(may_hold(each.uri, kek) for kek in needed))
    ]


def _write(home: Home, after: Configuration) -> None:
    """Replace both files. The credentials of tenants' KMSes that are not used any more are removed."""
    keeper, orchestrator = sides(home)
    gone = {entry.key for entry in orchestrator.read().kms} - {entry.key for entry in after.kms}
    for side in (orchestrator, keeper):
        side.write(after)
        for tenant, name in gone:
            if tenant is not None:
                side.remove(tenant, name)


def _admin_uri(choice: Choice, place: Path, now: str | None) -> str | None:
    """The orchestrator manages KEKs itself where it was given a URI or a credential, now or before."""
    if choice.admin_uri is None and now and now.partition("?")[0] == choice.uri.partition("?")[0]:
        return now
    known = credential_files(choice.uri)
    own = choice.admin_uri or choice.admin_credential or (known and (place / known[0]).exists())
    return (choice.admin_uri or choice.uri) if own else None


def _files(uri: str, place: Path, credential: Path | None, ca: Path | None) -> dict[str, bytes]:
    """Return the contents of the files that belong in ``place``: those given, else those it has."""
    contents: dict[str, bytes] = {}
    for name, given in zip(credential_files(uri), (credential, ca), strict=False):
        try:
            if given is not None:
                contents[name] = given.read_bytes()
            elif (place / name).exists():
                contents[name] = read_guarded(place / name, secret=not name.endswith("-ca.pem"))
        except UnsafeFileError as error:
            raise ServerError(str(error)) from None
    return contents


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
        shell = dict(os.environ)
        try:  # what the operator's shell has (VAULT_TOKEN, AWS_PROFILE …) the keeper will not have
            os.environ.clear()
            os.environ.update(clean_environment(**environment))
            open_kms(uri, draft)
        except KmsError as error:
            text = str(error).replace(str(draft), str(place))
            where = "give the files with --credential, --admin-credential and --ca"
            raise ServerError(text, where if str(place) in text else None) from None
        finally:
            os.environ.clear()
            os.environ.update(shell)
