"""Metrics: what Prometheus reads is well formed, cumulative and complete."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lingpai.telemetry.metrics import BUCKETS_S, CallMetrics, render


def families(metrics: CallMetrics) -> dict:
    return {family.name: family for family in text_string_to_metric_families(render(metrics).decode())}


def samples(metrics: CallMetrics, name: str) -> dict[tuple, float]:
    """Values of one sample name by its labels."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families(metrics).values()
        for sample in family.samples
        if sample.name == name
    }


def buckets(metrics: CallMetrics) -> list[float]:
    name = "lingpai_call_duration_seconds_bucket"
    found = {dict(labels)["le"]: value for labels, value in samples(metrics, name).items()}
    return [found[bound] for bound in [*map(str, BUCKETS_S), "+Inf"]]


def labels(endpoint: str, model: str, status: str) -> tuple:
    return (("endpoint", endpoint), ("model", model), ("status", status))


def test_calls_are_counted_by_endpoint_model_and_status():
    metrics = CallMetrics()
    metrics.record("chat.completions", "a", 200, 0.1)
    metrics.record("chat.completions", "a", 200, 0.1)
    metrics.record("chat.completions", "a", 429, 0.0)
    metrics.record("embeddings", "b", 200, 0.1)

    assert samples(metrics, "lingpai_calls_total") == {
        labels("chat.completions", "a", "200"): 2,
        labels("chat.completions", "a", "429"): 1,
        labels("embeddings", "b", "200"): 1,
    }


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.005, 0), (0.0051, 1), (300.0, 13), (301.0, 14), (1e9, 14)]
)
def test_duration_falls_into_the_bucket_that_includes_its_bound(seconds, bucket):
    metrics = CallMetrics()

    metrics.record("chat.completions", "a", 200, seconds)

    assert buckets(metrics) == [0] * bucket + [1] * (15 - bucket)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1000), min_size=1))
def test_buckets_are_cumulative_and_agree_with_count_and_sum(durations):
    metrics = CallMetrics()

    for seconds in durations:
        metrics.record("predict", "m", 200, seconds)

    expected = [sum(seconds <= bound for seconds in durations) for bound in (*BUCKETS_S, float("inf"))]
    assert buckets(metrics) == expected
    (count,) = samples(metrics, "lingpai_call_duration_seconds_count").values()
    (total,) = samples(metrics, "lingpai_call_duration_seconds_sum").values()
    assert count == len(durations)
    assert total == pytest.approx(sum(durations))


def test_gauge_is_read_when_asked():
    metrics = CallMetrics()
    value = [1.0]
    metrics.gauge("lingpai_connections", "Open connections.", lambda: value[0])
    value[0] = 7.0

    assert samples(metrics, "lingpai_connections") == {(): 7.0}


def test_nothing_recorded_is_well_formed_too():
    assert {"lingpai_calls", "lingpai_call_duration_seconds"} <= families(CallMetrics()).keys()


@pytest.mark.parametrize("model", ['a"b', "a\nb", "a\\b", "a{b}", "模型"])
def test_no_model_name_can_forge_a_line(model):
    metrics = CallMetrics()

    metrics.record("chat.completions", model, 200, 0.1)

    assert samples(metrics, "lingpai_calls_total") == {labels("chat.completions", model, "200"): 1}


def test_asking_twice_counts_nothing_twice():
    metrics = CallMetrics()
    metrics.record("predict", "m", 200, 0.1)

    assert render(metrics) == render(metrics)


def test_counter_shows_what_somebody_else_counts():
    metrics = CallMetrics()
    metrics.counter("lingpai_key_lookups", "Keys looked up.", lambda: 3)

    assert samples(metrics, "lingpai_key_lookups_total") == {(): 3.0}
