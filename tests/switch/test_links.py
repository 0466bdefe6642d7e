"""Links of a switch: set by name, kept by name, and what a change does to frames; in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import check_fates
from asked import Asked
from clock import Clock
from frames import GROUP, ethernet

from fastbridge import ConfigError, FastbridgeError, Lab, Link, MemorySwitch, PortSettings, Switch
from fastbridge.links.places import links_of, read_place
from fastbridge.switch.config import Config
from fastbridge.switch.config_apply import Configured, apply
from fastbridge.switch.wires import LinkState

ONE, TWO = 0x020000000001, 0x020000000002
FRAME = ethernet(GROUP, ONE)


@pytest.fixture
def switch(clock: Clock) -> MemorySwitch:
    return MemorySwitch(["a", "b", "c"], clock=clock)


def waiting(switch: MemorySwitch) -> dict[Any, tuple[int, int]]:
    """Frames in flight, to the pod and from it, by place."""
    return {
        place: tuple(state.counts[way].waiting if way in state.counts else 0 for way in ("to_pod", "from_pod"))
        for place, state in switch.links.items()
    }  # type: ignore[return-value]


def passes(switch: MemorySwitch, ingress: str = "a") -> list[str]:
    """The ports that a broadcast leaves by at once."""
    return [switch.ports[copy.port].name for copy in switch.process(ingress, [FRAME])]


def check_accounts(switch: MemorySwitch) -> None:
    counters = switch.counters()
    check_fates(counters)
    total = counters.total
    copies = total.forwarded + total.flooded * (len(counters.ports) - 1)
    assert copies + total.link_added == total.tx_frames + sum(total.tx_dropped.values()) + total.tx_in_flight


def test_a_link_holds_from_the_call_on_in_both_directions(switch: MemorySwitch) -> None:
    assert passes(switch) == ["b", "c"] and switch.links == {}
    switch.set_link("b", "delay=20ms")
    assert passes(switch) == ["c"] and waiting(switch) == {"b": (1, 0)}
    assert passes(switch, "b") == [] and waiting(switch) == {"b": (1, 1)}
    counters = switch.counters().ports["b"]
    assert (counters.rx_frames, counters.rx_in_flight, counters.tx_in_flight) == (1, 1, 1)
    check_accounts(switch)
    assert "in flight: from the pod 1, to the pod 1" in str(counters)
    assert 2 * len(FRAME) <= switch.link_memory[0] < switch.link_memory[1]
    assert switch.vitals().link_memory == switch.link_memory[0]


def test_a_link_taken_off_lets_what_is_in_flight_arrive_in_order(switch: MemorySwitch) -> None:
    switch.set_link("b", "delay=20ms")
    passes(switch)
    switch.set_link("b", None)
    assert switch.links == {} and passes(switch) == ["c"]  # it waits behind the first
    counters = switch.counters().ports["b"]
    assert (counters.tx_in_flight, counters.tx_frames) == (2, 0)
    check_accounts(switch)


def test_who_asks_for_some_links_does_not_wait_for_all(switch: MemorySwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    switch.set_links({"a": "delay=20ms", ("c", "b"): "delay=20ms", ("b", "a"): "delay=1ms"})
    switch.cut("c", direction="to_pod")
    assert passes(switch, "c") == []
    every, ask = switch.links, Asked(switch)
    assert every["a"].counts["to_pod"].waiting == 1 and every[("c", "b")].counts["to_pod"].waiting == 1
    core = switch._wires._core
    asked: list[Any] = []

    class Watched:
        """The core's links, of which nobody asks for all."""

        def state_of(self, keys: Any, now: Any) -> Any:
            asked.extend(keys)
            return core.state_of(keys, now)

    monkeypatch.setattr(switch._wires, "_core", Watched())
    some = switch.links_of(["a", ("c", "b"), "c", "b", "z"])
    assert some == {place: every[place] for place in ("a", ("c", "b"), "c")}
    assert asked == [
        ("to_pod", None, 0),
        ("from_pod", 0, None),
        ("pair", 2, 1),
        ("to_pod", None, 2),
        ("from_pod", 2, None),
    ]
    (row,) = ask("link.show", places=["c>b"])
    assert (row["link"], row["to_pod"]["waiting"]) == ("delay=20ms", 1)
    assert [row["link"] for row in ask("link.show", places=["a>c", "b"])] == ["", ""]


