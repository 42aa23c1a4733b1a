"""The same for ``requests``: answers of bounded size and time."""

from __future__ import annotations

from typing import Any

import requests
import requests.adapters

from ._answers import BadAnswerError, read_whole

__all__ = ["BoundedAdapter"]


class BoundedAdapter(requests.adapters.HTTPAdapter):
    """Reads an answer whole, and raises requests.ConnectionError when it is too long or takes too long."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "stream": True})
        failure = ""
        try:
            response._content, response._content_consumed = read_whole(response.raw, decode=True), True
        except BadAnswerError as error:
            failure = str(error)
        if failure:
            response.close()
            raise requests.ConnectionError(failure)
        return response
