"""What a running switch says it would do with a frame is what tcpdump in the pods then sees."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from frames import GROUP, ethernet, tag
from live import MARK, PATIENCE, eventually, hear_each_other, settled, stage, wires
from test_live import CASES, X

from fastbridge import Lab, StormControl, Switch, Topology
from fastbridge.described import describe
from fastbridge.errors import ConfigError
from fastbridge.pcap import _frames

pytestmark = [pytest.mark.live, pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump")]


@contextmanager
def dumps(lab: Lab, place: Path) -> Iterator[list[Path]]:
    """What tcpdump writes in each pod, of what comes in."""
    with ExitStack() as running:
        files = []
        for pod in lab:
            files.append(place / f"{pod.name}.pcap")
            # With slots for whole GSO frames its buffer has room for 32 frames only, too few beside other work.
            how = ["-Q", "in", "-U", "--immediate-mode", "-s", "2048", "-B", "16384", "-Z", "root"]
            command = ["tcpdump", "-i", pod.interface, *how, "-w", str(files[-1])]
            process = running.enter_context(pod.popen(command, stderr=subprocess.PIPE, text=True))
            running.callback(process.kill)
            said = process.stderr.readline()
            if "Operation not permitted" in said:  # it wants to be root of more than a user namespace
                pytest.skip(f"tcpdump does not run here: {said}")
            assert "listening on" in said
        yield files


def frames_of(path: Path) -> list[bytes]:
    """All so far: tcpdump may be writing the last one."""
    found = []
    with path.open("rb") as file, suppress(ConfigError):
        for _, _, frame in _frames(file, path):
            found.append(frame)
    return found


def own(frames: list[bytes]) -> list[bytes]:
    """The test's own frames, without those of the pods' kernels."""
    return [frame for frame in frames if b"fastbridge" in frame and MARK not in frame]


@pytest.mark.both_paths
@pytest.mark.parametrize("rules", ["plain", "isolated and locked", "limited"])
def test_tcpdump_sees_what_was_foreseen(rules: str, tmp_path: Path) -> None:
    talk = [
        (port, frame + b" %d" % n)
        for name in ("untagged", "802.1Q", "QinQ", "VLANs apart", "bad sources", "link-local groups", "random 1")
        for n, (port, frame) in enumerate(CASES[name])
    ]
    # ports_fail: rules, too, leave some ports out
    pods = Topology.of(3, ipv6=None)  # which say nothing of their own accord
    with stage(pods, ports_fail=True) as (lab, switch), wires(lab) as ends, dumps(lab, tmp_path) as files:
        hear_each_other(ends)
        if rules == "isolated and locked":
            switch.set_flags("pod1", isolated=True)
            switch.set_flags("pod2", isolated=True)
            switch.set_flags("pod3", multicast_flood=False)
        elif rules == "limited":
            switch.set_storm_control(StormControl(multicast=0.001), "pod1")
        foreseen: dict[str, list[bytes]] = {pod.name: [] for pod in lab}
        for ingress, frame in talk:
            said = switch.explain(f"pod{ingress + 1}", frame)
            for port, copy in said.copies or ():
                foreseen[port].append(copy)
            ends[ingress].send(frame)
            mark = ends[ingress].mark()
            for end in [ends[2]] if ingress < 2 else ends[:2]:  # the others may be isolated from it
                end.heard_before(mark)
            settled(switch)
        marks = [ends[2].mark(), ends[0].mark()]
        eventually(lambda: all(set(marks) & set(frames_of(file)) for file in files), "the marks")
        for pod, file in zip(lab, files, strict=True):
            heard, expected = own(frames_of(file)), iter(foreseen[pod.name])
            assert all(frame in expected for frame in heard), pod.name  # in this order
            costly = switch.counters().ports[pod.name].tx_dropped["costly"]
            assert len(foreseen[pod.name]) - len(heard) <= costly, pod.name


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "fanout": True}], ids=str)
def test_nothing_changes_and_what_is_sent_in_arrives(options: dict[str, Any], tmp_path: Path) -> None:
    if options and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers need two CPUs")
    with stage(3, **options) as (lab, switch), wires(lab) as ends, dumps(lab, tmp_path) as files:
        hear_each_other(ends)
        frame = ethernet(GROUP, X, tag(5), payload=b"fastbridge sends it in")
        for _ in range(100):
            said = switch.explain("pod1", frame)
        assert (said.action, said.learned, said.egress) == ("flooded", "new", ("pod2", "pod3"))
        assert X not in {int(entry.mac) for entry in switch.fdb}
        said = switch.send_in("pod1", frame)
        assert (said.sent, said.egress) == (True, ("pod2", "pod3"))
        assert switch.fdb.lookup(X, vlan=5).port == "pod1"
        eventually(lambda: all(own(frames_of(file)) == [frame] for file in files[1:]), "the frame in both pods")
        assert own(frames_of(files[0])) == []


def test_a_pair_that_the_kernel_forwards() -> None:
    with stage(2) as (lab, switch):
        if switch.fast_path == "off":
            pytest.skip("no fast path here")
        frame = ethernet(int(lab["pod2"].mac), int(lab["pod1"].mac), ethertype=0x0800)

        def promoted() -> bool:
            lab["pod1"].ping("pod2", timeout=PATIENCE)
            return "the kernel forwards this pair itself" in str(switch.explain("pod1", frame))

        eventually(promoted)


def test_a_policy_that_answers() -> None:
    """Suppress answers for a known neighbour: nobody else hears the question."""
    with Lab(pods=3) as lab, Switch(lab.ports, policy="suppress", trusted=True) as switch:
        asked = describe(f"arp who-has {lab['pod2'].ipv4.ip} tell {lab['pod1'].ipv4.ip}", lambda ip: lab["pod1"].mac)
        said = switch.explain("pod1", asked)
        assert said.egress == ("pod1",)
        assert f"{lab['pod2'].ipv4.ip} is at {lab['pod2'].mac}" in str(said)
        before = switch.counters().policy.get("answered", 0)
        assert switch.send_in("pod1", asked).copies is None
        eventually(lambda: switch.counters().policy.get("answered", 0) > before, "the answer")