def test_links_of_a_port_that_has_gone_have_no_counts(switch: MemorySwitch) -> None:
    switch.set_links({"a": "delay=20ms", ("b", "c"): "delay=20ms"})
    switch.partition([["b"]])
    assert switch._wires._core.state_of([("pair", 1, 3), ("to_pod", None, 4), ("pair", 9999, 1)]) == {}
    assert list(switch.links_of(["b", ("b", "c"), ("c", "b")])) == ["b", ("b", "c")]
    assert switch.links_of(["b"])["b"].group == 0


def test_a_link_in_words_or_as_an_object(switch: MemorySwitch) -> None:
    switch.set_links({"a": Link(delay="20ms"), "b": "delay=20ms", ("a", "b"): "delay=5ms,seed=7"})
    assert switch.own_links == {"a": Link(delay="20ms"), "b": Link(delay="20ms"), ("a", "b"): Link(delay="5ms", seed=7)}
    assert list(switch.links) == ["a", "b", ("a", "b")]
    switch.change_link("a", "jitter=1ms,seed=1")
    switch.change_links(["b", "c"], "loss=1%,seed=2")
    assert str(switch.own_links["a"]) == "delay=20ms,jitter=1ms,seed=1"
    assert [str(switch.own_links[port]) for port in "bc"] == ["delay=20ms,loss=1%,seed=2", "loss=1%,seed=2"]
    switch.reset_links()
    assert switch.links == {} == switch.own_links


def lost(switch: MemorySwitch, frames: int) -> list[bool]:
    return ["b" not in passes(switch) for _ in range(frames)]


def test_set_begins_the_random_numbers_anew_and_change_goes_on(switch: MemorySwitch) -> None:
    switch.set_link("b", "loss=50%,seed=7")
    first, second = lost(switch, 40), lost(switch, 40)
    assert first != second and True in first and False in first
    switch.set_link("b", "loss=50%,seed=7")
    assert lost(switch, 40) == first
    switch.change_link("b", "overhead=none")  # nothing differs
    assert lost(switch, 40) == second
    switch.set_link("b", "loss=50%,seed=8")
    assert lost(switch, 40) not in (first, second)


def test_a_pair_takes_the_place_of_the_port_s_link(switch: MemorySwitch) -> None:
    switch.set_links({"c": "delay=20ms", ("a", "c"): "delay=0"})
    assert passes(switch) == ["b", "c"]
    assert passes(switch, "b") == ["a"]
    switch.set_links({("a", "c"): None, ("a", "b"): "delay=20ms"})
    assert passes(switch) == [] and waiting(switch) == {"c": (2, 0), ("a", "b"): (1, 0)}


@pytest.mark.parametrize(
    ("direction", "from_a", "from_b"),
    [("both", ["c"], []), ("to_pod", ["c"], ["a", "c"]), ("from_pod", ["b", "c"], [])],
)
def test_a_cut_link_drops_all_and_is_mended_as_it_was(
    switch: MemorySwitch, direction: Any, from_a: list[str], from_b: list[str]
) -> None:
    switch.set_links({"c": "loss=50%,seed=1", ("c", "b"): "delay=0"})
    before = switch.links
    switch.set_links({"c": None})
    switch.cut("b", direction=direction)
    assert passes(switch) == from_a and passes(switch, "b") == from_b
    assert ("b" in passes(switch, "c")) is (direction == "from_pod")  # the pair is cut with its port
    dropped = switch.counters().ports["b"]
    assert (dropped.dropped["link_cut"] > 0, dropped.tx_dropped["link_cut"] > 0) == (
        direction != "to_pod", direction != "from_pod",
    )  # fmt: skip
    check_accounts(switch)
    switch.mend("b")
    assert passes(switch) == ["b", "c"] and passes(switch, "b") == ["a", "c"] and "b" in passes(switch, "c")
    assert switch.links.keys() == {("c", "b")} and before[("c", "b")].link == switch.own_links[("c", "b")]


