"""Where Redis is, for the invalidator: ``cache.json``, with the password of a user that may set up others."""

from __future__ import annotations

from os import urandom
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from wardkey_core.wire import parse_json

from ..daemon.files import UnsafeFileError, read_guarded, write_atomically
from ..errors import CacheError

__all__ = ["CONFIGURATION_FILE", "Configuration", "parse", "read", "write"]

CONFIGURATION_FILE: Final = "cache.json"
_WRITE_AGAIN: Final = "write it again: wardkey cache use redis://HOST:PORT"


class Configuration(Struct, frozen=True, forbid_unknown_fields=True):
    """``url``: as it was given, may have a user and password. ``password``: of the invalidator's own user."""

    url: str
    password: str

    def __repr__(self) -> str:
        return f"Configuration({self.public_url!r})"

    @property
    def public_url(self) -> str:
        """The URL without user and password."""
        scheme, _, rest = self.url.partition("://")
        place, slash, path = rest.partition("/")
        return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def parse(url: str, former: Configuration | None = None) -> Configuration:
    """Return a configuration for Redis at ``url``, with the password of ``former`` if that is the same.

    Raises CacheError, which does not tell the URL.
    """
    try:
        parts = urlsplit(url)
        is_place = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_place = False
    if not is_place or parts.scheme not in ("redis", "rediss", "unix") or "password" in parts.query:
        raise CacheError(
            "that is no URL of Redis", "redis://[USER:PASSWORD@]HOST:PORT, rediss:// for TLS, unix:///PATH"
        )
    made = Configuration(url, urandom(32).hex())
    if former is not None and former.public_url == made.public_url:
        return Configuration(url, former.password)
    return made


def read(path: Path) -> Configuration | None:
    """Return what the file says, None where there is none. Raises CacheError."""
    try:
        return msgspec.convert(parse_json(read_guarded(path, secret=True)), Configuration)
    except FileNotFoundError:
        return None
    except UnsafeFileError as error:
        raise CacheError(str(error)) from None
    except ValueError:  # msgspec's, too
        raise CacheError(f"{path} is damaged", _WRITE_AGAIN) from None


def write(path: Path, configuration: Configuration, owner: tuple[int, int] | None = None) -> None:
    """Write the file, for its owner only."""
    write_atomically(path, msgspec.json.encode(configuration) + b"\n", owner=owner)
