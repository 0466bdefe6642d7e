"""Scenarios: what their files say, when it happens, and what pods see of it."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest
from clock import Clock
from frames import GROUP, ethernet
from hypothesis import given
from hypothesis import strategies as st
from live import PATIENCE, eventually, stage

from fastbridge import ConfigError, Lab, Link, MemorySwitch, Switch, matrix
from fastbridge.links.scenario import Flap, Scenario, Step

pytestmark = pytest.mark.usefixtures("steps_are_logged")

A, B, C = (0x020000000001 + n for n in range(3))
PORTS = ["a", "b", "c"]
MS, S = 10**6, 10**9


@pytest.fixture
def steps_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastbridge.switch.player")


def said(text: str, ports: list[str] | None = None, most: int = 20) -> list[tuple[float, str]]:
    """What happens, and when, in seconds."""
    bound = Scenario.parse(text, "f.toml").bound(PORTS if ports is None else ports, {})
    return [(step.at / S, str(step)) for step in itertools.islice(bound.moments(), most)]


def at(time: str, rest: str) -> str:
    return f'[[at]]\ntime = "{time}"\n{rest}\n'


# -- the file -------------------------------------------------------------------------------------


def test_all_that_can_happen() -> None:
    text = (
        at("3s", 'link = "a"\nmend = true')
        + at("0", 'link = "a"\nset = "delay=50ms,loss=1%,seed=7"')
        + at("1s", 'link = ["a", "b>c", "a"]\nchange = "loss=2%"')
        + at("1500ms", 'link = "*"\ncut = true')
        + at("2s", 'link = "a"\ncut = "to_pod"')
        + at("4s", 'link = "b"\ndown = true')
        + at("4s", 'link = "b"\nup = true')
        + at("5s", 'partition = [["a", "b"], ["c"]]')
        + at("6s", "heal = true")
        + at("7s", 'link = "b>c"\nreset = true')
    )
    assert said(text) == [
        (0, "a set delay=50ms,loss=1%,seed=7"),
        (1, "a b>c change loss=2%"),
        (1.5, "a b c cut"),
        (2, "a cut to_pod"),
        (3, "a mend"),
        (4, "b down"),
        (4, "b up"),
        (5, "partition a b | c"),
        (6, "heal"),
        (7, "b>c reset"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "f.toml:1: a scenario has one [[at]] or more, each with a time"),
        ("at = 5", "f.toml:1: a scenario has one [[at]] or more, each with a time"),
        ("at = [5]", "f.toml:1: a scenario has one [[at]] or more, each with a time"),
        ("[[at]\n", "f.toml:1: this is not TOML: expected ']]' at the end of an array declaration"),
        ("repaet = '1s'\n" + at("0", "heal = true"), "f.toml:1: there is no key repaet; there are: repeat, at"),
        ("[[at]]\nheal = true", 'f.toml:1: there is no time; add time = "10s"'),
        (
            at("5", "heal = true"),
            "f.toml:2: time '5': a unit is missing; it must be a time such as 20ms, 100us or 1.5s",
        ),
        (at("-1s", "heal = true"), "f.toml:2: time '-1s' is negative"),
        (
            at("0", 'link = "a"\nlos = true'),
            "f.toml:4: there is no key los; there are: time, link, set, change, reset, cut, mend, down, up, flap",
        ),
        (at("0", 'link = "a"'), "f.toml:1: one thing happens at a time, not nothing; it is one of: set, change"),
        (at("0", "heal = true\nlink = 'a'\nup = true"), "f.toml:1: one thing happens at a time, not heal and up"),
        (at("0", "heal = false"), "f.toml:3: heal must be true, not False"),
        (at("0", "heal = 1"), "f.toml:3: heal must be true, not 1"),
        (at("0", "up = true"), 'f.toml:1: up needs a link = "pod1"'),
        (at("0", "link = 'a'\nheal = true"), "f.toml:1: heal is about all ports: leave link out"),
        (at("0", "link = 5\nup = true"), 'f.toml:3: link must be a port, a pair "pod1>pod2", "*" for all ports, or an'),
        (at("0", "link = []\nup = true"), "f.toml:3: link must be a port"),
        (at("0", "link = ['']\nup = true"), "f.toml:3: link must be a port"),
        (at("0", "link = 'a>'\ncut = true"), "f.toml:3: 'a>' is no pair of ports"),
        (at("0", "link = 'a>b'\nup = true"), "f.toml:3: a>b is a pair, which has no carrier: cut it, or up one of its"),
        (at("0", "link = 'a>b'\nflap = '1s/1s'"), "f.toml:3: a>b is a pair, which has no carrier"),
        (at("0", "link = 'a'\nset = 'dealy=5ms'"), "f.toml:4: a link has no dealy (is it delay?)"),
        (at("0", "link = 'a'\nset = 5"), 'f.toml:4: set must be words of a link, such as "delay=20ms,loss=1%", not 5'),
        (at("0", "link = 'a'\nchange = 'dealy=5ms'"), "f.toml:1: a: a link has no dealy (is it delay?)"),
        (at("0", "link = 'a'\nchange = 'reorder=1%'"), "f.toml:1: a: reorder 1% without delay"),
        (at("0", "link = 'a'\ncut = 'up'"), "f.toml:4: cut must be true, or one way: to_pod or from_pod, not 'up'"),
        (at("0", "link = 'a'\ncut = false"), "f.toml:4: cut must be true, or one way"),
        (at("0", "link = 'a'\nflap = '10s'"), 'f.toml:4: flap must be the times up and down, such as "10s/2s" or'),
        (at("0", "link = 'a'\nflap = '10s/2'"), "f.toml:4: flap '2': a unit is missing"),
        (at("0", "link = 'a'\nflap = '1s/1ms'"), "f.toml:4: flap '1s/1ms': each time must be 10ms or more"),
        (at("0", "partition = 'a b'"), "f.toml:3: partition must be groups of ports, such as"),
        (at("0", "partition = [['a'], [5]]"), "f.toml:3: partition must be groups of ports, such as"),
        (at("0", "partition = []"), "f.toml:3: a partition has one or more groups"),
        (at("0", "partition = [['a', 'b'], ['a']]"), "f.toml:3: a is named twice; a port is in one group"),
        (at("0", "partition = [['a', 'z']]"), "f.toml:1: the switch has no port 'z'; it has: a, b, c"),
        (at("0", "heal = true") + at("1s", "link = 'b>z'\nmend = true"), "f.toml:4: the switch has no port 'z'"),
        (
            "repeat = '5s'\n" + at("5s", "heal = true"),
            "f.toml:1: repeat must be 10ms or more, and later than each time",
        ),
        ("repeat = '1ms'\n" + at("0", "heal = true"), "f.toml:1: repeat must be 10ms or more"),
        ("repeat = true\n" + at("0", "heal = true"), "f.toml:1: repeat must be a time such as"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_happens(text: str, line: str) -> None:
    switch = MemorySwitch(PORTS)
    with pytest.raises(ConfigError) as refused:
        switch.play(Scenario.parse(text, "f.toml"))
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)
    assert switch.playing == () and switch.links == {}


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "outage.toml"
    path.write_text(at("0", "heal = true"))
    assert Scenario.load(path).steps[0].where == f"{path}:1"
    with pytest.raises(ConfigError, match=r"scenario: .*there\.toml cannot be read: No such file"):
        Scenario.load(tmp_path / "there.toml")


def test_a_change_is_checked_with_what_the_link_is_then() -> None:
    text = at("0", 'link = "a"\nchange = "reorder=1%"')
    scenario = Scenario.parse(text)
    scenario.bound(PORTS, {"a": Link(delay="20ms")})
    scenario = Scenario.parse(at("0", 'link = "a"\nset = "delay=1ms"') + text + at("1s", 'link = "a"\nreset = true'))
    scenario.bound(PORTS, {})
    # The second time, the link is as the first time left it.
    again = "repeat = '2s'\n" + text + at("1s", 'link = "a"\nreset = true')
    with pytest.raises(ConfigError, match="the scenario:2: a: reorder 1% without delay"):
        Scenario.parse(again).bound(PORTS, {"a": Link(delay="20ms")})


def test_ports_that_may_come() -> None:
    scenario = Scenario.parse(at("0", 'link = "veth7"\nup = true'))
    assert scenario.bound(PORTS, {}, lambda name: name.startswith("veth")).steps[0].places == ("veth7",)


# -- flaps ----------------------------------------------------------------------------------------


def test_a_flap_goes_on_until_the_file_says_otherwise() -> None:
    text = at("1s", 'link = ["a", "b"]\nflap = "10s/2s"') + at("26s", 'link = "a"\nup = true')
    assert said(text, most=9) == [
        (11, "a down"), (11, "b down"), (13, "a up"), (13, "b up"), (23, "a down"), (23, "b down"), (25, "a up"),
        (25, "b up"), (26, "a up"),
    ]  # fmt: skip
    assert said(text, most=13)[9:] == [(35, "b down"), (37, "b up"), (47, "b down"), (49, "b up")]


def test_flaps_of_both_kinds_go_beside_each_other() -> None:
    text = at("0", 'link = "a"\nflap = "2s/2s"') + at("0", 'link = "a"\nflap = "3s/1s cut"')
    assert said(text, most=6) == [(2, "a down"), (3, "a cut"), (4, "a up"), (4, "a mend"), (6, "a down"), (7, "a cut")]


def test_another_flap_takes_its_place() -> None:
    text = at("0", 'link = "a"\nflap = "2s/5s"') + at("3s", 'link = "a"\nflap = "1s/1s"')
    assert said(text, most=4) == [(2, "a down"), (3, "a up"), (4, "a down"), (5, "a up")]


def test_a_flap_ends_with_the_round() -> None:
    text = "repeat = '5s'\n" + at("0", 'link = "a"\nflap = "3s/4s cut"')
    assert said(text, most=4) == [(3, "a cut"), (5, "a mend"), (8, "a cut"), (10, "a mend")]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 60),
            st.sampled_from("ab"),
            st.sampled_from(["down", "up", "cut", "mend", "1s/2s", "2s/1s cut"]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.none() | st.integers(1, 20),
)
def test_times_never_go_back_and_no_flap_outlives_a_round(steps: list[tuple[int, str, str]], more: int | None) -> None:
    made = tuple(
        Step(time * S, "flap" if "/" in do else do, (place,), Flap.parse(do) if "/" in do else None)
        for time, place, do in sorted(steps, key=lambda each: each[0])
    )
    period = 0 if more is None else made[-1].at + more * S
    found = list(itertools.islice(Scenario(made, period).moments(), 200))
    assert [step.at for step in found] == sorted(step.at for step in found)
    assert all(step.do != "flap" for step in found)
    if period and found and found[-1].at > period:
        first = [step for step in found if step.at < period or (step.at == period and step.flaps)]
        flapped = {(step.places, step.do in ("cut", "mend")): step.do for step in first if step.flaps}
        own = {(step.places, step.do in ("cut", "mend")) for step in made if step.do != "flap"}
        assert all(do in ("up", "mend") for key, do in flapped.items() if key not in own)


# -- in memory, by the switch's clock ---------------------------------------------------------------


def test_a_scenario_by_the_clock(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    switch = MemorySwitch(PORTS, clock=clock)
    text = (
        at("0", 'link = "b"\ncut = "to_pod"')
        + at("2s", 'link = "b"\nmend = true')
        + at("3s", 'link = "c"\ndown = true')
    )
    clock.now += 5
    playing = switch.play(Scenario.parse(text))

    def reached() -> list[int]:
        return [copy.port for copy in switch.process("a", [ethernet(GROUP, A)])]

    assert reached() == [2]
    clock.now += 1.999
    assert reached() == [2]
    clock.now += 0.001
    assert reached() == [1, 2] and not playing.over and switch.playing == (playing,)
    clock.now += 5
    switch.tick()
    assert reached() == [1] and playing.over and switch.playing == ()
    assert [line for line in caplog.messages if "scenario" in line] == [
        "scenario at 0: b cut to_pod", "scenario at 2s: b mend", "scenario at 3s: c down"
    ]  # fmt: skip


def test_a_flap_that_is_ended_leaves_the_link_whole(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    switch = MemorySwitch(PORTS, clock=clock)
    text = (
        at("0", 'link = "a"\nflap = "1s/1s"')
        + at("0", 'link = "b"\nflap = "1s/1s cut"')
        + at("1s", "link = 'c'\ndown = true")
    )
    playing = switch.play(Scenario.parse(text))
    clock.now += 1
    switch.tick()
    assert [port.state for port in switch.ports] == ["down", "up", "down"] and switch.links["b"].cut
    playing.close()
    assert [port.state for port in switch.ports] == ["up", "up", "down"] and switch.links == {}
    clock.now += 9
    switch.tick()
    assert [port.state for port in switch.ports] == ["up", "up", "down"]


def test_reset_does_as_the_verb() -> None:
    """It mends cuts, and a link that flaps by cuts does not go on."""
    switch = MemorySwitch(PORTS, clock=None)
    switch.set_links({"a": "delay=1ms", "b": "delay=1ms"})
    switch.cut("a", "b")
    text = at("0", "link = 'a'\nreset = true") + at("1s", "link = 'c'\nflap = '1s/1s cut'")
    playing = switch.play(Scenario.parse(text + at("2500ms", "link = 'c'\nreset = true")))
    assert list(switch.links) == ["b"] and switch.links["b"].cut
    switch.advance(2.2)
    assert list(switch.links) == ["b", "c"]
    switch.advance(1)
    assert list(switch.links) == ["b"] and playing.over


def test_a_port_that_has_gone_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    switch = MemorySwitch(PORTS, clock=clock)
    switch.play(Scenario.parse(at("1s", "link = 'b'\nset = 'delay=1ms'") + at("1s", "link = 'c'\nset = 'delay=1ms'")))
    switch.remove_port("b")
    clock.now += 1
    switch.tick()
    assert list(switch.links) == ["c"]
    assert caplog.messages[0] == ("scenario at 1s: b set delay=1ms: the switch has no port 'b'; it has: a, c; going on")


# -- with pods ------------------------------------------------------------------------------------


def reach(lab: Lab) -> set[tuple[str, str]]:
    """Which pods reach which others, by a ping each."""
    return {(one.name, other.name) for one, other in itertools.permutations(lab, 2) if one.ping(other, timeout=0.15)}


@pytest.mark.slow
@pytest.mark.live
def test_partition_and_heal_among_five_pods() -> None:
    everywhere = set(itertools.permutations([f"pod{n}" for n in range(1, 6)], 2))
    with stage(5, ports_fail=True) as (lab, switch):
        eventually(lambda: reach(lab) == everywhere, "all reach all")
        switch.play(Scenario.parse(at("0", 'partition = [["pod1", "pod2"], ["pod3"]]')))
        groups = [{"pod1", "pod2"}, {"pod3"}, {"pod4", "pod5"}]
        within = {pair for pair in everywhere if any(group >= set(pair) for group in groups)}
        eventually(lambda: "pod1" in switch.links, "the partition")
        assert reach(lab) <= within
        eventually(lambda: reach(lab) == within, "pods of a group reach each other")
        switch.play(Scenario.parse(at("0", "heal = true")))
        eventually(lambda: reach(lab) == everywhere, "all reach all")


@pytest.mark.live
@pytest.mark.parametrize("way", ["to_pod", "from_pod", "both"])
def test_a_cut_is_silent(way: str) -> None:
    with stage(2, ports_fail=True) as (lab, switch):
        one, two = lab
        assert one.ping(two, timeout=PATIENCE)
        switch.play(Scenario.parse(at("0", f'link = "pod1"\ncut = {"true" if way == "both" else repr(way)}'))).wait()
        assert not one.ping(two, timeout=0.2) and not two.ping(one, timeout=0.2)
        assert "NO-CARRIER" not in one.run(["ip", "link", "show", "eth0"]).stdout

        def cut() -> tuple[bool, bool]:
            port = switch.counters().ports["pod1"]
            return bool(port.tx_dropped["link_cut"]), bool(port.dropped["link_cut"])

        eventually(lambda: cut() == (way in ("to_pod", "both"), way in ("from_pod", "both")), "the cut's drops")
        switch.mend("pod1")
        eventually(lambda: one.ping(two, timeout=0.5), "an answer")


@pytest.mark.live
def test_a_flap_and_the_end_of_the_switch(caplog: pytest.LogCaptureFixture) -> None:
    with stage(2, ports_fail=True) as (lab, switch):
        playing = switch.play(Scenario.flapping(["pod1"], Flap.parse("50ms/50ms")))
        with switch.monitor(["link"]) as monitor:
            heard: list[str] = []

            def has_flapped() -> bool:
                heard.extend(event["link"] for event in monitor.read() or [])
                return heard.count("down") >= 3 and heard.count("up") >= 3

            eventually(has_flapped, "three outages")
        assert not playing.over
        switch.stop()
        assert playing.over
        eventually(lambda: "NO-CARRIER" not in lab["pod1"].run(["ip", "link", "show", "eth0"]).stdout, "the carrier")


@pytest.mark.live
def test_none_begins_while_the_switch_stops() -> None:
    """The switch ends its scenarios; one that is played meanwhile, as by this step, would go on."""
    late = Scenario.parse(at("3600s", "heal = true"))
    with Lab(2) as lab, Switch(lab.ports) as switch:
        playing = switch.play(Scenario.parse(at("0", "link = 'pod1'\nflap = '10ms/10ms cut'")))
        eventually(lambda: "pod1" in switch.links, "an outage")
        refused = []
        close = playing.close

        def play_and_close() -> None:
            with pytest.raises(ConfigError, match="this switch was stopped") as error:
                switch.play(late)
            refused.append(error)
            close()

        playing.close = play_and_close  # type: ignore[method-assign]
        switch.stop()
        assert refused and switch.playing == () and playing.over


@pytest.mark.live
def test_played_before_the_start() -> None:
    with Lab(2) as lab:
        switch = Switch(lab.ports)
        playing = switch.play(Scenario.parse(at("0", 'link = "pod1"\nset = "delay=1ms"')))
        assert switch.links == {} and not playing.over
        with switch:
            assert playing.wait(60)
            assert list(switch.links) == ["pod1"]


# -- in virtual time ------------------------------------------------------------------------------


def test_frames_in_flight_and_steps_share_one_time() -> None:
    """A frame that the switch decides at 2 s meets the links of then; the same every time."""
    text = (
        at("0", 'link = "a"\nset = "from_pod.delay=2s"')
        + at("1999ms", 'link = "b"\nset = "to_pod.delay=1s"')
        + at("2s", 'link = "c"\ncut = true')
        + at("2500ms", 'link = "b"\ncut = true')
    )

    def arrivals() -> list[tuple[float, int]]:
        switch = MemorySwitch(PORTS, clock=None)
        switch.play(Scenario.parse(text))
        assert switch.process("a", [ethernet(GROUP, A)]) == []
        return [(arrival.time, arrival.port) for arrival in switch.advance(10)]

    assert arrivals() == [(3.0, 1)] == arrivals()


# -- a matrix, and links of a lab -----------------------------------------------------------------


def test_a_matrix() -> None:
    regions = {"eu": ["a", "b"], "us": ["c"]}
    found = matrix(regions, {("eu", "us"): "delay=40ms", ("us", "eu"): Link(delay="50ms"), ("eu", "eu"): "delay=1ms"})
    assert {pair: str(link) for pair, link in found.items()} == {
        ("a", "b"): "delay=1ms",
        ("b", "a"): "delay=1ms",
        ("a", "c"): "delay=40ms",
        ("b", "c"): "delay=40ms",
        ("c", "a"): "delay=50ms",
        ("c", "b"): "delay=50ms",
    }
    assert set(matrix(regions, {("us", "eu"): "delay=9ms"})) == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}
    switch = MemorySwitch(PORTS)
    switch.set_links(found)
    assert len(switch.links) == 6


@pytest.mark.parametrize(
    ("regions", "links", "line"),
    [
        ({"eu": ["a"], "us": ["a"]}, {("eu", "us"): "lan"}, "a is in the regions eu and us; a port is in one"),
        ({"eu": ["a"], "us": ["b"]}, {("eu", "ys"): "lan"}, "there is no region 'ys'; there are: eu, us"),
        ({"eu": ["a"], "us": ["b"]}, {("eu", "eu"): "lan"}, "there is no link between the regions eu and us; add"),
        ({"eu": ["a"], "us": ["b"]}, {("eu", "us"): "delay=5"}, "delay '5': a unit is missing"),
    ],
)
def test_a_wrong_matrix(regions: dict[str, list[str]], links: dict[tuple[str, str], str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        matrix(regions, links)
    assert str(refused.value).startswith(line)


@pytest.mark.live
def test_links_of_a_lab() -> None:
    wish = {"*": "delay=1ms", "pod2": Link(delay="20ms"), ("pod1", "pod3"): "delay=30ms", "pod3>pod1": "delay=5ms"}
    with Lab(3, link=wish) as lab, Switch(lab.ports) as switch:
        assert {place: str(state.link) for place, state in switch.links.items()} == {
            "pod1": "delay=1ms",
            "pod2": "delay=20ms",
            "pod3": "delay=1ms",
            ("pod1", "pod3"): "delay=30ms",
            ("pod3", "pod1"): "delay=5ms",
        }
        assert min(lab["pod1"].ping("pod3", count=3, timeout=PATIENCE).rtts) >= 0.037
        switch.set_link("pod2", None)
        switch.set_link("pod1", "delay=2ms")
        switch.remove_port("pod3")
        switch.add_port(lab["pod3"].port)
        assert {place: str(state.link) for place, state in switch.links.items()} == {
            "pod1": "delay=2ms",
            "pod3": "delay=1ms",
            ("pod1", "pod3"): "delay=30ms",
        }


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        ({"pod9": "lan"}, "a link names 'pod9', which is no port of the lab; its ports are pod1, pod2"),
        ({("pod1", "pod9"): "lan"}, "a link names 'pod9', which is no port of the lab"),
        ({"pod1>pod1": "lan"}, "'pod1>pod1' is no pair of ports"),
        ("dealy=5ms", "a link has no dealy"),
    ],
)
def test_wrong_links_of_a_lab(wish: object, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Lab(2, link=wish)  # type: ignore[arg-type]
    assert str(refused.value).startswith(line)
