"""Chaos, live: pods that talk all the time while their links flap, are renamed, move to another namespace, get another
MTU, are deleted, and ports come and go, over emulated links that are set, changed, cut and reset. At the end everything
is put right, and then every frame must be accounted for.

    python tests/fuzz/chaos.py --seconds 30 --workers 2

Needs root or a user namespace; all happens in namespaces of its own. The seed is printed; a failure prints the command
that begins again with it (what happens when is the machine's to say, what is done, in which order, is the seed's).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

for folder in ("support", "core"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from accounts import check_fates
from frames import GROUP, ethernet
from live import Wire, eventually

from fastbridge import Capture, ConfigError, Lab, PortError, Switch
from fastbridge.errors import LabError
from fastbridge.lab.links import Links
from fastbridge.lab.namespaces import NamespaceHelper

PODS = 4
FINAL_FRAMES = 200
LINKS = ["delay=2ms", "delay=30ms,jitter=9ms", "loss=20%", "rate=2mbit,limit=20p", "delay=1ms,rate=50mbit,duplicate=5%"]
LINKS += ["corrupt=5%,jitter=1ms,delay=1ms,reorder=30%", "loss_model=gilbert(5%,20%)", "to_pod.delay=300ms", "4g"]
CHANGES = ["delay=0ms", "delay=12ms", "loss=1%", "loss=0%", "duplicate=50%", "from_pod.delay=3ms"]
POLICIES = ["flood", "suppress", "guard", "guard,ratelimit=50,suppress", "direct"]


class Chaos:
    """What can happen to a lab and its switch; each undoes itself, at once or in `repair`."""

    def __init__(self, lab: Lab, switch: Switch, rng: random.Random) -> None:
        self.lab, self.switch, self.rng = lab, switch, rng
        self.done: Counter[str] = Counter()
        self.actions: list[Callable[[Any], None]] = [
            self.flap_pod_end, self.flap_host_end, self.rename, self.move_away, self.change_mtu, self.out_and_in,
            self.new_policy, self.new_flags, self.flush, self.look, self.foresee, self.capture, self.mirror,
            self.link, self.link, self.change_link, self.cut, self.reset_links,
        ]  # fmt: skip
        self.captures: list[Capture] = []

    def act(self) -> None:
        action = self.rng.choice(self.actions)
        pod = self.rng.choice(self.lab.pods)
        self.done[action.__name__] += 1
        # What has just been moved, renamed or taken out is not there for the next: that is the point.
        with contextlib.suppress(LabError, PortError, ConfigError):
            action(pod)

    def flap_pod_end(self, pod: Any) -> None:
        pod.set_down()
        time.sleep(self.rng.choice([0, 0.01, 0.1]))
        pod.set_up()

    def flap_host_end(self, pod: Any) -> None:
        pod.port.set_down()
        time.sleep(self.rng.choice([0, 0.01, 0.1]))
        pod.port.set_up()

    def rename(self, pod: Any) -> None:
        with Links(self.lab.namespace) as links:
            index = links.index(pod.name)
            for name in ("renamed", pod.name):
                links._ip.link("set", index=index, ifname=name)
                time.sleep(self.rng.choice([0, 0.02]))

    def move_away(self, pod: Any) -> None:
        """The host end goes to another namespace and comes back, down then."""
        with NamespaceHelper() as helper:
            elsewhere = helper.create()
            with Links(self.lab.namespace) as links:
                links._ip.link("set", index=links.index(pod.name), net_ns_fd=elsewhere.fd)
            time.sleep(self.rng.choice([0, 0.05]))
            with Links(elsewhere) as links:
                links._ip.link("set", index=links.index(pod.name), net_ns_fd=self.lab.namespace.fd)
            elsewhere.close()
        pod.port._close()
        self.repair(pod)

    def change_mtu(self, pod: Any) -> None:
        mtu = self.rng.choice([1280, 1500, 9000])
        for end, name in ((self.lab.namespace, pod.name), (pod.namespace, pod.interface)):
            with Links(end) as links:
                links.set(name, mtu=mtu)

    def out_and_in(self, pod: Any) -> None:
        self.switch.remove_port(pod.name)
        time.sleep(self.rng.choice([0, 0.02]))
        self.switch.add_port(pod.port)

    def new_policy(self, pod: Any) -> None:
        self.switch.set_policy(self.rng.choice(POLICIES), self.rng.choice([None, pod.name]))

    def new_flags(self, pod: Any) -> None:
        flag = self.rng.choice(["isolated", "locked", "learning", "hairpin", "coalesce"])
        self.switch.set_flags(pod.name, **{flag: self.rng.random() < 0.5})

    def place(self, pod: Any) -> Any:
        """A port, or a pair of ports."""
        other = self.rng.choice(self.lab.pods)
        return pod.name if other is pod or self.rng.random() < 0.6 else (pod.name, other.name)

    def link(self, pod: Any) -> None:
        self.switch.set_link(self.place(pod), self.rng.choice([None, *LINKS]))

    def change_link(self, pod: Any) -> None:
        self.switch.change_link(self.place(pod), self.rng.choice(CHANGES))

    def cut(self, pod: Any) -> None:
        """Cut a link, mend one, divide the pods, or undo that."""
        names = [each.name for each in self.lab]
        match self.rng.randrange(4):
            case 0:
                self.switch.cut(pod.name, direction=self.rng.choice(["both", "to_pod", "from_pod"]))
            case 1:
                self.switch.mend(pod.name)
            case 2:
                self.switch.partition([names[: PODS // 2], names[PODS // 2 :]])
            case _:
                self.switch.heal()

    def reset_links(self, pod: Any) -> None:
        self.switch.reset_links()

    def flush(self, pod: Any) -> None:
        self.switch.fdb.flush(self.rng.choice([None, pod.name]))

    def foresee(self, pod: Any) -> None:
        """It may be wrong, with all that happens meanwhile; it may not fail, nor change anything."""
        with contextlib.suppress(ConfigError):  # there is no such port, for the moment
            str(self.switch.explain(pod.name, ethernet(GROUP, int(pod.mac), payload=b"chaos is foreseen")))
            self.switch.send_in(pod.name, ethernet(GROUP, int(pod.mac), payload=b"chaos is sent in"))
        self.switch.load()

    def look(self, pod: Any) -> None:
        check_snapshot(self.switch)
        list(self.switch.fdb), list(self.switch.neighbours), self.switch.fdb.to_numpy(), str(self.switch.counters())

    def capture(self, pod: Any) -> None:
        """Begin to capture, read what was captured, or end it."""
        if len(self.captures) < 3:
            ports = self.rng.choice([(), [pod.name]])
            self.captures.append(self.switch.capture(ports=ports, drops=self.rng.random() < 0.5))
        capture = self.rng.choice(self.captures)
        assert all(event.length >= len(event.frame) for event in capture.read())
        if self.rng.random() < 0.5:
            capture.close()
            self.captures.remove(capture)

    def mirror(self, pod: Any) -> None:
        """Begin to mirror a port, or end it."""
        mirrors = self.switch.mirrors
        if mirrors:
            self.rng.choice(mirrors).close()
        else:
            self.switch.mirror([pod.name], self.rng.choice(self.lab.pods).name)

    def repair(self, pod: Any) -> None:
        """The host end up, and a port."""
        with contextlib.suppress(LabError):
            pod.port.set_up()
        state = {port.name: port.state for port in self.switch.ports}.get(pod.name)
        if state in (None, "gone"):
            with contextlib.suppress(PortError, ConfigError):
                self.switch.add_port(pod.port)

    def put_right(self) -> None:
        """As at the beginning; the ports anew, whatever has become of them."""
        self.switch.reset_links()
        for watcher in (*self.captures, *self.switch.mirrors):
            watcher.close()
        for pod in self.lab:
            with contextlib.suppress(ConfigError):
                self.switch.remove_port(pod.name)
            pod.set_up()
            pod.port.set_up()
            self.change_mtu_back(pod)
            self.switch.add_port(pod.port)
        self.switch.set_policy("flood")
        for port in self.switch.ports:
            self.switch.set_policy("flood", port)

    def change_mtu_back(self, pod: Any) -> None:
        for end, name in ((self.lab.namespace, pod.name), (pod.namespace, pod.interface)):
            with Links(end) as links:
                links.set(name, mtu=1500)


def check_snapshot(switch: Switch) -> None:
    counters = switch.counters()
    check_fates(counters)
    total = counters.total
    copies = total.tx_frames + sum(total.tx_dropped.values()) + total.tx_in_flight - total.link_added
    assert copies >= counters.total.forwarded, f"{copies} copies of {counters.total.forwarded} frames to one port each"


def in_flight(switch: Switch) -> int:
    total = switch.counters().total
    return total.rx_in_flight + total.tx_in_flight


def check_events(events: list[dict[str, Any]]) -> None:
    """Whatever happened, it is told by the names of ports that were there."""
    assert events, "nothing was told"
    for event in events:
        names = {event.get("ifname"), event.get("was"), event.get("egress")} - {None}
        assert not any(name.startswith("#") for name in names), event


class Talk(threading.Thread):
    """A pod that says something to everybody, all the time."""

    def __init__(self, pod: Any, lab: Lab, seed: int) -> None:
        super().__init__(name=f"talk-{pod.name}", daemon=True)
        self.pod, self.rng, self.ended = pod, random.Random(seed), threading.Event()
        self.targets = [int(other.mac) for other in lab if other is not pod] + [GROUP, 0x02_00_00_00_99_99]
        self.wire = Wire(pod)
        self.wire.socket.settimeout(0.2)

    def run(self) -> None:
        while not self.ended.wait(0.001):
            source = self.rng.choice([int(self.pod.mac), 0x02_00_00_00_AA_00 + self.rng.randrange(50)])
            payload = b"chaos" + self.rng.randbytes(self.rng.choice([20, 600, 1_200]))
            for _ in range(self.rng.choice([1, 5, 30])):
                with contextlib.suppress(OSError):  # its own end is down, or its buffer full
                    self.wire.socket.send(bytes(10) + ethernet(self.rng.choice(self.targets), source, payload=payload))

    def end(self) -> None:
        self.ended.set()
        self.join()
        self.wire.socket.close()


def final_count(lab: Lab, switch: Switch) -> None:
    """With all quiet and right: each pod sends known frames to each; all are heard, or in one of the counters."""
    eventually(lambda: not in_flight(switch), "the end of what was in flight")
    check_snapshot(switch)
    for one in lab:
        for other in lab:
            if one is not other:
                eventually(lambda a=one, b=other: a.ping(b, timeout=5), f"{one.name} to {other.name}")  # type: ignore[misc]
    wires = {pod.name: Wire(pod) for pod in lab}
    try:
        for pod in lab:
            wires[pod.name].mark()
        before = switch.counters()
        expected = Counter[str]()
        for n in range(FINAL_FRAMES):
            for pod in lab:
                for other in lab:
                    if pod is not other:
                        text = b"final %s %d" % (pod.name.encode(), n)
                        wires[pod.name].send(ethernet(int(other.mac), int(pod.mac), payload=text))
                        expected[pod.name] += 1
        for name, count in expected.items():
            eventually(lambda n=name, c=count: received(switch, n, before) >= c, f"the frames of {name}")
    finally:
        for wire in wires.values():
            wire.socket.close()
    check_snapshot(switch)
    heard = sum(expected.values())
    after, moved = switch.counters().total, before.total
    lost = sum(after.tx_dropped.values()) - sum(moved.tx_dropped.values()) + after.rx_missed - moved.rx_missed
    sent = after.tx_frames + after.fast_sent - moved.tx_frames - moved.fast_sent
    assert sent + lost >= heard, f"{heard} frames, {after} after {moved}"


def received(switch: Switch, name: str, before: Any) -> int:
    now, then = switch.counters().ports[name], before.ports[name]
    return now.rx_frames + now.fast + now.rx_missed - then.rx_frames - then.fast - then.rx_missed


def run(seed: int, seconds: float, workers: int) -> Counter[str]:
    rng = random.Random(seed)
    with Lab(PODS) as lab:
        with Switch(lab.ports, workers=workers, fanout=workers > 1 and rng.random() < 0.5) as switch:
            chaos, monitor = Chaos(lab, switch, rng), switch.monitor(limit=1 << 16)
            talks = [Talk(pod, lab, seed + n) for n, pod in enumerate(lab)]
            for talk in talks:
                talk.start()
            try:
                ends = time.monotonic() + seconds
                while time.monotonic() < ends:
                    chaos.act()
            finally:
                for talk in talks:
                    talk.end()
            chaos.put_right()
            check_events(monitor.read() or [])
            monitor.close()
            final_count(lab, switch)
        check_snapshot(switch)
        assert not in_flight(switch)
        return chaos.done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FASTBRIDGE_FUZZ_SECONDS", "30")))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=min(2, len(os.sched_getaffinity(0))))
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if given.seed is None else given.seed
    logging.getLogger("fastbridge").addHandler(logging.NullHandler())
    print(f"seed {seed}", flush=True)
    try:
        done = run(seed, given.seconds, given.workers)
    except BaseException:
        again = f"--seconds {given.seconds:g} --seed {seed} --workers {given.workers}"
        print(f"failed; again: {sys.argv[0]} {again}", flush=True)
        raise
    print(f"{sum(done.values())} things happened ({', '.join(f'{n} {c}' for n, c in sorted(done.items()))}): all held")
    return 0


if __name__ == "__main__":
    socket.setdefaulttimeout(None)
    sys.exit(main())
