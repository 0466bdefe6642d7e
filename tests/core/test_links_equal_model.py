"""The core's links do what the model's do: frame for frame, byte for byte, time for time; and the accounts add up."""

from __future__ import annotations

from hypothesis import given, settings
from linked import LinkedHistory, LinkedPair, linked_histories


def live(history: LinkedHistory) -> LinkedPair:
    both = LinkedPair(history.ports)
    for step in history.steps:
        both.live(step)
    return both


@given(linked_histories())
@settings(max_examples=300)
def test_any_history(history: LinkedHistory) -> None:
    live(history)


@given(linked_histories(policed=True))
@settings(max_examples=200)
def test_any_policed_history(history: LinkedHistory) -> None:
    live(history)
