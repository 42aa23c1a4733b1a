"""Tar archives sealed with age: the state of keeper and orchestrator, and what pg_basebackup sends.

Neither side writes them to a disk in clear: they are packed into the sealing and unpacked out of the opening
through a pipe. Any age program opens them too: ``age -d -i key.txt state.tar.age | tar x``.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import MissingSoftware, RestoreRefused, ServerError

__all__ = ["age", "identities", "open_stream", "opened", "pack", "recipients", "seal_stream"]

Entry = tuple[str, Path | bytes]
"""A name in the archive, and the file or the bytes that are it."""


def recipients(texts: Sequence[str]) -> list[Any]:
    """Read recipients, ``age1…`` or an SSH public key each. Raises ServerError, MissingSoftware."""
    pyrage = age()
    keys = []
    for text in texts:
        try:
            of = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
            keys.append(of.Recipient.from_str(text))
        except pyrage.RecipientError:
            raise ServerError(
                f"not an age recipient: {text[:12]}…",
                "make a key with age-keygen; the recipient is its age1… line",
            ) from None
    return keys


def identities(path: Path) -> list[Any]:
    """Read a file of ``age-keygen``, or an SSH private key. Raises ServerError, MissingSoftware, OSError."""
    pyrage, data = age(), path.read_bytes()
    try:
        if data.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(data)]
        lines = (line.strip() for line in data.decode().splitlines())
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (pyrage.IdentityError, UnicodeDecodeError):
        keys = []
    if not keys:
        raise ServerError(f"{path} has no age identity", "give the file that age-keygen wrote")
    return keys


def pack(entries: Iterable[Entry], to: Sequence[Any], stream: IO[bytes]) -> None:
    """Write ``entries`` to ``stream``, sealed. Raises OSError, ServerError."""

    def write(pipe: IO[bytes]) -> None:
        with tarfile.open(fileobj=pipe, mode="w|") as archive:
            for name, content in entries:
                _add(archive, name, content)

    with _beside(write) as pipe:
        seal_stream(pipe, stream, to)


def seal_stream(source: IO[bytes], target: IO[bytes], to: Sequence[Any]) -> None:
    """Write what ``source`` has to ``target``, sealed."""
    age().encrypt_io(source, target, list(to))


def open_stream(source: IO[bytes], target: IO[bytes], by: Sequence[Any]) -> None:
    """Write what is sealed in ``source`` to ``target``. Raises RestoreRefused for what does not open."""
    try:
        age().decrypt_io(source, target, list(by))
    except (age().DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file or pipe, not of what is in it
        raise RestoreRefused(
            "the backup does not open with this identity, or was changed",
            "give the identity of one of the recipients it was made for",
        ) from None


@contextmanager
def opened(stream: IO[bytes], by: Sequence[Any]) -> Iterator[Iterator[tuple[str, bytes]]]:
    """Yield names and contents, in the archive's order. Raises RestoreRefused for what does not open.

    The end of the file is authenticated when the block has ended, not before: keep nothing until then.
    """
    with _beside(lambda pipe: open_stream(stream, pipe, by)) as pipe:
        try:
            with tarfile.open(fileobj=pipe, mode="r|") as archive:
                yield ((one.name, _content(archive, one)) for one in archive)
            while pipe.read(1 << 16):
                pass  # so that the end is opened too
        except tarfile.TarError:
            raise RestoreRefused(
                "the state is no archive", "give a directory that wardkey backup made"
            ) from None


@contextmanager
def _beside(work: Callable[[IO[bytes]], None]) -> Iterator[IO[bytes]]:
    """Run ``work`` in a thread with one end of a pipe, yield the other end; raise what it raised."""
    reading, writing = os.pipe()
    failures: list[Exception] = []

    def run() -> None:
        try:
            with os.fdopen(writing, "wb") as end:
                work(end)
        except BrokenPipeError:
            pass  # the other side has had enough, and says why
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as end:
            yield end
    except Exception:
        thread.join()
        if failures:
            raise failures[0] from None
        raise
    thread.join()
    if failures:
        raise failures[0]


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    if isinstance(content, Path):
        content = content.read_bytes()  # whole: it may grow, or be replaced, while it is packed
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    parts = Path(member.name).parts
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or member.name.startswith("/") or ".." in parts:
        raise RestoreRefused(
            "the state has something that is no file of it", "it was not made by wardkey backup"
        )
    return file.read()


def age() -> Any:
    """Return the module that seals. Raises MissingSoftware."""
    try:
        import pyrage
    except ImportError:
        raise MissingSoftware(
            "backups are sealed with the package pyrage, which is not installed",
            "pip install 'wardkey[backup]'",
        ) from None
    return pyrage
