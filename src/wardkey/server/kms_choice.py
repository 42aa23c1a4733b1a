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

from .._files import UnsafeFileError, read_guarded, write_atomically
from ..errors import ServerError
from ..keeper.trust import locked
from ..kms import KmsError, configured, open_kms
from ..kms.configured import CONFIGURATION_FILE, DEFAULT_KMS, Configuration
from .home import Home
from .processes import OsUser, clean_environment

__all__ = ["THROUGH_KEEPER", "Choice", "Side", "check_move", "credential_files", "forget", "sides", "use"]

THROUGH_KEEPER = DEFAULT_KMS
"""What the orchestrator's kms.json says where the orchestrator has no credential of its own."""

_FILES: dict[str, tuple[str, ...]] = {
    "vault": ("vault.json", "vault-ca.pem"),
    "gcpkms": ("gcp.json", "gcp-ca.pem"),
    "awskms": ("aws.json", "awskms-ca.pem"),
    "pkcs11": ("pkcs11.pin",),
}


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

    def place(self, tenant: UUID | None) -> Path:
        """Return where the credentials are: the cell's, or those of a tenant's own KMS."""
        return self.directory if tenant is None else configured.directory_of(self.directory, tenant)

    def install(self, files: Mapping[str, bytes], tenant: UUID | None) -> None:
        """Put credentials in their place, readable by their owner alone."""
        owner = (self.owner.uid, self.owner.gid)
        with ExitStack() as stack:
            place = self.directory
            if tenant is not None:
                place = self._make(stack, self._make(stack, place, "tenants"), str(tenant))
            for name, data in files.items():
                write_atomically(place / name, data, owner=owner)

    def remove(self, tenant: UUID) -> None:
        """Remove the credentials of a tenant's own KMS."""
        with suppress(FileNotFoundError), ExitStack() as stack:
            shutil.rmtree(self._open(stack, self.directory, "tenants") / str(tenant))

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
    return _FILES.get(_scheme(uri), ())


def use(
    home: Home, choice: Choice, tenant: UUID | None = None, *, needed: Collection[str] | None = None
) -> bool:
    """Let the cell, or one tenant, use the KMS of ``choice``. True when a running keeper must be restarted.

    It cannot load a further package when it is not root any more, and has read credentials and environment.
    ``needed``: schemes under which keys are wrapped, None when that is not known. The KMS the cell used
    before goes on unwrapping if it is one of them. Raises ServerError.
    """
    names = credential_files(choice.uri)
    if len(names) < 2 and (choice.ca or (choice.credential and not names)):
        raise ServerError(f"{_scheme(choice.uri)}: takes no such file", "leave out --ca, or --credential")
    keeper, orchestrator = sides(home)
    with locked(home.keeper / CONFIGURATION_FILE):
        before, managed = keeper.read(), orchestrator.read()
        environment = {**before.environment, **choice.environment}
        now = managed.kms if tenant is None else managed.tenants.get(tenant, THROUGH_KEEPER)
        admin_uri = _admin_uri(choice, orchestrator.place(tenant), now)
        files = _files(choice.uri, keeper.place(tenant), choice.credential, choice.ca)
        admin_files = _files(admin_uri, orchestrator.place(tenant), choice.admin_credential, choice.ca)
        _try(home, choice.uri, keeper.place(tenant), files, environment)
        _try(home, admin_uri, orchestrator.place(tenant), admin_files, environment)
        known = _files(choice.uri, keeper.place(tenant), None, None)
        keeper.install(files, tenant)
        orchestrator.install(admin_files, tenant)
        if tenant is None:
            after = _moved(before, choice.uri, needed)
            manages = _following(managed, admin_uri, after)
        else:
            after = replace(before, tenants={**before.tenants, tenant: choice.uri})
            manages = replace(managed, tenants={**managed.tenants, tenant: admin_uri})
        orchestrator.write(replace(manages, environment={**managed.environment, **choice.environment}))
        keeper.write(replace(after, environment=environment))
    loaded = {_scheme(uri) for uri in _uris(before)}
    replaced = files != known and choice.uri in _uris(before)
    return environment != before.environment or replaced or _scheme(choice.uri) not in loaded


def forget(home: Home, tenant: UUID) -> None:
    """Remove what is there of a tenant's own KMS, credentials too: the tenant was not made, or is gone."""
    with locked(home.keeper / CONFIGURATION_FILE):
        for side in sides(home):
            said = side.read()
            if tenant in said.tenants:
                side.write(replace(said, tenants={k: v for k, v in said.tenants.items() if k != tenant}))
            side.remove(tenant)


def check_move(home: Home, uri: str) -> None:
    """Raise ServerError where a tenant's KEK would have the same name in its own KMS as in the cell's.

    A Vault's KEKs are named by their mount, and nothing in a name tells two Vaults apart.
    """
    said = sides(home)[0].read()
    if _mount(uri) and _mount(uri) in map(_mount, (said.kms, *said.former)):
        raise ServerError(
            f"the cell's Vault has a mount {_mount(uri)} too: two KEKs of the tenant would have one name",
            "mount the transit engine of the tenant's own Vault at another path",
        )


def _mount(uri: str) -> str | None:
    path = uri.partition("?")[0].removeprefix("vault://").partition("/")[2].strip("/")
    return (path or "transit") if _scheme(uri) == "vault" else None


def _admin_uri(choice: Choice, place: Path, now: str) -> str:
    """The orchestrator manages KEKs itself where it was given a URI or a credential, now or before."""
    if choice.admin_uri is None and now.partition("?")[0] == choice.uri.partition("?")[0]:
        return now
    known = credential_files(choice.uri)
    own = choice.admin_uri or choice.admin_credential or (known and (place / known[0]).exists())
    return (choice.admin_uri or choice.uri) if own else THROUGH_KEEPER


def _moved(before: Configuration, uri: str, needed: Collection[str] | None) -> Configuration:
    past = {_scheme(former): former for former in (before.kms, *before.former)}
    kept = [former for scheme, former in past.items() if needed is None or scheme in needed]
    return replace(
        before, kms=uri, former=tuple(former for former in kept if _scheme(former) != _scheme(uri))
    )


def _following(managed: Configuration, uri: str, keeper: Configuration) -> Configuration:
    """Return the orchestrator's configuration, with how it manages KEKs in each former KMS of the keeper."""
    own = {_scheme(former): former for former in (managed.kms, *managed.former)}
    former = {own.get(_scheme(each), THROUGH_KEEPER) for each in keeper.former}
    return replace(
        managed, kms=uri, former=tuple(sorted(each for each in former if _scheme(each) != _scheme(uri)))
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
    return (said.kms, *said.former, *said.tenants.values())


def _scheme(uri: str) -> str:
    return uri.partition(":")[0]
