"""Links of well-known kinds. Each figure is a published one.

One way, per direction; RTT is the sum. Sources give an RTT: half of it is the delay of each direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WEBPAGETEST = "WebPageTest, www/settings/connectivity.ini.sample, [{}]"


@dataclass(frozen=True, slots=True)
class Preset:
    """The words of a link, and where their figures are from."""

    words: Mapping[str, Any]
    source: str


PRESETS = {
    "lan": Preset(
        {"delay": "250us", "rate": "1gbit", "overhead": 24},
        'RTT: J. Dean, "Numbers Everyone Should Know" (2009), round trip within one data centre; overhead: IEEE 802.3, '
        "preamble, FCS and gap between packets",
    ),
    "wifi": Preset(
        {"delay": "1ms", "to_pod": {"rate": "30mbit"}, "from_pod": {"rate": "15mbit"}},
        "Firefox, Network Monitor: Throttling, Wi-Fi",
    ),
    "4g": Preset({"delay": "35ms", "rate": "12mbit"}, _WEBPAGETEST.format("LTE")),
    "3g": Preset(
        {"delay": "150ms", "to_pod": {"rate": "1.6mbit"}, "from_pod": {"rate": "768kbit"}},
        _WEBPAGETEST.format("3G"),
    ),
    "dsl": Preset(
        {"delay": "25ms", "to_pod": {"rate": "1.5mbit"}, "from_pod": {"rate": "384kbit"}},
        _WEBPAGETEST.format("DSL"),
    ),
    "satellite": Preset(
        {"delay": "300ms", "to_pod": {"rate": "25mbit"}, "from_pod": {"rate": "5mbit"}},
        'geostationary; RTT: G. Huston, "Testing LEO and GEO satellite services in Australia", APNIC (2022); '
        "rates: those of nbn Sky Muster",
    ),
}
