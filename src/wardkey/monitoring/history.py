"""What Prometheus remembers: curves of the last hours, by its HTTP API.

https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Final
from urllib.parse import urlencode

from ..errors import ServerError, Unreachable
from . import panels

__all__ = ["HOURS", "History", "Points", "url"]

HOURS: Final = 6
_STEP: Final = 180  # seconds
_RATE: Final = "4m"  # a step and a scrape
_SECONDS, _MOST_BYTES = 20.0, 16 * 1024 * 1024

Points = Sequence[tuple[float, float]]
"""Seconds since the epoch and a finite number each, in their order."""


class History:
    """A Prometheus. ``end``: the newest moment, in seconds since the epoch."""

    def __init__(self, text: str) -> None:
        self._url, self.end = url(text), time.time()
        self.begin = self.end - HOURS * 3600

    def ask(self, expression: str) -> Sequence[tuple[Mapping[str, str], Points]]:
        """Return labels and points of what a panel's PromQL selects. Raises Unreachable."""
        query = expression.replace(panels.RATE, _RATE)
        asked = {"query": query, "start": self.begin, "end": self.end, "step": _STEP}
        address = f"{self._url}/api/v1/query_range"
        try:
            with urllib.request.urlopen(  # noqa: S310 - ``url`` looked at its scheme
                address, urlencode(asked).encode(), timeout=_SECONDS
            ) as answer:
                series = json.loads(answer.read(_MOST_BYTES))["data"]["result"]
            return [({**one["metric"]}, _points(one["values"])) for one in series]
        except urllib.error.HTTPError as error:
            error.close()
            trouble = f"HTTP status {error.code}"
        except OSError:
            trouble = "no connection"
        except (HTTPException, ValueError, TypeError, KeyError):
            trouble = "its answer is not Prometheus'"
        raise Unreachable(
            f"Prometheus cannot be asked: {trouble}", "check --prometheus, or leave it out: no curves then"
        )


def url(text: str) -> str:
    """Return an address of HTTP without a slash at its end. Raises ServerError."""
    if not re.fullmatch(r"https?://[\w.~:/{}\[\]%-]+", text, re.ASCII):
        raise ServerError(
            "not an address of HTTP, or one with a password or a query", "write it as http://127.0.0.1:9090"
        )
    return text.rstrip("/")


def _points(values: Sequence[tuple[float, str]]) -> Points:
    return [(at, float(text)) for at, text in values if math.isfinite(float(text))]
