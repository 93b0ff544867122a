"""A scrape asks everybody at once, and answers in time whoever is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client.core import GaugeMetricFamily, Metric

from bitget_pipeline.errors import StoreUnavailable
from bitget_pipeline.pipeline.metrics.sources import Collector, Source


def figure(value: float) -> list[Metric]:
    """One family with one sample."""
    family = GaugeMetricFamily("answer", "what a source says", labels=())
    family.add_metric((), value)
    return [family]


def told(collector: Collector) -> dict[tuple[str, ...], float]:
    """One scrape: values by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }


@contextmanager
def collecting(*sources: Source, within: float = 60.0) -> Iterator[Collector]:
    """A collector that is closed afterwards."""
    collector = Collector(sources, within=within)
    try:
        yield collector
    finally:
        collector.close()


def test_a_source_that_is_down_is_named_and_hides_nobody() -> None:
    """
    Its own figures are missing, the other's are there.
    """

    def down() -> Sequence[Metric]:
        raise StoreUnavailable("nobody answers")

    with collecting(Source("redis", down), Source("clickhouse", lambda: figure(7))) as collector:
        got = told(collector)

    assert got["bitget_pipeline_source_up", "redis"] == 0
    assert got["bitget_pipeline_source_up", "clickhouse"] == 1
    assert got["answer",] == 7
    assert ("bitget_pipeline_source_last_success_timestamp_seconds", "redis") not in got
    assert got["bitget_pipeline_source_last_success_timestamp_seconds", "clickhouse"] <= time.time()


def test_a_source_that_hangs_is_asked_once_and_delays_nobody_for_long() -> None:
    """
    Scrapes go on without it; when it answers at last, that answer is too old, and it is asked anew.
    """
    let_go, asked = threading.Event(), []

    def hanging() -> Sequence[Metric]:
        asked.append(time.monotonic())
        let_go.wait(100)
        return figure(len(asked))

    with collecting(Source("redis", hanging), within=0.05) as collector:
        for _ in range(3):
            assert told(collector)["bitget_pipeline_source_up", "redis"] == 0
        assert len(asked) == 1
        let_go.set()
        got: dict[tuple[str, ...], float] = {}

        def anew() -> bool:
            got.update(told(collector))
            return got.get(("answer",), 0) >= 2

        _until(anew)

    assert got["bitget_pipeline_source_up", "redis"] == 1


def test_an_answer_that_holds_is_not_asked_for_again() -> None:
    """
    However often Prometheus scrapes, ClickHouse is asked as often as was said.
    """
    asked: list[int] = []

    def answer() -> Sequence[Metric]:
        asked.append(1)
        return figure(len(asked))

    with collecting(Source("clickhouse", answer, fresh_for=3600.0), Source("redis", answer)) as collector:
        for _ in range(4):
            told(collector)

    assert len(asked) == 1 + 4


def test_a_source_that_comes_back_is_heard_again() -> None:
    """
    And one that went away after it had answered is not shown with old figures.
    """
    answers = iter([figure(1), StoreUnavailable("it restarts"), figure(2)])

    def ask() -> Sequence[Metric]:
        answer = next(answers)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    with collecting(Source("redis", ask)) as collector:
        first, second, third = told(collector), told(collector), told(collector)

    assert (first["answer",], third["answer",]) == (1, 2)
    assert ("answer",) not in second
    stamp = ("bitget_pipeline_source_last_success_timestamp_seconds", "redis")
    assert second[stamp] == first[stamp] <= third[stamp]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
