"""A link in words, for people; `Link.stages` gives the numbers for the core.

One way, per direction; RTT is the sum.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastbridge.errors import ConfigError

from . import distributions, units
from .files import KnownFile, absolute
from .loss import Gilbert, Lose, read_lose, read_model
from .presets import PRESETS
from .stages import MOST_OVERHEAD, POOL_BYTES, Stages
from .traces import TraceSteps, read_trace
from .units import Limit

Direction = Literal["to_pod", "from_pod"]
DIRECTIONS: tuple[Direction, Direction] = ("to_pod", "from_pod")

#: A rate without a limit: its queue holds what leaves in a round trip of the link, and at least in this time …
_QUEUE_NS = 50 * 10**6
#: … and at least so many frames, or TCP could not begin at a low rate.
_QUEUE_FRAMES = 32
_FULL_FRAME = 1514

_MOST_SEED = (1 << 64) - 1
_PART = re.compile(r",(?=\s*[a-zA-Z_][\w.-]*\s*=)")  # a comma before a word; values have commas, too

#: What others call it.
_ELSEWHERE = {
    "bw": "Mininet calls it bw; write rate=10mbit",
    "max_queue_size": "Mininet calls it so; write limit=100p",
    "latency": "write delay=20ms, or for the queue's limit, as in tc's tbf, limit=50ms",
    "corruption": "containerlab calls it so; write corrupt=1%",
    "packet_loss": "write loss=1%",
    "drop": "write loss=1%",
    "gemodel": "tc calls it so; write loss_model=gilbert(1%,30%)",
    "gilbert": "write loss_model=gilbert(1%,30%)",
    "dup": "write duplicate=1%",
    "gap": "tc's gap is not there; write lose=every 10 for loss, or reorder=10%",
    "burst": "a link has none: frames leave at the rate, one by one",
    "slot": "tc's slots are not there; write a trace",
    "ecn": "a link marks no frame",
    "down": "write cut=true, which is silent; a carrier is taken away by the switch",
}


def _read_distribution(word: str, value: Any) -> str:
    if isinstance(value, KnownFile):
        return value
    if value in distributions.NAMES:
        return str(value)
    path = absolute(word, value)
    if "/" not in value and not Path(path).exists():
        raise ConfigError(
            f"{word} {value!r} is not known, nor a file here; there are {', '.join(distributions.NAMES)}, or the path "
            "of a table, such as tc's own, /usr/lib/tc/paretonormal.dist"
        )
    return KnownFile.of(path, distributions.table(path))


def _read_trace(word: str, value: Any) -> KnownFile:
    if isinstance(value, KnownFile):
        return value
    path = absolute(word, value)
    return KnownFile.of(path, read_trace(path))


def _read_reorder(word: str, value: Any) -> str:
    return "jitter" if value == "jitter" else units.show_probability(units.read_probability(word, value))


def _read_probability(word: str, value: Any) -> str:
    return units.show_probability(units.read_probability(word, value))


def _read_time(word: str, value: Any) -> str:
    return units.show_time(units.read_time(word, value))


#: How each word of a direction is read: to its canonical form.
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "delay": _read_time,
    "jitter": _read_time,
    "distribution": _read_distribution,
    "loss": _read_probability,
    "loss_model": lambda word, value: str(read_model(value)),
    "lose": lambda word, value: str(read_lose(value)),
    "rate": lambda word, value: units.show_rate(units.read_rate(word, value)),
    "limit": lambda word, value: units.show_limit(units.read_limit(word, value)),
    "duplicate": _read_probability,
    "corrupt": _read_probability,
    "reorder": _read_reorder,
    "overhead": lambda word, value: units.read_whole(word, value, MOST_OVERHEAD),
    "trace": _read_trace,
    "cut": units.read_switch,
}
#: All words.
WORDS = (*_READERS, "seed", *DIRECTIONS)


@dataclass(frozen=True, kw_only=True, repr=False)
class Link:
    """The emulated wire of a port, in both directions. One way, per direction; RTT is the sum.

    Each word is text with its unit, or a number in base units (seconds, bit/s, a probability); the link keeps it as
    canonical text. None, or `none` in text, stands for a word's default. Zero is zero: it does nothing.

    delay, jitter: times. A delay differs by the jitter as the distribution has it; a link keeps the order of frames.
    distribution: "uniform" (delay ± jitter), "normal" or "pareto" (jitter is the standard deviation), or the path of a
    table: netem's NAME.dist, or samples.
    loss: a share of frames. loss_model: gilbert(…), loss in bursts. lose: "every 10" or "frames 3,7,9".
    rate: bits a second. limit: what the queue before it holds: bytes ("100kB"), time ("50ms") or frames ("100p");
    without one, what leaves in a round trip of the link or in 50 ms, and 32 frames at least.
    duplicate, corrupt: shares of frames. corrupt flips one bit.
    reorder: a share of frames that take no delay, or "jitter": frames overtake as the jitter has it.
    overhead: bytes that each frame takes on the wire beside its length without FCS; 24 with Ethernet.
    trace: the path of a trace of rates, delays or both: mahimahi's, or CSV.
    cut: nothing passes, and the pod still has a carrier.
    seed: 64 bits for all that is left to chance; drawn once without one.
    to_pod, from_pod: words of one direction, which override.

    Files are read now, once. Raises ConfigError, in one line.
    """

    delay: str | float | None = None
    jitter: str | float | None = None
    distribution: str | None = None
    loss: str | float | None = None
    loss_model: Gilbert | str | None = None
    lose: str | None = None
    rate: str | float | None = None
    limit: str | None = None
    duplicate: str | float | None = None
    corrupt: str | float | None = None
    reorder: str | float | None = None
    overhead: str | int | None = None
    trace: str | None = None
    cut: bool | None = None
    seed: str | int | None = None
    to_pod: Mapping[str, Any] | None = None
    from_pod: Mapping[str, Any] | None = None
    _plain: dict[Direction, Stages | None] = field(init=False, compare=False)  # what a seed is still to be given

    if not TYPE_CHECKING:  # a type checker knows the words from the fields

        def __new__(cls, **words: Any) -> Link:
            """Raises ConfigError, with a hint, where Python would raise TypeError: there is no such word."""
            _refuse_unknown(words)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        for word in _READERS:
            self._keep(word, _read_word(word, getattr(self, word)))
        for direction in DIRECTIONS:
            self._keep(direction, self._read_overrides(direction))
        seed: Any = self.seed
        self._keep("seed", None if _is_none(seed) else units.read_whole("seed", seed, _MOST_SEED))
        for direction in DIRECTIONS:
            self._check(direction)
        if self.seed is None and self._is_random():
            self._keep("seed", secrets.randbits(32))
        self._keep("_plain", {direction: self._plain_stages(direction) for direction in DIRECTIONS})

    def _keep(self, word: str, value: Any) -> None:
        object.__setattr__(self, word, value)

    def _read_overrides(self, direction: Direction) -> dict[str, Any]:
        given = getattr(self, direction)
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f'{direction} must be words, such as {{"rate": "1mbit"}}, not {given!r}')
        overrides = {}
        for word, value in (given or {}).items():
            if word not in _READERS:
                raise _unknown(word, _READERS, f"{direction}.")
            overrides[word] = _read_word(word, value, f"{direction}.")
        return {
            word: overrides[word]
            for word in _READERS
            if overrides.get(word, getattr(self, word)) != getattr(self, word)
        }

    def __hash__(self) -> int:
        return hash(str(self))

    # -- words ---------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, text: str) -> Link:
        """A link from text: "delay=20ms,loss=1%", "4g", "4g,loss=2%,to_pod.rate=1mbit". Raises ConfigError."""
        return cls.of(_parse(text))

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Link:
        """A link from words, as `as_words` gives them and TOML or JSON has them. Raises ConfigError."""
        _refuse_unknown(words)
        return cls(**words)

    def change(self, text: str = "", /, **words: Any) -> Link:
        """The link with some words changed; all others stay as they are. Raises ConfigError.

        A word of both directions replaces those of each. to_pod and from_pod take only the words that change.
        """
        return Link.of(_merged(self.as_words(), _parse(text) if text else {}, words))

    def as_words(self) -> dict[str, Any]:
        """The words that are not defaults, for JSON and TOML."""
        words = {word: getattr(self, word) for word in _READERS if getattr(self, word) != _DEFAULTS[word]}
        if self.seed is not None:
            words["seed"] = self.seed
        for direction in DIRECTIONS:
            if own := getattr(self, direction):
                words[direction] = {word: "none" if value is None else value for word, value in own.items()}
        return words

    def __str__(self) -> str:
        parts = []
        for word, value in self.as_words().items():
            pairs = [(f"{word}.{of}", one) for of, one in value.items()] if word in DIRECTIONS else [(word, value)]
            parts += [f"{name}={_shown(one)}" for name, one in pairs]
        return ",".join(parts) or "delay=0"

    def __repr__(self) -> str:
        return f"Link.parse({str(self)!r})"

    # -- numbers -------------------------------------------------------------------------------------

    def stages(self, direction: Direction, of: str = "") -> Stages | None:
        """What the link does in one direction, for the core; None: nothing.

        of: the port's name, mixed into the seed, so that two ports with the same link lose other frames.
        """
        plain = self._plain[direction]
        return plain if plain is None or self.seed is None else plain.seeded(_mixed(int(self.seed), of, direction))

    def _plain_stages(self, direction: Direction) -> Stages | None:
        words = self._words_of(direction)
        trace = _trace_of(words)
        model = read_model(words["loss_model"]) if words["loss_model"] else None
        lose = read_lose(words["lose"]) if words["lose"] else Lose()
        jitter = units.read_time("jitter", words["jitter"])
        limit = self._limit(words)
        by_jitter = words["reorder"] == "jitter"
        stages = Stages(
            cut=words["cut"],
            loss=units.read_probability("loss", words["loss"]),
            bursts=(model.p, model.r, model.loss_good, model.loss_bad) if model else None,
            lose_every=lose.every,
            lose_frames=lose.frames,
            duplicate=units.read_probability("duplicate", words["duplicate"]),
            corrupt=units.read_probability("corrupt", words["corrupt"]),
            reorder=0.0 if by_jitter else units.read_probability("reorder", words["reorder"]),
            keeps_order=not by_jitter,
            rate=units.read_rate("rate", words["rate"]),
            overhead=words["overhead"] if _rate_of(words) else 0,
            limit_bytes=limit.bytes,
            limit_ns=limit.ns,
            limit_frames=limit.frames,
            delay_ns=units.read_time("delay", words["delay"]),
            jitter_ns=jitter,
            table=_table_of(words) if jitter else (),
            steps=trace.steps if trace else (),
            period_ns=trace.period_ns if trace else 0,
        )
        return None if stages == Stages() else stages

    def _words_of(self, direction: Direction) -> dict[str, Any]:
        own: dict[str, Any] = getattr(self, direction)
        return {word: getattr(self, word) for word in _READERS} | own

    def _limit(self, words: Mapping[str, Any]) -> Limit:
        """The queue's limit, a default one if need be; none without a rate. Raises ConfigError: the pool is smaller."""
        rate = _rate_of(words)
        if not rate:
            return Limit()
        if words["limit"]:
            limit = units.read_limit("limit", words["limit"])
            needs = limit.bytes or limit.frames * _FULL_FRAME or limit.ns * rate // (8 * 10**9)
            said = f"limit {words['limit']} at {units.show_rate(rate)}"
        else:
            round_trip = sum(units.read_time("delay", self._words_of(each)["delay"]) for each in DIRECTIONS)
            needs = max(rate * max(round_trip, _QUEUE_NS) // (8 * 10**9), _QUEUE_FRAMES * _FULL_FRAME)
            limit = Limit(needs)
            said = f"rate {units.show_rate(rate)} without a limit over an RTT of {units.show_time(round_trip)}"
        if needs > POOL_BYTES:
            raise ConfigError(
                f"{said} needs a queue of {needs >> 20} MiB; frames in flight have {POOL_BYTES >> 20} MiB a worker: "
                "write a smaller limit, such as limit=50ms"
            )
        return limit

    def _is_random(self) -> bool:
        asked = ("loss", "duplicate", "corrupt", "reorder", "jitter", "loss_model")
        return any(self._words_of(direction)[word] not in ("0", None) for direction in DIRECTIONS for word in asked)

    def _check(self, direction: Direction) -> None:
        """See that the words of a direction go together. Raises ConfigError."""
        words, own = self._words_of(direction), getattr(self, direction)

        def say(word: str) -> str:
            return f"{f'{direction}.' if word in own else ''}{word} {_shown(words[word])}"

        for word in _NEEDS:
            lacks = _lacks(word, words)
            # A word of both directions may be meant for the other one.
            if lacks and (word in own or all(_lacks(word, self._words_of(each)) for each in DIRECTIONS)):
                raise ConfigError(f"{say(word)} without {lacks}")
        trace = _trace_of(words)
        is_set = {word for word in _READERS if words[word] != _DEFAULTS[word]}
        if {"loss", "loss_model"} <= is_set:
            raise ConfigError(f"{say('loss')} and {say('loss_model')}: give one of them, and loss=0 or loss_model=none")
        if trace and trace.rate and "rate" in is_set:
            raise ConfigError(f"{say('rate')} and {say('trace')}, which has rates of its own: give one of them")
        if trace and trace.has_delay and "delay" in is_set:
            raise ConfigError(f"{say('delay')} and {say('trace')}, which has delays of its own: give one of them")
        spread, delay = (units.read_time(word, words[word]) for word in ("jitter", "delay"))
        if words["distribution"] == "uniform" and spread > delay and not (trace and trace.has_delay):
            raise ConfigError(
                f"{say('jitter')} is more than {say('delay')}: a delay would be negative; with the uniform "
                "distribution jitter is at most the delay"
            )
        self._limit(words)


_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(_READERS, "0"),
    **dict.fromkeys(("loss_model", "lose", "limit", "trace")),
    "distribution": "uniform",
    "overhead": 0,
    "cut": False,
}
assert {each.name for each in fields(Link) if each.init} == set(WORDS)


