"""Codes: the core's numbers have names for Python, and Python's own types have the same."""

from dataclasses import fields

import arp_nd_frames as make
import pytest
from arp_nd_frames import IPV4, IPV6, A, B

from fastbridge import Drop, Message, Neighbours, Policy, PortFlags, Punt, StormControl, Switch, Wants
from fastbridge.core import codes


@pytest.mark.parametrize("name", codes.__all__)
def test_each_code_is_a_number_of_its_own_that_counts_up(name: str) -> None:
    numbers = list(getattr(codes, name).values())
    counting = range(len(numbers))
    assert numbers == [1 << n for n in counting] if name == "PORT_FLAGS" else list(counting)


def test_the_types_of_python_have_the_names_of_the_core() -> None:
    assert [field.name for field in fields(PortFlags)] == list(codes.PORT_FLAGS)
    assert [field.name for field in fields(StormControl)] == list(codes.FLOOD_KINDS)
    assert set(Wants._fields) == set(codes.FRAME_KINDS) - {"ordinary", "loop_probe"}
    assert {punt.name.lower(): punt.value for punt in Punt} == codes.PUNTS


def test_every_flag_reaches_the_core_and_comes_back() -> None:
    switch = Switch.in_memory(1)
    for name in codes.PORT_FLAGS:
        for on in True, False:
            assert switch.set_flags(0, **{name: on}) == switch.flags(0)
            assert getattr(switch.flags(0), name) is on


def test_every_reason_has_a_counter() -> None:
    counters = Switch.in_memory(1).counters().ports["0"]
    assert list(counters.dropped) == list(codes.DROP_REASONS)
    assert list(counters.tx_dropped) == [*codes.TX_DROP_REASONS, "device"]


ONE_OF_EACH = {
    "arp_group": make.arp(1, A, IPV4[0], IPV4[1]),
    "arp_unicast": make.arp(1, A, IPV4[0], IPV4[1], to=B),
    "nd_group": make.ns(A, IPV6[0], IPV6[1]),
    "nd_unicast": make.ns(A, IPV6[0], IPV6[1], unicast_to=B),
}


@pytest.mark.parametrize("kind", Wants._fields)
def test_each_kind_of_frame_is_wanted_by_its_name(kind: str) -> None:
    class Wanting(Policy):
        wants = Wants(**{kind: Punt.TAKE})

        def decide(self, message: Message, neighbours: Neighbours) -> Drop:
            return Drop("wanted")

    switch = Switch.in_memory(2, policy=Wanting())
    kept = [name for name, frame in ONE_OF_EACH.items() if not switch.process(0, [bytes(frame)])]
    assert kept == [kind]
