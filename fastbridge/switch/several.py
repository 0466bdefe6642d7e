"""Several switches in one process.

Each is a `Switch` with its own FDB, threads and tables in the kernel. They are opened and closed side by side: the
kernel makes each port wait some 10 ms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fastbridge.closes import Starts
from fastbridge.errors import ConfigError, FastbridgeError
from fastbridge.named import refuse_text
from fastbridge.open_files import reserve_files

from .live import Switch
from .port_socket import PortLike
from .ring_size import shared_rings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import LiveOptionWords

_AT_A_TIME = 16
_FILES_A_SWITCH, _FILES_A_RING = 32, 6  # with some to spare


class Switches(Mapping[str, Switch], Starts):
    """Switches by name, in one process, started and stopped together: all or none.

    ports: the ports of each switch, by the switch's name: {"s1": ["veth1", "veth2"], "s2": lab.ports}. A switch may
        have none so far.
    options: as for `Switch`, the same for all. control=True: each has a control socket by its name.

    The receive rings of all ports together take as much memory as those of one switch. Raises PortError,
    PrivilegeError or ConfigError with the switch's name, and then leaves nothing open.
    """

    def __init__(self, ports: Mapping[str, Iterable[str | PortLike]], **options: Unpack[LiveOptionWords]) -> None:
        if isinstance(options.get("control"), str):
            raise ConfigError("control=True gives each of several switches a control socket by its own name")
        wanted = _checked(ports)
        rings = sum(map(len, wanted.values())) * (options.get("workers", 1) if options.get("fanout") else 1)
        reserve_files(_FILES_A_SWITCH * len(wanted) + _FILES_A_RING * rings)

        def make(name: str) -> None:
            words: LiveOptionWords = {**options}
            words["control"] = name if options.get("control") else None
            with _named(name):
                self._switches[name] = Switch(wanted[name], **words)

        self._switches: dict[str, Switch] = {}
        names = list(wanted)
        try:
            with shared_rings(rings), ThreadPoolExecutor(_AT_A_TIME) as pool:
                for some in (names[:1], names[1:]):  # the first alone: its trials of the kernel hold for all
                    list(pool.map(make, some))  # after the first error it begins no more of them
        except BaseException:
            self.stop()
            raise
        self._switches = {name: self._switches[name] for name in names}  # in their order

    def start(self) -> None:
        """Forward from now on. Raises ConfigError after stop(), or for a control socket; then all are stopped."""
        try:
            for name, switch in self._switches.items():
                with _named(name):
                    switch.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all for good. Their counters stay readable. Does nothing in a forked child.

        Where one raises an error, the others are stopped before it is raised here.
        """
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            ends = [pool.submit(switch.stop) for switch in self._switches.values()]
        for end in ends:
            end.result()

    def __getitem__(self, name: str) -> Switch:
        return self._switches[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._switches)

    def __len__(self) -> int:
        return len(self._switches)

    def __repr__(self) -> str:
        return f"<Switches {', '.join(self)}>"


def _checked(ports: Mapping[str, Iterable[str | PortLike]]) -> dict[str, Sequence[str | PortLike]]:
    """The ports of each switch. Raises ConfigError: a switch has a text for a list, or two have the same interface."""
    if not isinstance(ports, Mapping):
        raise ConfigError(f'Switches takes the ports by switch, such as {{"s1": ["veth1", "veth2"]}}, not {ports!r}')
    for name, of in ports.items():
        refuse_text(of, f"the ports of switch {name}")
    wanted: dict[str, Sequence[str | PortLike]] = {name: list(of) for name, of in ports.items()}
    owners: dict[str, str] = {}
    for name, each in wanted.items():
        for port in each:
            if isinstance(port, str) and owners.setdefault(port, name) != name:
                raise ConfigError(f"{port} is named by two switches, {owners[port]} and {name}; name each port once")
    return wanted


@contextlib.contextmanager
def _named(switch: str) -> Iterator[None]:
    """Let an error say which switch it is about."""
    try:
        yield
    except FastbridgeError as error:
        raise type(error)(f"switch {switch}: {error}") from None
