"""Answers of bounded size and time: who answers at a KMS's address need not be the KMS, or well."""

from __future__ import annotations

import time

import urllib3

__all__ = ["BadAnswerError", "read_whole"]

_MOST = 1024 * 1024  # bytes of an answer
_SECONDS = 3.0  # from an answer's first line to its last byte; a client's own timeout is for each piece
_PIECE = 65_536


class BadAnswerError(Exception):
    """The answer is too long, takes too long, or broke off."""


def read_whole(raw: urllib3.BaseHTTPResponse, *, decode: bool) -> bytes:
    """Return the body of an answer and give its connection back. Raises BadAnswerError, OSError."""
    until = time.monotonic() + _SECONDS
    body = bytearray()
    try:
        while piece := raw.read1(_PIECE, decode_content=decode):
            body += piece
            if len(body) > _MOST or time.monotonic() > until:
                raw.close()
                raise BadAnswerError("the answer is too long or too slow")
    except (OSError, BadAnswerError):
        raise
    except Exception:  # urllib3's own
        raw.close()
        raise BadAnswerError("the answer broke off") from None
    raw.release_conn()
    return bytes(body)
