"""A core and a model that live the same history, and are compared after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from accounts import check_copies, check_fates
from clock import Clock
from model import FLAGS, Bucket, Model
from strategies import (
    Add,
    AddNeighbour,
    Advance,
    Flush,
    History,
    Process,
    Remove,
    RemoveNeighbour,
    SetFlags,
    SetLink,
    SetPolicy,
    SetStormControl,
    Step,
    Sweep,
    Tick,
)

from fastbridge import Counters, Message, Neighbours, Policy, StormControl, Switch, Verdict

COUNTED = ("rx_frames", "rx_bytes", "forwarded", "flooded", "consumed", "tx_frames", "tx_bytes")
COUNTED += ("rx_in_flight", "tx_in_flight", "link_added")


class Watch(Policy):
    """Learns who is where, and has no opinion."""

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        return None


@dataclass
class Pair:
    """A core and a model that live the same history."""

    core: Switch
    model: Model
    clock: Clock
    split: Callable[[list[bytes]], list[list[bytes]]]

    def live(self, step: Step) -> None:
        match step:
            case Process(ingress, batch):
                got = [(e.port, e.frame) for part in self.split(batch) for e in self.core.process(ingress, part)]
                assert got == self.model.process(ingress, batch) + [copy[1:] for copy in self.model.advance()]
            case Advance(eighths):
                self.clock.now += eighths / 8
            case Tick():
                self.core.tick()
                self.model.tick()
            case Add(mac, port, vid):
                self.core.fdb.add(mac, self.core.ports[port].name, vlan=vid)
                self.model.add(mac, port, vid)
            case Remove(mac, vid):
                assert self.core.fdb.remove(mac, vlan=vid) == self.model.remove(mac, vid)
            case Flush(port):
                self.core.fdb.flush(None if port is None else self.core.ports[port].name)
                self.model.flush(port)
            case SetFlags(port, flags):
                self.core.set_flags(port, **{name: name in flags for name in FLAGS})
                self.model.ports[port].flags = set(flags)
            case SetStormControl(port, rates):
                named = (rates.get(kind) for kind in ("broadcast", "multicast", "unicast"))
                self.core.set_storm_control(StormControl(*named), port)
                self.model.ports[port].storm = {kind: Bucket(rate) for kind, rate in rates.items()}
            case SetLink(port, link):  # in memory no link is lost by itself, and no loop is found
                self.core._dataplane.set_blocked(port, link == "blocked")
                self.core._dataplane.set_link(port, "up" if link == "blocked" else link)
                self.model.ports[port].link = link
            case SetPolicy(port, policy):
                self.core.set_policy(Watch() if policy == "watch" else policy, port)
                self.model.set_policy(port, policy)
            case AddNeighbour(ip, mac, port, vlan):
                self.core.neighbours.add(ip_address(ip), mac, port, vlan)
                self.model.add_neighbour(ip, mac.to_bytes(6, "big"), port, vlan)
            case RemoveNeighbour(ip, vlan):
                assert self.core.neighbours.remove(ip_address(ip), vlan) == self.model.remove_neighbour(ip, vlan)
            case Sweep():
                self.core.neighbours.sweep()
                self.core._policing.bind()
                self.model.sweep()
        self.compare()

    def compare(self) -> None:
        assert core_fdb(self.core) == model_fdb(self.model)
        assert core_neighbours(self.core) == model_neighbours(self.model)
        assert self.core.neighbours.conflict_count == self.model.policy["conflicts"]
        counted = Counter({k: n for k, n in self.core.counters().policy.items() if n})
        assert counted == Counter({k: n for k, n in self.model.policy.items() if n and k != "conflicts"})
        assert len(self.core.fdb) == len(model_fdb(self.model))
        counters = self.core.counters()
        for name in ("learned", "moved", "aged", "refused"):
            assert getattr(counters, name) == self.model.counts[name], name
        for port in self.model.ports:
            core_port = counters.ports[port.name]
            for name in COUNTED:
                assert (name, getattr(core_port, name)) == (name, port.counts[name]), port.name
            assert nonzero(core_port.dropped) == port.dropped
            assert nonzero(core_port.tx_dropped) == port.tx_dropped
            check_copies(core_port, port.copies)
        check_fates(counters)
        self.compare_totals(counters)

    def compare_totals(self, counters: Counters) -> None:
        assert counters.total == sum(counters.ports.values(), type(counters.total)())


def core_fdb(core: Switch) -> dict[tuple[int, int], tuple[str, float | None, bool]]:
    return {(e.vlan, int(e.mac)): (e.port, e.age, e.static) for e in core.fdb}


def model_fdb(model: Model) -> dict[tuple[int, int], tuple[str, float | None, bool]]:
    """The live entries, as a switch shows them."""
    now = model._now()
    return {
        key: (model.ports[entry.port].name, None if entry.static else (now - entry.seen) / 1000, entry.static)
        for key, entry in model.fdb.items()
        if not model.expired(entry)
    }


def core_neighbours(core: Switch) -> dict[tuple[int, bytes], tuple[bytes, str, float | None]]:
    return {(n.vlan, n.ip.packed): (n.mac.packed, n.port, n.age) for n in core.neighbours}


def model_neighbours(model: Model) -> dict[tuple[int, bytes], tuple[bytes, str, float | None]]:
    """The live entries, as a switch shows them."""
    return {
        key: (n.mac, model.ports[n.port].name, None if n.static else model.clock() - n.seen)
        for key, n in model.neighbours.items()
        if model.lookup(*key)
    }


def nonzero(drops: object) -> dict[str, int]:
    return {reason: count for reason, count in dict(drops).items() if count}  # type: ignore[call-overload]


def pair(history: History, split: Callable[[list[bytes]], list[list[bytes]]]) -> Pair:
    clock = Clock()
    options: dict[str, Any] = {
        "ageing": history.ageing,
        "capacity": history.capacity,
        "filter_link_local": history.filter_link_local,
        "neighbour_ageing": history.neighbour_ageing,
        "clock": clock,
    }
    core = Switch.in_memory(history.ports, move_damping=history.damping, **options)
    model = Model(history.ports, damping=history.damping, **options)
    return Pair(core, model, clock, split)


def whole(batch: list[bytes]) -> list[list[bytes]]:
    return [batch]


def one_by_one(batch: list[bytes]) -> list[list[bytes]]:
    return [[frame] for frame in batch]