def test_cuts_of_both_ways_and_of_pairs(switch: MemorySwitch) -> None:
    switch.cut("b", direction="to_pod")
    switch.cut("b", direction="from_pod")
    switch.cut(("a", "c"))
    assert switch.links == {
        "b": LinkState(None, ("to_pod", "from_pod"), None, switch.links["b"].counts),
        ("a", "c"): LinkState(None, ("to_pod",), None, switch.links[("a", "c")].counts),
    }
    assert passes(switch) == passes(switch, "b") == [] and passes(switch, "c") == ["a"]
    switch.mend("b", ("a", "c"))
    assert switch.links == {} and passes(switch) == ["b", "c"]


def test_a_partition_cuts_between_its_groups_and_heals_to_what_was() -> None:
    switch = MemorySwitch(["a", "b", "c", "d", "e"], clock=None)
    switch.set_links({"b": "delay=20ms", ("a", "c"): "delay=5ms", ("d", "e"): "delay=0"})
    before = {place: state.link for place, state in switch.links.items()}
    switch.partition([["a", "b"], ["c"]])
    assert switch.parts == ({"a", "b"}, {"c"})
    assert {place: state.group for place, state in switch.links.items() if isinstance(place, str)} == {
        "a": 0, "b": 0, "c": 1, "d": None, "e": None,
    }  # fmt: skip
    assert (passes(switch, "a"), passes(switch, "c"), passes(switch, "d")) == ([], [], ["e"])
    assert waiting(switch)["b"] == (1, 0)  # within a group the link is as it was
    switch.partition([["c", "d"]])  # in place of the other one
    assert (passes(switch, "c"), passes(switch, "e")) == (["d"], ["a"])
    switch.heal()
    assert switch.parts == () and {place: state.link for place, state in switch.links.items()} == before
    assert (passes(switch, "c"), passes(switch, "d")) == (["a", "d", "e"], ["a", "c", "e"])
    assert passes(switch, "a") == ["d", "e"]
    check_accounts(switch)


def test_healed_links_hold_at_once(switch: MemorySwitch) -> None:
    """Nothing slips past the port's link by the pair that the partition had cut."""
    switch.set_link("b", "delay=20ms")
    switch.partition([["a"]])
    passes(switch)
    switch.heal()
    assert passes(switch) == ["c"] and waiting(switch) == {"b": (1, 0)}


def test_a_port_that_comes_again_has_its_links_and_its_group(switch: MemorySwitch) -> None:
    switch.set_links({"a": "delay=20ms", ("c", "b"): "delay=5ms"})
    switch.partition([["c"]])
    with switch.still():  # as when its interface is deleted
        switch._remove_member(switch._index_of("c"))
    assert switch.links[("c", "b")].counts == {} and passes(switch, "b") == []
    switch.add_port("d")  # it has the index, and no link
    assert passes(switch, "d") == ["b"]
    switch.remove_port("d")
    switch.add_port("c")
    assert switch.links["c"].group == 0 and passes(switch, "c") == []
    switch.heal()
    assert passes(switch, "c") == [] and waiting(switch) == {"a": (2 + 1, 0), ("c", "b"): (1, 0)}


def test_a_port_that_is_removed_takes_its_links_and_frames_with_it(switch: MemorySwitch) -> None:
    switch.set_links({"b": "delay=20ms", ("a", "b"): "delay=5ms", "c": "delay=1ms"})
    switch.cut("b", direction="from_pod")
    switch.partition([["b", "c"], ["a"]])
    switch.heal()
    passes(switch)
    switch.remove_port("b")
    assert set(switch.links) == {"c"}
    total = switch.counters().total
    assert total.tx_dropped["link_cut"] == 1 and total.tx_in_flight == 1  # that of c
    switch.add_port("b")
    assert passes(switch) == ["b"]


