"""Watch a switch in memory: its events as they happen, and one frame's way through it before it comes."""

from __future__ import annotations

import asyncio

from fastbridge import MacAddress, Switch


def hello(mac: str) -> bytes:
    """A broadcast frame of a station."""
    return bytes.fromhex("ffffffffffff") + MacAddress(mac).packed + bytes.fromhex("88b5") + bytes(46)


async def main() -> None:
    """An event loop waits for the events; a thread would write `for event in monitor`."""
    switch = Switch.in_memory(["pod1", "pod2", "pod3"])
    heard = asyncio.Event()
    with switch.monitor(["learned", "moved"]) as monitor:
        asyncio.get_running_loop().add_reader(monitor.fileno(), heard.set)
        switch.process("pod1", [hello("02:00:00:00:00:01")])
        switch.process("pod2", [hello("02:00:00:00:00:01")])
        await heard.wait()
        for event in monitor.read() or ():
            print(event["event"], event["mac"], event.get("was", ""), "→", event["ifname"])
        asyncio.get_running_loop().remove_reader(monitor.fileno())
    print(switch.explain("pod3", hello("02:00:00:00:00:03")))  # nothing changes


asyncio.run(main())
