"""Generators: the usual topologies, of any size, as the tables of a topology's file.

Switches are s1, s2, …, and pods pod1, pod2, … in the order of their switches. `linear` and `tree` are Mininet's.
"""

from __future__ import annotations

import itertools
from typing import Any

from fastbridge.errors import ConfigError

Table = dict[str, Any]

_MOST = 1_000_000  #: of anything; no machine has room for more


def star(pods: int) -> Table:
    """Pods around one switch."""
    _need("a star", 1, pods=pods)
    return _table([pods], [])


def linear(switches: int, pods: int) -> Table:
    """Switches in a line, each with pods."""
    _need("a line", 1, switches=switches, pods=pods)
    return _table([pods] * switches, itertools.pairwise(range(switches)))


def ring(switches: int, pods: int) -> Table:
    """Switches in a loop, each with pods."""
    _need("a ring", 3, switches=switches)
    _need("a ring", 1, pods=pods)
    return _table([pods] * switches, [(n, (n + 1) % switches) for n in range(switches)]) | {"loops": True}


def mesh(switches: int, pods: int) -> Table:
    """Switches, each joined to each other one, and each with pods."""
    _need("a mesh", 2, switches=switches)
    _need("a mesh", 1, pods=pods)
    return _table([pods] * switches, itertools.combinations(range(switches), 2)) | {"loops": switches > 2}


def tree(depth: int, fanout: int) -> Table:
    """Switches in a tree of so many levels; below each are `fanout` switches, or at the lowest level pods."""
    _need("a tree", 1, depth=depth, fanout=fanout)
    if fanout > 1 and fanout ** min(depth, _MOST.bit_length()) > _MOST:
        raise ConfigError(f"a tree: {depth} levels of {fanout} have more than {_MOST:,} pods; make it smaller")
    pods: list[int] = []
    trunks: list[tuple[int, int]] = []

    waiting: list[tuple[int | None, int]] = [(None, depth)]  # the switch above, and the levels from here down
    while waiting:
        above, levels = waiting.pop()
        node = len(pods)
        pods.append(fanout if levels == 1 else 0)
        if above is not None:
            trunks.append((above, node))
        if levels > 1:
            waiting += [(node, levels - 1)] * fanout
    return _table(pods, trunks)


def routed_star(lans: int, pods: int) -> Table:
    """A router with an interface on each of so many switches, each with pods: a LAN of its own."""
    _need("a routed star", 1, lans=lans, pods=pods)
    table = _table([pods] * lans, [])
    ends = {f"eth{n}": switch for n, switch in enumerate(table["switch"])}
    return table | {"pod": {"router": {"interfaces": ends, "forward": True}} | table["pod"]}


def _table(pods: list[int], trunks: Any) -> Table:
    """Switches, each with so many pods; trunks by the places of their switches."""
    switches: Table = {f"s{n}": {"trunks": []} for n in range(1, len(pods) + 1)}
    for one, other in trunks:
        switches[f"s{one + 1}"]["trunks"].append(f"s{other + 1}")
    homes = itertools.chain.from_iterable([switch] * count for switch, count in zip(switches, pods, strict=True))
    return {
        "switch": switches,
        "pod": {f"pod{n}": {"interfaces": {"eth0": switch}} for n, switch in enumerate(homes, 1)},
    }


def _need(what: str, least: int, **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int):
            raise ConfigError(f"{what}: {name} must be a whole number, not {count!r}")
        if count > _MOST:
            raise ConfigError(f"{what}: {name} must be {_MOST:,} or less, not {count:,}")
        if count < least:
            raise ConfigError(f"{what}: {name} must be {least} or more, not {count}")
