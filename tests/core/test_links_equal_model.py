"""The core's links do what the model's do: frame for frame, byte for byte, time for time; and the accounts add up."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from linked import LinkedHistory, LinkedPair, gso_stories, linked_histories, live_gso


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


@given(gso_stories)
@settings(max_examples=200)
def test_gso_frames_pending_checksums_and_tunnels(story: list[Any]) -> None:
    live_gso(story)