def test_settings_of_a_port_to_come(switch: MemorySwitch) -> None:
    with switch.still():
        index = switch._dataplane.add_port()
        from fastbridge.switch.member import Member

        switch._add_member(index, Member("d"), settings=PortSettings(link=Link(delay="20ms")))
    assert switch.own_links == {"d": Link(delay="20ms")} and passes(switch) == ["b", "c"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda s: s.set_link("z", "delay=1ms"), "the switch has no port 'z'; it has: a, b, c"),
        (lambda s: s.set_link(("a", "z"), "delay=1ms"), "the switch has no port 'z'"),
        (lambda s: s.set_link(("a", "a"), "delay=1ms"), "a pair has two ports, and a is one"),
        (lambda s: s.set_link(("a", "b", "c"), "delay=1ms"), r"a pair has two ports, \(from, to\), not 3"),
        (lambda s: s.set_link("a", "delay=20"), "20"),
        (lambda s: s.set_links({"a": "delay=1ms", "z": "delay=1ms"}), "the switch has no port 'z'"),
        (lambda s: s.set_links({"a": "delay=1ms", "b": "delya=1ms"}), "delya"),
        (lambda s: s.change_links(["a", "b"], "reorder=1%"), "reorder"),
        (lambda s: s.cut("a", direction="up"), "a direction is both, to_pod or from_pod, not 'up'"),
        (lambda s: s.cut("a", ("b", "c"), direction="from_pod"), "the pair b>c has one direction, to the pod of c"),
        (lambda s: s.cut("a", "z"), "the switch has no port 'z'"),
        (lambda s: s.mend("z"), "the switch has no port 'z'"),
        (lambda s: s.partition([]), "one or more groups"),
        (lambda s: s.partition([[]]), "a group of a partition has one or more ports"),
        (lambda s: s.partition([["a"], ["b", "a"]]), "a is named twice; a port is in one group of a partition"),
        (lambda s: s.partition(["a", "b"]), "a group must be a list of names, not the text 'a'"),
        (lambda s: s.partition("ab"), "groups must be a list of names, not the text 'ab'"),
        (lambda s: s.partition([["a", "z"]]), "the switch has no port 'z'"),
    ],
)
def test_what_is_wrong_changes_nothing(switch: MemorySwitch, wrong: Callable[[MemorySwitch], Any], says: str) -> None:
    switch.set_link("b", "loss=1%,seed=1")
    switch.cut("c")
    before = switch.links
    with pytest.raises(ConfigError, match=says) as refused:
        wrong(switch)
    assert "\n" not in str(refused.value) and switch.links == before and switch.parts == ()


# In words.


def test_places() -> None:
    assert read_place("a") == "a" and read_place("a>b") == ("a", "b")
    assert read_place("a>b", ["a>b", "b"]) == "a>b"
    assert read_place("a>b>c", ["a>b", "c"]) == ("a>b", "c") and read_place("a>b>c", ["a", "b>c"]) == ("a", "b>c")
    for wrong in ("a>", ">b", ">", "a>a"):
        with pytest.raises(ConfigError, match="is no pair of ports, such as veth1>veth2"):
            read_place(wrong)
    for wrong in ("*>a", "a>*"):
        with pytest.raises(ConfigError, match="stands for all ports, and not in a pair"):
            read_place(wrong, ["a"])
    delay, preset = Link(delay="5ms"), Link.parse("4g")
    assert links_of({"a": "delay=5ms", "*": "4g", "a>b": "4g"}, ["a", "b"]) == {
        "a": delay, "b": preset, ("a", "b"): preset,
    }  # fmt: skip


def test_reset_mends_and_setting_no_link_does_not(switch: MemorySwitch) -> None:
    switch.set_links({"a": "delay=1ms", "b": "delay=1ms", ("c", "a"): "delay=1ms"})
    switch.cut("a", "b")
    switch.set_link("a", None)
    assert switch.links["a"] == LinkState(None, ("to_pod", "from_pod"), None, switch.links["a"].counts)
    assert passes(switch, "c") == []
    switch.reset_links(["a"])
    assert list(switch.links) == ["b", ("c", "a")] and passes(switch, "a") == ["c"]
    assert passes(switch, "c") == [] and waiting(switch)["c", "a"] == (1, 0)  # no longer cut
    switch.reset_links([])
    assert list(switch.links) == ["b", ("c", "a")]
    switch.reset_links()
    assert switch.links == {}


