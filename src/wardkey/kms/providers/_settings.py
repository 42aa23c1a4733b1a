"""What providers are told: a URI, which names the service, and guarded files, which hold credentials."""

from __future__ import annotations

import encodings.idna  # noqa: F401  Python imports it when the first host name is looked up: too late
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from wardkey.daemon.files import read_guarded

from ..base import KmsConfigurationError

__all__ = ["ca_bundle", "is_loopback", "parse_uri", "read_credential"]

_SYSTEM_CERTIFICATES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Red Hat
)


def parse_uri(uri: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return what stands between scheme and ``?``, and the options behind it. Raises KmsConfigurationError.

    What was written is not in the error: it may be a credential, which has no place in a URI.
    """
    address, _, query = uri.partition(":")[2].removeprefix("//").partition("?")
    try:
        pairs = parse_qsl(query, strict_parsing=bool(query))
    except ValueError:
        pairs = [("", "")]
    options = dict(pairs)
    if len(options) != len(pairs) or not options.keys() <= set(known):
        raise KmsConfigurationError(
            f"the KMS URI has an option that is unknown or there twice; known: {', '.join(sorted(known))}; "
            "credentials are read from files, never from a URI"
        )
    return address, options


def read_credential(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in ``path``, a file only its owner can read; None when there is no such file.

    Raises KmsConfigurationError.
    """
    document: Any = None
    try:
        document = json.loads(read_guarded(path, secret=True))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KmsConfigurationError(f"the KMS credential cannot be read: {error}") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KmsConfigurationError(f"{path} does not hold one JSON object")
    return document


def ca_bundle(own: Path) -> Path | None:
    """Return the certificates to check a service's with: ``own`` if it is there, else the system's.

    None stands for those the client brings, which are in its package, where the keeper may not read any more.
    """
    named = os.environ.get("SSL_CERT_FILE")
    candidates = (own, *((Path(named),) if named else ()), *_SYSTEM_CERTIFICATES)
    return next((path for path in candidates if path.exists()), None)


def is_loopback(host: str | None) -> bool:
    return host in ("127.0.0.1", "::1", "localhost")
