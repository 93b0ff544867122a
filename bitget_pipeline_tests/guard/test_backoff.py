"""Waits that grow, stay below their ceiling and are not the same for all."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bitget_pipeline.guard.backoff import Backoff

backoffs = st.builds(
    Backoff, base=st.floats(0.01, 10), ceiling=st.floats(10, 600), factor=st.floats(1, 5), jitter=st.floats(0, 1)
)


@given(backoffs, st.integers(1, 10_000), st.integers())
def test_a_wait_lies_between_its_jitter_and_its_ceiling(backoff: Backoff, failures: int, seed: int) -> None:
    """After however many failures."""
    wait = backoff.delay(failures, Random(seed))
    assert 0 <= wait <= backoff.ceiling
    assert wait >= min(backoff.base, backoff.ceiling) * (1 - backoff.jitter) * (1 - 1e-9)


@given(backoffs, st.integers(1, 40))
def test_without_chance_waits_never_shrink(backoff: Backoff, failures: int) -> None:
    """The longest wait after one more failure is at least as long."""

    class Never(Random):
        def random(self) -> float:
            return 0.0

    assert backoff.delay(failures, Never()) <= backoff.delay(failures + 1, Never())


def test_a_seed_makes_the_waits_repeatable_and_no_failure_needs_none() -> None:
    """Chance is given."""
    assert [Backoff().delay(n, Random(7)) for n in range(5)] == [Backoff().delay(n, Random(7)) for n in range(5)]
    assert Backoff().delay(0, Random(7)) == 0.0
    assert Backoff().delay(3, Random(1)) != Backoff().delay(3, Random(2))