@pytest.mark.live
def test_a_file_that_is_gone_keeps_no_port_from_its_link(tmp_path: Path) -> None:
    """Traces of a configuration are read when it is, and not again for a port that comes, or comes again."""
    trace = tmp_path / "trace"
    trace.write_text("1\n")
    with Lab(3) as lab, Switch(lab.ports[:2], fast_path="off") as switch:
        pod3 = lab["pod3"].port
        config = Config(
            ports=["pod1", "pod2"], match=["pod3"], link={"*": f"loss=1%,trace={trace}", "pod2": "delay=1ms"}
        )
        configured = Configured(switch, config)
        trace.unlink()
        switch.add_port(pod3)
        switch.remove_port("pod1")
        switch.add_port(lab["pod1"].port)
        links = {place: link.as_words() for place, link in switch.own_links.items()}
        assert links["pod2"] == {"delay": "1ms"}
        assert links["pod1"] == links["pod3"] and links["pod1"]["trace"] == str(trace)
        assert apply(switch, configured.config, configured.config) == []


# The verbs.


@pytest.fixture
def ask(switch: MemorySwitch) -> Asked:
    return Asked(switch)


def test_links_by_verbs(ask: Asked) -> None:
    none = {"link": "", "words": {}, "cut": [], "group": None}
    assert ask("link.show") == [] and ask("link.show", places=["a"]) == [{"ifname": "a", **none}]
    rows = ask("link.set", places=["a", "b>c"], link="delay=20ms,to_pod.rate=1mbit")
    assert rows == ask("link.show") and [row["ifname"] for row in rows] == ["a", "b>c"]
    assert rows[0]["words"] == {"delay": "20ms", "to_pod": {"rate": "1mbit"}}
    assert rows[0].keys() >= {"to_pod", "from_pod"} and "from_pod" not in rows[1]
    assert rows[0]["to_pod"].keys() >= {"entered", "lost", "queue_full", "cut", "waiting", "waiting_bytes", "queued"}
    ask.switch.process("c", [FRAME])
    assert ask("link.show", places=["a"])[0]["to_pod"]["waiting"] == 1
    assert ask("link.change", places=["a"], link="delay=5ms")[0]["link"] == "delay=5ms,to_pod.rate=1mbit"
    assert [row["ifname"] for row in ask("link.set", places=["*"], link="wifi")] == ["a", "b", "c"]
    assert ask("link.cut", places=["a"], direction="to_pod")[0]["cut"] == ["to_pod"]
    assert ask("link.cut", places=["a"])[0]["cut"] == ["to_pod", "from_pod"]
    assert ask("link.mend", places=["all"])[0]["cut"] == []
    assert [row["group"] for row in ask("link.partition", groups=[["a"], ["c"]])] == [0, None, 1, None]
    assert [row["group"] for row in ask("link.heal")] == [None] * 4
    ask("link.cut", places=["a"])
    assert ask("link.reset", places=["a", "b>c"]) == [{"ifname": "a", **none}, {"ifname": "b>c", **none}]
    assert [row["ifname"] for row in ask("link.reset")] == ["b", "c"]
    assert ask("link.show") == [] and ask.switch.links == {}


