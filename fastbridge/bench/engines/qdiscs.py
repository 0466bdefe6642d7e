"""The kernel's own emulators: a Linux bridge with a queueing discipline behind it.

tbf and htb limit the rate, netem does it all where the kernel has it. They are set with `tc` on the host end of port 1,
where frames leave for the pod.
"""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastbridge.bench.wanted_link import WantedLink
from fastbridge.errors import BenchError
from fastbridge.lab.topology import Lab
from fastbridge.programs import find_program

from .engine import Engine, lacks_program
from .running import InKernel, Running

_FRAME = 1514  # bytes
_BURST_SECONDS = 0.001  # of the rate may pass at once: the timer need not run for every frame
_FEWEST_FRAMES = 2  # that a burst has room for
_ENDLESS = 1_000_000  # frames of netem's queue: what waits for its delay is in there, too


@dataclass(frozen=True)
class Qdisc(Engine):
    """The Linux bridge, with "tbf", "htb" or "netem" behind it."""

    kind: str
    most_ports = 2  # the link is the one from port 0 to port 1

    @property
    def name(self) -> str:  # type: ignore[override] # nobody renames an engine
        """One name for each kind."""
        return f"linux-bridge/{self.kind}"

    def version(self) -> str:
        """Of the kernel and of tc."""
        said = subprocess.run([find_program("tc") or "tc", "-V"], capture_output=True, text=True, check=False)
        return f"{platform.release()}, {said.stdout.split(',')[1].strip() if said.stdout.count(',') else '-'}"

    def missing(self) -> str | None:
        """The program, or the kernel's part of it: a trial shows whether there is one."""
        if absent := lacks_program("iproute2", "tc"):
            return absent
        link = WantedLink(delay=0.001) if self.kind == "netem" else WantedLink(rate=1_000_000, limit=10_000)
        with Lab(1) as lab:
            try:
                self._shape(lab, lab.ports[0].name, link)
            except BenchError as error:
                return f"this kernel has no {self.kind} (CONFIG_NET_SCH_{self.kind.upper()}); {error}"
        return None

    def refuses(self, link: WantedLink) -> str | None:
        """A rate is all that tbf and htb have; netem cannot keep the order under jitter."""
        if self.kind != "netem":
            return None if link == WantedLink(rate=link.rate, limit=link.limit) else "has a rate and nothing else"
        return "frames overtake each other under jitter" if link.jitter and not link.overtakes else None

    @contextmanager
    def attach(self, lab: Lab, cpu: int) -> Iterator[Running]:
        """Enslave the host ends; `cpu` is not used."""

        @contextmanager
        def joined(link: WantedLink | None) -> Iterator[None]:
            port = lab.ports[1].name
            with lab.bridge():
                if link is not None:
                    self._shape(lab, port, link)
                try:
                    yield
                finally:
                    if link is not None:
                        _tc(lab, "qdisc", "del", "dev", port, "root")

        shown = "; ".join(" ".join(["tc", *words]) for words in self._commands("PORT", _SHOWN))
        with InKernel(f"bridge over netlink; {shown}", joined) as running:
            yield running

    def _shape(self, lab: Lab, port: str, link: WantedLink) -> None:
        for words in self._commands(port, link):
            _tc(lab, *words)

    def _commands(self, port: str, link: WantedLink) -> list[list[str]]:
        burst = str(max(_FEWEST_FRAMES * _FRAME, round(link.rate / 8 * _BURST_SECONDS)))
        root = ["qdisc", "add", "dev", port, "root"]
        if self.kind == "netem":
            return [[*root, *_netem(link)]]
        if self.kind == "tbf":
            return [[*root, "tbf", "rate", f"{link.rate}bit", "burst", burst, "limit", str(link.limit)]]
        rate = ["rate", f"{link.rate}bit", "burst", burst, "cburst", burst, "quantum", str(_FRAME)]
        return [
            [*root, "handle", "1:", "htb", "default", "1"],
            ["class", "add", "dev", port, "parent", "1:", "classid", "1:1", "htb", *rate],
            ["qdisc", "add", "dev", port, "parent", "1:1", "bfifo", "limit", str(link.limit)],
        ]


_SHOWN = WantedLink(rate=10_000_000, limit=62_500)  # in the command that a report shows
QDISCS = (Qdisc("tbf"), Qdisc("htb"), Qdisc("netem"))


def _netem(link: WantedLink) -> list[str]:
    words = ["netem", "limit", str(math.ceil(link.limit / _FRAME) if link.rate else _ENDLESS)]
    if link.delay or link.jitter:
        words += ["delay", f"{link.delay * 1e6:.0f}us"]
    if link.jitter:
        words += [f"{link.jitter * 1e6:.0f}us"]
        words += ["distribution", "normal"] if link.distribution == "normal" else []
    if link.burst:
        words += ["loss", "gemodel", *(f"{share:.6%}" for share in link.leaving)]
    elif link.loss:
        words += ["loss", f"{link.loss:.6%}"]
    return [*words, *(["rate", f"{link.rate}bit"] if link.rate else [])]


def _tc(lab: Lab, *words: str) -> None:
    done = lab.run_host(["tc", *words], check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise BenchError(f"tc {' '.join(words)}: {said}")
