"""What the switch says it would do with a frame is what it then does, and saying it changes nothing."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from clock import Clock
from effort import examples
from frames import GROUP, ethernet, tag
from hypothesis import given, settings
from pair import Pair, pair, whole
from strategies import History, Process, guarded_histories, histories

from fastbridge import ConfigError, MemorySwitch, Message, Neighbours, Policy, StormControl, Switch, Verdict
from fastbridge.core.codes import DROP_REASONS
from fastbridge.policy.base import Answer
from fastbridge.switch.explain import _DROPS_AT, REASONS, Explanation

X, Y, Z = 0x02_00_00_00_00_11, 0x02_00_00_00_00_12, 0x02_00_00_00_00_13


def happens(core: MemorySwitch, ingress: int, frame: bytes) -> dict[str, Any]:
    """What really becomes of a frame."""
    before = core.counters().policy
    with core.trace() as trace:
        copies = core.process(ingress, [frame])
        (event,) = trace.read()
    drops = {
        name.partition(":")[2]: count - before.get(name, 0)
        for name, count in core.counters().policy.items()
        if name.startswith("dropped:")
    }
    return {
        "action": event.action,
        "reason": event.reason or next((reason for reason, count in drops.items() if count), None),
        "learned": event.learned,
        "copies": [(core.ports[port].name, copy) for port, copy in copies],
    }


def foreseen(said: Explanation) -> dict[str, Any]:
    """The same as it is foreseen."""
    # What a policy lets pass, the core may drop: no counter has that. Nor is an answer to the switch a drop.
    uncounted = said.reason == "heard" or (said.action == "consumed" and said.reason in DROP_REASONS)
    reason = None if uncounted else said.reason
    return {"action": said.action, "reason": reason, "learned": said.learned, "copies": said.copies}


def lives(both: Pair, history: History) -> None:
    """Live a history frame by frame; before each, say what becomes of it. The model sees if that changed a thing."""
    for step in history.steps:
        if not isinstance(step, Process):
            both.live(step)
            continue
        for frame in step.frames:
            said = both.core.explain(step.ingress, frame)
            assert both.core.explain(step.ingress, frame) == said
            both.compare()
            what, would = happens(both.core, step.ingress, frame), foreseen(said)
            assert [(int(port), copy) for port, copy in what["copies"]] == both.model.process(step.ingress, [frame])
            if would["copies"] is None:  # a policy of its own code is not asked
                would["copies"], would["reason"] = what["copies"], what["reason"]
            assert what == would, "\n".join(map(str, said.steps))
            both.compare()


@given(histories())
@settings(max_examples=examples(50))
def test_any_history(history: History) -> None:
    lives(pair(history, whole), history)


@given(guarded_histories())
@settings(max_examples=examples(50))
def test_any_guarded_history(history: History) -> None:
    lives(pair(history, whole), history)


@given(histories())
@settings(max_examples=examples(50))
def test_a_frame_sent_in_is_a_frame_received(history: History) -> None:
    both = pair(history, whole)
    for step in history.steps:
        if not isinstance(step, Process):
            both.live(step)
            continue
        for frame in step.frames:
            said = both.core.send_in(step.ingress, frame)
            assert said.sent
            assert said.copies == [(f"{port}", copy) for port, copy in both.model.process(step.ingress, [frame])]
            both.compare()


def test_the_evicted_entry_is_the_destination() -> None:
    """A new station takes the very entry that its frame is for: it is flooded."""
    new = 0x02_00_00_00_00_99
    fates = set()
    for destination in (X, Y, Z) * 20:  # which of them goes is left to chance
        switch = Switch.in_memory(3, capacity=3)
        switch.process(0, [ethernet(GROUP, X), ethernet(GROUP, Y), ethernet(GROUP, Z)])
        said = switch.explain(1, ethernet(destination, new))
        assert foreseen(said) == happens(switch, 1, ethernet(destination, new))
        fates.add(said.action)
    assert fates == {"flooded", "forwarded"}


@pytest.mark.parametrize("count", [10, 300, 1500])
def test_which_entry_makes_room(count: int) -> None:
    """In a full FDB of any size, growing or not."""
    clock = Clock()
    switch = Switch.in_memory(3, capacity=count, clock=clock)
    for n in range(count):
        clock.now += 0.001
        switch.process(0, [ethernet(GROUP, 2 + (n << 8))])
    for n in range(count // 3):
        frame = ethernet(GROUP, 4 << 40 | n)
        said = switch.explain(1, frame)
        assert "in place of" in said.steps[2].text
        with switch.monitor(["evicted"]) as monitor:
            switch.process(1, [frame])
            (event,) = monitor.read() or ()
        assert event["mac"] in said.steps[2].text


def test_a_full_queue_of_the_policy() -> None:
    """What the policy has no room for falls back, as foreseen."""
    request = ethernet(GROUP, X, ethertype=0x0806, payload=struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20))
    for policy, fate in ("suppress", "flooded"), ("guard", "dropped"):
        switch = Switch.in_memory(3, policy=policy)
        long = request.ljust(600, b"\0")
        assert foreseen(switch.explain(0, long)) == happens(switch, 0, long)
        assert switch.explain(0, long).action == fate
        switch._policing._punting.set_stalled(True)
        assert foreseen(switch.explain(0, request)) == happens(switch, 0, request)
        assert switch.explain(0, request).action == fate


class Counts(Policy):
    """A policy of its own code."""

    asked = 0

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        self.asked += 1
        return Answer(message.frame)


def test_other_policies_are_not_asked() -> None:
    policy = Counts()
    switch = Switch.in_memory(2, policy=policy)
    request = ethernet(GROUP, X, ethertype=0x0806, payload=struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20))
    said = switch.explain(0, request)
    assert (policy.asked, said.action, said.copies) == (0, "consumed", None)


def test_every_reason_has_its_step_and_its_words() -> None:
    assert REASONS.keys() == DROP_REASONS.keys() == _DROPS_AT.keys()


def test_the_steps_of_a_flooded_frame() -> None:
    switch = Switch.in_memory(["a", "b", "c", "d", "e"])
    switch.set_flags("c", broadcast_flood=False)
    switch.set_flags("a", isolated=True)
    switch.set_flags("d", isolated=True)
    switch._dataplane.set_link(4, "down")
    said = switch.explain("a", ethernet(GROUP, X, tag(5)))
    assert [(step.stage, step.result) for step in said.steps] == [
        ("parse", "pass"),
        ("port", "pass"),
        ("learn", "pass"),
        ("look up", "flood"),
        ("copies", "flood"),
    ]
    left_out = "b; not: a (it came from there), c (broadcast_flood is off), d (isolated), e (down)"
    assert said.steps[-1].text == left_out
    assert said.egress == ("b",)
    assert said.as_list()[-1]["egress"] == ["b"]
    assert "VLAN 5" in said.steps[0].text
    assert str(said).splitlines()[-1] == f"└─ copies   flood    {left_out}"


def test_what_drops_a_frame_ends_its_way() -> None:
    switch = Switch.in_memory(2)
    switch.set_storm_control(StormControl(broadcast=4))
    switch.process(0, [ethernet(GROUP, X)])
    said = switch.explain(0, ethernet(GROUP, X))
    *_, last, copies = said.steps
    assert (last.stage, last.result, last.reason, copies.text) == ("look up", "drop", "storm_broadcast", "none")
    assert [step.stage for step in switch.explain(0, b"short").steps] == ["parse", "copies"]


@pytest.mark.parametrize("wrong", [("9", b"\0" * 60), (0, bytes(1 << 17))])
def test_a_wrong_request(wrong: tuple[str | int, bytes]) -> None:
    with pytest.raises(ConfigError):
        Switch.in_memory(2).explain(*wrong)