@pytest.mark.parametrize(
    ("verb", "params", "says"),
    [
        ("link.set", {"places": ["a"]}, "link.set needs the parameter link: a string"),
        ("link.set", {"places": "a", "link": "4g"}, "places must be a list, each a string"),
        ("link.set", {"places": [], "link": "4g"}, "name a port, a pair such as veth1>veth2, or * for all ports"),
        ("link.set", {"places": ["a", "z"], "link": "4g"}, "the switch has no port 'z'; it has: a, b, c"),
        ("link.set", {"places": ["a>z"], "link": "4g"}, "the switch has no port 'z'"),
        ("link.set", {"places": ["a>a"], "link": "4g"}, "'a>a' is no pair of ports"),
        ("link.set", {"places": ["a"], "link": "5g"}, "5g"),
        ("link.set", {"places": ["a"], "link": "delay=20mss"}, "20mss"),
        ("link.set", {"places": ["a"], "link": ""}, "a link must be words"),
        ("link.change", {"places": ["a"], "link": "loss=101%"}, "101%"),
        ("link.show", {"places": ["z"]}, "the switch has no port 'z'"),
        ("link.reset", {"places": ["z"]}, "the switch has no port 'z'"),
        ("link.cut", {"places": ["a"], "direction": "up"}, "direction must be both or to_pod or from_pod"),
        ("link.mend", {"places": ["z"]}, "the switch has no port 'z'"),
        ("link.partition", {"groups": [["a"], ["a"]]}, "a is named twice"),
        ("link.heal", {"places": ["a"]}, 'link.heal has no parameter "places"'),
    ],
)
def test_wrong_requests_change_nothing(ask: Asked, verb: str, params: dict[str, Any], says: str) -> None:
    ask("link.set", places=["b", "a>b"], link="loss=1%,seed=1")
    before = ask("link.show")
    with pytest.raises(FastbridgeError) as refused:
        ask.verbs.call(verb, params)
    assert says in str(refused.value) and "\n" not in str(refused.value) and refused.value.exit_status == 2
    assert ask("link.show") == before


def test_an_explanation_names_the_links(switch: MemorySwitch) -> None:
    switch.set_links({"b": "delay=20ms", ("a", "c"): "delay=5ms"})
    said = switch.explain("a", FRAME)
    assert said.egress == ("b", "c")
    assert (
        said.steps[-1].text
        == "b (over the link b: delay=20ms), c (over the link a>c: delay=5ms); not: a (it came from there)"
    )
    assert switch.explain("b", FRAME).steps[0][:3] == (
        "link", "pass", "b's link takes it first: delay=20ms; then, unless it is lost:",
    )  # fmt: skip
    switch.cut("b")
    switch.partition([["c"]])
    said = switch.explain("a", FRAME)
    assert said.egress == () and said.steps[-1].reason == "link_cut"
    assert said.steps[-1].text == "none; not: b (its link is cut), c (in another part of the partition)"
    said = switch.explain("b", FRAME)
    assert (said.action, said.reason, said.copies, len(said.steps)) == ("dropped", "link_cut", [], 1)
    assert switch.send_in("b", FRAME).steps[0].stage == "parse"  # it comes behind the link


def test_a_change_that_brings_a_seed_draws_from_it(switch: MemorySwitch) -> None:
    def lost(words: str, *changes: str) -> list[bool]:
        switch.set_link("b", words)
        for change in changes:
            switch.change_link("b", change)
        return ["b" not in passes(switch) for _ in range(64)]

    wanted = lost("loss=50%,seed=7")
    assert lost("delay=0") == [False] * 64 and lost("delay=0", "loss=50%,seed=7") == wanted
    assert lost("lose=every 2", "lose=none,loss=50%,seed=7") == wanted
    assert lost("loss=50%,seed=1", "seed=7") == wanted
    assert lost("loss=50%,seed=7", "delay=0") == wanted


def test_ports_whose_links_come_to_lose_frames_lose_different_ones(switch: MemorySwitch) -> None:
    switch.set_links(dict.fromkeys("bc", "lose=every 1000"))
    switch.change_links(["b", "c"], "lose=none,loss=50%,seed=7")
    copies = [passes(switch) for _ in range(64)]
    assert ["b" in ports for ports in copies] != ["c" in ports for ports in copies]


@pytest.mark.parametrize("link", [5, {"delay": "20ms"}, b"lan", True])
def test_what_is_no_link_is_named(switch: MemorySwitch, link: Any) -> None:
    with pytest.raises(ConfigError, match="a link is a Link, its text or None, not") as error:
        switch.set_links({"a": "delay=20ms", "b": link})
    assert repr(link) in str(error.value) and switch.links == {}


def test_time_in_memory_has_an_end() -> None:
    switch = MemorySwitch(["a", "b"], clock=None)
    with pytest.raises(ConfigError, match=r"time passes up to 9,223,372,036 seconds in all; 1000000000000.0 more"):
        switch.advance(1e12)
    switch.set_link("b", "delay=20ms")
    switch.advance(9.2e9)
    assert passes(switch) == [] and len(switch.advance(0.02)) == 1
