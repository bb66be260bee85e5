"""Counters that cost next to nothing on the hot path, shown to Prometheus when it asks."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Metric = CounterMetricFamily | HistogramMetricFamily | GaugeMetricFamily


class _Figures:
    __slots__ = ("buckets", "calls", "seconds")

    def __init__(self) -> None:
        self.calls = 0
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0


class CallMetrics(Collector):
    """Model calls and their durations by endpoint, model and status; what others count, read when asked."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str, int], _Figures] = defaultdict(_Figures)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._counters: dict[str, tuple[str, Callable[[], float]]] = {}

    def record(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """Count one call that took `seconds`."""
        figures = self._figures[endpoint, model, status]
        figures.calls += 1
        figures.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        figures.seconds += seconds

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what `read` returns under `name`."""
        self._gauges[name] = (documentation, read)

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what `read` returns, and which only ever grows, under `name` and ``_total``."""
        self._counters[name] = (documentation, read)

    def collect(self) -> Iterator[Metric]:
        """Prometheus's view of it all."""
        labels = ["endpoint", "model", "status"]
        calls = CounterMetricFamily("lingpai_calls", "Model calls answered.", labels=labels)
        durations = HistogramMetricFamily(
            "lingpai_call_duration_seconds", "From the head of the request to the record.", labels=labels
        )
        for (endpoint, model, status), figures in list(self._figures.items()):
            values = [endpoint, model, str(status)]
            calls.add_metric(values, figures.calls)
            durations.add_metric(
                values, buckets=list(_cumulative(figures.buckets)), sum_value=figures.seconds
            )
        yield calls
        yield durations
        for name, (documentation, read) in self._gauges.items():
            yield GaugeMetricFamily(name, documentation, value=read())
        for name, (documentation, read) in self._counters.items():
            yield CounterMetricFamily(name, documentation, value=read())


def _cumulative(buckets: list[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], buckets, strict=True):
        total += count
        yield bound, total


def render(metrics: CallMetrics) -> bytes:
    """The metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry)
