"""HTTP answers of bounded size and time: who answers at a KMS's address need not be the KMS, or well."""

from __future__ import annotations

import time
from typing import Any

import requests
import requests.adapters

__all__ = ["BoundedAdapter"]

_MOST = 1024 * 1024  # bytes of an answer
_SECONDS = 3.0  # from an answer's first line to its last byte; requests' own timeout is for each piece
_PIECE = 65_536


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Reads an answer whole, and raises requests.ConnectionError when it is too long or takes too long."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "stream": True})
        until = time.monotonic() + _SECONDS
        body = bytearray()
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                body += piece
                if len(body) > _MOST or time.monotonic() > until:
                    response.close()
                    raise requests.ConnectionError("the answer is too long or too slow")
        except OSError:
            raise
        except Exception:  # urllib3's own
            response.close()
            raise requests.ConnectionError("the answer broke off") from None
        response._content, response._content_consumed = bytes(body), True
        response.raw.release_conn()
        return response