def _refuse_unknown(words: Iterable[object]) -> None:
    for word in words:
        if word not in WORDS:
            raise _unknown(word, WORDS)


def _unknown(word: object, known: Any, before: str = "") -> ConfigError:
    text = str(word) if str(word).isprintable() else repr(word)
    hint = _ELSEWHERE.get(text.lower())
    close = get_close_matches(text, [str(one) for one in known], 1)
    if hint is None and close:
        hint = f"is it {before}{close[0]}?"
    return ConfigError(f"a link has no {before}{text}{f' ({hint})' if hint else ''}; there are: {', '.join(known)}")


def _parse(text: str) -> dict[str, Any]:
    """The words of a text, those of a preset before them."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(
            f'a link must be words, such as "delay=20ms,loss=1%", or a preset, such as "4g", not {text!r}'
        )
    if not text.isprintable():
        raise ConfigError(f"a link must be one line of words, not {text!r}")
    parts = [part.strip() for part in _PART.split(text.strip())]
    words: dict[str, Any] = {}
    preset: Mapping[str, Any] = {}
    if "=" not in parts[0]:
        preset = _preset(parts.pop(0))
    for part in parts:
        name, _, value = part.partition("=")
        direction, dot, word = name.strip().replace("-", "_").rpartition(".")
        if dot and direction not in DIRECTIONS:
            raise ConfigError(f"a link has no {name.strip()}; before a dot stands to_pod or from_pod")
        place = words.setdefault(direction, {}) if dot else words
        if word in place:
            raise ConfigError(f"{name.strip()} is there twice: {text}")
        if not dot and word in DIRECTIONS:
            raise ConfigError(f"{part}: a direction stands before a word: {word}.rate=1mbit")
        value = value.strip()
        if "," in value and value.rpartition(",")[2].lower() in PRESETS:
            raise ConfigError(f"{part}: a preset comes first, then the words that differ: 4g,loss=2%")
        if not value:
            raise ConfigError(f"{name.strip()} has no value; write {name.strip()}=none for its default")
        place[word] = value
    return _merged(dict(preset), words)


def _preset(name: str) -> Mapping[str, Any]:
    if name.lower() in PRESETS:
        return PRESETS[name.lower()].words
    close = get_close_matches(name.lower(), PRESETS, 1, 0.5)
    if name.split()[0].lower() in {*WORDS, *_ELSEWHERE}:
        raise ConfigError(f"{name!r} must be words with values, and commas between: delay=20ms,jitter=5ms,cut=true")
    hint = f"is it {close[0]}?" if close else "or words, such as delay=20ms,loss=1%"
    raise ConfigError(f"there is no preset {name!r} ({hint}); there are: {', '.join(PRESETS)}")


def _merged(base: Mapping[str, Any], *changes: Mapping[str, Any]) -> dict[str, Any]:
    """Words over words. One for both directions takes the place of those of each."""
    words: dict[str, Any] = dict(base)
    sides: dict[str, dict[str, Any]] = {direction: dict(words.pop(direction, None) or {}) for direction in DIRECTIONS}
    for change in changes:
        for word, value in change.items():
            if word not in DIRECTIONS:
                words[word] = value
                for side in sides.values():
                    side.pop(word, None)
        for direction in DIRECTIONS:
            if direction in change:
                sides[direction] = {} if change[direction] is None else sides[direction] | change[direction]
    return words | {direction: side for direction, side in sides.items() if side}


#: Words that do nothing alone.
_NEEDS = ("distribution", "reorder", "limit", "overhead")


def _lacks(word: str, words: Mapping[str, Any]) -> str:
    """What a word of _NEEDS has to have beside it, where that is missing; else nothing."""
    if words[word] == _DEFAULTS[word]:
        return ""
    if word == "distribution" or words[word] == "jitter":
        return "jitter does nothing; add jitter=5ms" if words["jitter"] == "0" else ""
    if word == "reorder":
        trace = _trace_of(words)
        waits = words["delay"] != "0" or (trace and trace.has_delay)
        return "" if waits else "delay: a frame overtakes only those that wait; add delay=20ms"
    return "" if _rate_of(words) else "a rate does nothing; add rate=10mbit"


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() == "none")


def _read_word(word: str, value: Any, before: str = "") -> Any:
    """The canonical form of a word's value. Raises ConfigError."""
    return _DEFAULTS[word] if _is_none(value) else _READERS[word](before + word, value)


def _trace_of(words: Mapping[str, Any]) -> TraceSteps | None:
    trace: TraceSteps | None = words["trace"].content if words["trace"] else None
    return trace


def _table_of(words: Mapping[str, Any]) -> tuple[int, ...]:
    distribution: str = words["distribution"]
    if isinstance(distribution, KnownFile):
        table: tuple[int, ...] = distribution.content
        return table
    return distributions.table(distribution)


def _rate_of(words: Mapping[str, Any]) -> int:
    """The rate that a queue is sized for, bit/s; 0: none."""
    trace = _trace_of(words)
    return trace.rate if trace and trace.rate else units.read_rate("rate", words["rate"])


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mixed(seed: int, of: str, direction: str) -> int:
    """A seed for one direction of one port."""
    text = f"{seed} {direction} {of}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
