"""A matrix of links: what is between regions, as links of pairs of ports."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from fastbridge.errors import ConfigError

from .link import Link


def matrix(
    regions: Mapping[str, Sequence[str]], links: Mapping[tuple[str, str], Link | str]
) -> dict[tuple[str, str], Link]:
    """The links of all pairs of ports in these regions, for `switch.set_links` or `Lab(link=…)`.

    regions: the ports of each. links: one way, from the first region to the second; the way back is the same unless it
    has its own. (region, region): between its own ports, which else have none. The RTT of two regions is the sum of
    both ways. Raises ConfigError: a port is in two regions, two regions have no link, or there is no such region.
    """
    made = {}
    for (one, other), link in links.items():
        for region in (one, other):
            if region not in regions:
                raise ConfigError(f"there is no region {region!r}; there are: {', '.join(regions)}")
        made[one, other] = Link.parse(link) if isinstance(link, str) else link
    made = {(other, one): link for (one, other), link in made.items()} | made
    home: dict[str, str] = {}
    for region, ports in regions.items():
        for port in ports:
            if port in home:
                raise ConfigError(f"{port} is in the regions {home[port]} and {region}; a port is in one")
            home[port] = region
    for pair in itertools.combinations(regions, 2):
        if pair not in made:
            raise ConfigError(f'there is no link between the regions {" and ".join(pair)}; add {pair}: "delay=20ms"')
    return {
        (one, other): made[home[one], home[other]]
        for one, other in itertools.permutations(home, 2)
        if (home[one], home[other]) in made
    }
