"""Which frames a link loses: models of bursts, and frames by their number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from fastbridge.errors import ConfigError

from .units import Number, read_probability, show_probability

_GILBERT = re.compile(r"gilbert\((.*)\)", re.IGNORECASE)
_LOSE = re.compile(r"(every|frames)\s+([0-9]{1,18}(?:[\s,]+[0-9]{1,18})*)", re.IGNORECASE)
_ALLOWED = 'gilbert(p, r, loss in bad, loss in good), such as "gilbert(1%,30%)"'


@dataclass(frozen=True, slots=True)
class Gilbert:
    """The Gilbert-Elliott model: frames are lost in bursts.

    The link is good or bad. After each frame, good becomes bad with probability `p`, and bad becomes good with `r`.
    Frames are lost with `loss_bad` or `loss_good`. The values and their order are those of netem's
    `loss gemodel p r 1-h 1-k`, and so are the defaults. Without the last two it is Gilbert's simple model.

    Sources: E. N. Gilbert, Capacity of a Burst-Noise Channel, 1960; E. O. Elliott, Estimates of Error Rates for Codes
    on Burst-Noise Channels, 1963.
    """

    p: float
    r: float
    loss_bad: float = 1.0
    loss_good: float = 0.0

    @property
    def bad(self) -> float:
        """The share of frames that meet the bad state."""
        return self.p / (self.p + self.r) if self.p else 0.0

    @property
    def mean_loss(self) -> float:
        """The share of frames that are lost."""
        return self.bad * self.loss_bad + (1 - self.bad) * self.loss_good

    @property
    def mean_burst(self) -> float:
        """How many frames in a row are lost, on average: 1/r in the simple model; 0 if none ever is."""
        if not self.mean_loss:
            return 0.0
        # A burst begins where a frame is lost and the one before was not.
        after_good = (1 - self.p) * self.loss_good + self.p * self.loss_bad
        after_bad = self.r * self.loss_good + (1 - self.r) * self.loss_bad
        begins = (1 - self.bad) * (1 - self.loss_good) * after_good + self.bad * (1 - self.loss_bad) * after_bad
        return self.mean_loss / begins if begins else float("inf")

    def __str__(self) -> str:
        shares = [self.p, self.r, self.loss_bad, self.loss_good]
        while len(shares) > 2 and shares[-1] == (1.0, 0.0)[len(shares) - 3]:
            shares.pop()
        return f"gilbert({','.join(map(_show, shares))})"


def _show(share: float) -> str:
    return show_probability(share) if share else "0%"


def gilbert(p: Number, r: Number | None = None, loss_bad: Number = "100%", loss_good: Number = 0) -> Gilbert:
    """The Gilbert-Elliott model of loss in bursts, for `Link(loss_model=…)`.

    p: probability that a good link becomes bad after a frame. r: that a bad one becomes good, 1 - p by default.
    loss_bad, loss_good: probability of loss in these states. Each is text ("1%") or a number (0.01).
    The result has `mean_loss` and `mean_burst`. Raises ConfigError.
    """
    to_bad = _share("p", p)
    to_good = float(1 - Decimal(str(to_bad))) if r is None else _share("r", r)
    model = Gilbert(to_bad, to_good, _share("loss_bad", loss_bad), _share("loss_good", loss_good))
    if model.p and not model.r:
        raise ConfigError(f"loss_model {model}: r is 0, so a bad link stays bad; say cut or loss=100% for that")
    return model


def _share(name: str, value: Number) -> float:
    """A probability; 1 is all, as gilbert's numbers have no percent to be mistaken for."""
    return 1.0 if type(value) in (int, float) and value == 1 else read_probability(f"gilbert's {name}", value)


def read_model(value: object) -> Gilbert:
    """A model from what gilbert() gave, or from its text. Raises ConfigError."""
    if isinstance(value, Gilbert):
        return gilbert(value.p, value.r, value.loss_bad, value.loss_good)
    match = _GILBERT.fullmatch(value.strip()) if isinstance(value, str) else None
    parts = [part.strip() for part in match[1].split(",")] if match else []
    if not 1 <= len(parts) <= 4 or not all(parts):
        hint = "; tc calls this gemodel, with the same order" if "gemodel" in str(value) else ""
        raise ConfigError(f"loss_model must be {_ALLOWED}, not {value!r}{hint}")
    return gilbert(*parts)


class Lose(NamedTuple):
    """Frames that are lost by their number."""

    every: int = 0
    frames: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"every {self.every}" if self.every else f"frames {','.join(map(str, self.frames))}"


def read_lose(value: object) -> Lose:
    """Frames by number, from "every 10" or "frames 3,7,9", counted from 1. Raises ConfigError."""
    match = _LOSE.fullmatch(value.strip()) if isinstance(value, str) else None
    numbers = sorted({int(number) for number in re.findall("[0-9]+", match[2])}) if match else []
    if match is None or numbers[0] == 0 or (match[1].lower() == "every" and len(numbers) > 1):
        raise ConfigError(f'lose must be "every 10" or "frames 3,7,9", counted from 1, not {value!r}')
    return Lose(every=numbers[0]) if match[1].lower() == "every" else Lose(frames=tuple(numbers))
