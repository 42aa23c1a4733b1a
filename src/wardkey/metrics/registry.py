"""What a metric is, and all there are: those that the modules of ``families`` list in ``METRICS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final
from uuid import UUID

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from . import families

__all__ = ["MOST_SERIES", "PLATFORM", "Histogram", "Metric", "Reading", "Sample", "Values", "every", "render"]

MOST_SERIES: Final = 40
"""What Prometheus keeps of one tenant at most."""
PLATFORM: Final = UUID(int=0)
_COUNTS: Final = "select tenant_id, name, label, value from ward_internal.counts"


@dataclass(frozen=True, slots=True)
class Histogram:
    """``counts``: how many up to each bound and above the one before; one more for those above all."""

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    def family(self, name: str, text: str) -> Family:
        total, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.sum)


Sample = tuple[UUID, str, float] | tuple[UUID, str, Histogram]
"""Whose, the label's value or nothing, and the value."""
Values = Mapping[str, float | Histogram]
"""Of one metric and one tenant, by the label's value."""


@dataclass(slots=True)
class Reading:
    """What metrics are read from. ``keeper``: its status, None where it did not answer."""

    rows: Callable[[str], list[tuple[Any, ...]]]
    keeper: Mapping[str, Any] | None
    tenants: Sequence[UUID]
    _counts: dict[tuple[str, str], dict[UUID, int]] | None = None

    def counted(self, name: str, label: str) -> Mapping[UUID, int]:
        """Return a counter of ``ward_internal.counts`` by tenant, the platform's among them."""
        if self._counts is None:
            self._counts = {}
            for tenant, each, labelled, value in self.rows(_COUNTS):
                self._counts.setdefault((each, labelled), {})[tenant] = value
        return self._counts.get((name, label), {})


@dataclass(frozen=True, slots=True)
class Metric:
    """``kind``: counter, gauge or histogram. ``labels``: all values that its label may have.

    ``series``: how many of Prometheus' series it is at most.
    """

    name: str
    kind: str
    text: str
    read: Callable[[Reading], Iterable[Sample]]
    label: str = ""
    labels: Sequence[str] = ("",)
    buckets: int = 0
    is_of_tenants: bool = True

    @property
    def series(self) -> int:
        return self.buckets + 2 if self.kind == "histogram" else len(self.labels)

    def family(self, values: Values) -> Family:
        """Return what prometheus_client writes as text."""
        if self.kind == "histogram":
            (histogram,) = values.values()
            assert isinstance(histogram, Histogram)  # noqa: S101 - for mypy: ``read`` yields no other
            return histogram.family(self.name, self.text)
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.name, self.text, labels=[self.label] if self.label else [])
        for label, value in values.items():
            if label not in self.labels:
                raise ValueError(f"{self.name} has a label that it does not list")
            family.add_metric([label] if self.label else [], value)  # type: ignore[arg-type]
        return family


@cache
def every() -> Sequence[Metric]:
    """Return all metrics, by name."""
    modules = (import_module(f"{families.__name__}.{each.name}") for each in iter_modules(families.__path__))
    return sorted((metric for module in modules for metric in module.METRICS), key=lambda each: each.name)


class _Families:
    """What prometheus_client's exposition asks of a registry."""

    def __init__(self, made: Iterable[Family]) -> None:
        self._made = made

    def collect(self) -> Iterator[Family]:
        yield from self._made


def render(values: Mapping[Metric, Values]) -> bytes:
    """Return the text of OpenMetrics for these values."""
    from prometheus_client.openmetrics.exposition import generate_latest

    made = (metric.family(of_metric) for metric, of_metric in values.items() if of_metric)
    text: bytes = generate_latest(_Families(made))  # type: ignore[no-untyped-call]
    return text
