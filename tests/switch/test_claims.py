"""Who holds a port: as many as want to can ask, and who waits for the port hears when it is let go."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import pytest
from live import PATIENCE, eventually

from fastbridge import Lab, PortError, Switch
from fastbridge.switch.port_links import claim_of, connect

pytestmark = pytest.mark.live


def ask(lab: Lab, opened: contextlib.ExitStack) -> socket.socket:
    """A connection to the claim of pod 1's port. Raises PortError."""
    sock = opened.enter_context(lab.ports[0].open_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0))
    link = lab.run_host(["cat", "/sys/class/net/pod1/ifindex"]).stdout
    connect(sock, claim_of(int(link)), "pod1")
    return sock


def test_a_hundred_that_ask_do_not_keep_others_from_asking() -> None:
    with Lab(1) as lab, Switch(lab.ports, fast_path="off") as switch, contextlib.ExitStack() as opened:
        waiting = ask(lab, opened)

        def asked() -> bool:
            with contextlib.ExitStack() as briefly:
                try:
                    ask(lab, briefly)
                except PortError:  # the next sweep makes room
                    return False
                return True

        for _ in range(100):
            eventually(asked, "room for one more")
        ended = select.poll()
        ended.register(waiting, select.POLLHUP)
        eventually(lambda: len(switch._links._askers) == 1, "those that have gone")
        assert not ended.poll(0)  # it is kept
        switch.stop()
        assert ended.poll(0)


def test_who_cannot_ask_is_told_at_once() -> None:
    with Lab(1) as lab, contextlib.ExitStack() as opened:
        switch = Switch(lab.ports, fast_path="off")  # not started, it hears nobody
        opened.callback(switch.stop)
        waiting = [ask(lab, opened) for _ in range(65)]
        with pytest.raises(PortError, match="pod1 is a port of another switch, which does not say"):
            ask(lab, opened)
        with pytest.raises(PortError, match="pod1 is a port of another switch, which does not say"):
            Switch(lab.ports, fast_path="off")
        switch.stop()
        ended = select.poll()
        for sock in waiting:
            ended.register(sock, select.POLLHUP)
        assert len(ended.poll(0)) == len(waiting)


@pytest.mark.parametrize("begins", [True, False])
def test_a_holder_that_begins_or_ends_is_waited_for(begins: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its name and its listening, or while it ends, nobody can tell who it is."""
    monkeypatch.setattr("fastbridge.switch.port_links._CLAIMING_SECONDS", PATIENCE)
    with Lab(1) as lab, lab.ports[0].open_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0) as claim:
        link = lab.run_host(["cat", "/sys/class/net/pod1/ifindex"]).stdout
        claim.bind(claim_of(int(link)))
        soon = threading.Timer(0.05, claim.listen if begins else claim.close)
        soon.start()
        try:
            if begins:
                with pytest.raises(PortError, match="pod1 is a port of another switch, in this process"):
                    Switch(lab.ports, fast_path="off")
            else:
                Switch(lab.ports, fast_path="off").stop()
        finally:
            soon.join()


def test_askers_that_stay_are_no_more_than_so_many() -> None:
    with Lab(1) as lab, Switch(lab.ports, fast_path="off") as switch, contextlib.ExitStack() as opened:
        asked = 0
        while asked < 128:
            with contextlib.suppress(PortError):
                ask(lab, opened)
                asked += 1
        assert len(switch._links._askers) <= 64
        switch.remove_port("pod1")
        assert not switch._links._askers
