"""In a running event loop, as in a notebook or an asyncio program: whatever does netlink works there."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading

import pytest
from live import PATIENCE, eventually

from fastbridge import Lab, LabError, Switch

pytestmark = pytest.mark.live


def use_everything() -> None:
    with Lab(2) as lab:
        one, two = lab
        with Switch(lab.ports):
            assert one.ping("pod2", timeout=PATIENCE)
            assert two.mac in [neighbour.mac for neighbour in one.neighbours()]
            assert one.call(abs, -1) == 1
            with two.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
                server.listen()
                two.wait_listening(server.getsockname()[1], timeout=PATIENCE)
            two.port.set_down()
            two.port.set_up()
        with lab.bridge():
            eventually(lambda: one.ping("pod2", timeout=1), "pod2, whose link was down")
            assert one.ping("pod2", count=3, timeout=PATIENCE)
        with lab.direct():
            assert one.ping("pod2", timeout=PATIENCE)
        two.port.delete()
        with pytest.raises(LabError, match="there is no interface pod2"):
            two.port.set_up()


async def in_a_loop() -> None:
    use_everything()


def test_in_asyncio_run() -> None:
    asyncio.run(in_a_loop())
    assert "fastbridge-netlink" not in " ".join(thread.name for thread in threading.enumerate())


def test_a_lab_made_before_the_loop_and_one_made_in_it() -> None:
    made: list[Lab] = []

    async def make() -> None:
        made.append(Lab(2))

    asyncio.run(make())
    with made[0] as lab, Switch(lab.ports):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        assert lab["pod1"].neighbours()  # no loop runs now

        async def look() -> None:
            assert lab["pod1"].neighbours()

        asyncio.run(look())


def test_in_a_thread_beside_a_loop() -> None:
    async def aside() -> None:
        await asyncio.to_thread(use_everything)

    asyncio.run(aside())


@pytest.mark.parametrize(
    "how", ["asyncio.set_event_loop_policy(uvloop.EventLoopPolicy()); use()", "uvloop.run(main())"]
)
def test_under_uvloop(how: str) -> None:
    pytest.importorskip("uvloop")
    script = f"""
import asyncio, uvloop
from fastbridge import Lab, Switch
def use():
    with Lab(2) as lab, Switch(lab.ports):
        assert lab["pod1"].ping("pod2", timeout=60) and lab["pod1"].neighbours()
        assert lab["pod1"].call(abs, -1) == 1
        lab["pod2"].set_down()
async def main():
    use()
{how}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=180)


def test_no_loop_and_no_socket_is_left_behind() -> None:
    """What asyncio complains of when the collector finds it open."""
    script = """
import asyncio, gc
from fastbridge.lab.links import Links
def use():
    for _ in range(3):
        with Links() as links:
            assert links.exists("lo") and links.flags("lo")
            links.neighbours(1)
async def main():
    use()
use()
asyncio.run(main())
gc.collect()
"""
    found = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, timeout=180)
    assert (found.returncode, found.stderr) == (0, "")
