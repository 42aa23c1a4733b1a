"""How long things took, counted by how long: what Prometheus calls a histogram."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

__all__ = ["KMS_SECONDS", "RELEASE_SECONDS", "Latencies"]

RELEASE_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
KMS_SECONDS: Final = (0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5)


class Latencies:
    """``bounds``: seconds, rising. May be added to by several threads; one addition may then be lost."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def facts(self) -> dict[str, list[float] | list[int] | float]:
        """Return bounds, how many were up to each and above the one before or above all, and the sum."""
        return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": self._sum}
