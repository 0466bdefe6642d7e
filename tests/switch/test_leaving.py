"""A switch gives everything back, whatever of it fails, and wherever the process ends."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from host import Host, ip
from live import eventually

import fastbridge
from fastbridge import ConfigError, Lab, MemorySwitch, PortError, Switch
from fastbridge.errors import FastbridgeError
from fastbridge.lab.namespaces import NamespaceHelper
from fastbridge.links.scenario import Scenario


@pytest.fixture
def host() -> Iterator[Host]:
    with NamespaceHelper() as helper, closing(Host(helper)) as made:
        yield made


def ours() -> list[str]:
    """The threads of switches."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastbridge-")]


def names() -> list[str]:
    return [line.split()[1] for line in ip("-o link show").splitlines()]


def refuse(*_: Any) -> None:
    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


@pytest.mark.live
@pytest.mark.parametrize("error", [OSError(errno.ENOBUFS, "No buffer space available"), PortError("no answer")])
def test_a_last_count_that_fails(
    error: Exception, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    interfaces = names()
    with Switch(["p1", "p2"], shield=True, fast_path="auto") as switch:
        assert host.ping(1, 2)
        switch.set_carrier("p1", False)
        monkeypatch.setattr(switch._links, "count_losses", fail)
        with pytest.raises(type(error)):
            switch.counters()
        switch.remove_port("p2")
        switch.add_port("p2")
    assert switch.counters().total.rx_frames > 0
    line = f"the last losses in interfaces are not counted: {error}"
    eventually(lambda: line in caplog.messages, line)
    eventually(lambda: names() == interfaces, "the fast path's interfaces to go")  # those of its trial go by themselves
    eventually(lambda: not ours(), "the threads' end")
    assert ",UP" in ip("-o link show p1")
    with Switch(["p1", "p2"], shield=True) as switch:
        assert host.ping(1, 2) and not switch.unshielded


@pytest.mark.live
def test_one_thing_that_cannot_be_given_back_keeps_no_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = Switch(["p1", "p2"], shield=True)
    switch.start()
    switch.set_carrier("p1", False)
    with monkeypatch.context() as patched:
        patched.setattr(switch._fast, "stop", refuse)
        with pytest.raises(OSError, match="No buffer space"):
            switch.stop()
    switch._fast.stop()
    assert ",UP" in ip("-o link show p1")
    eventually(lambda: not ours(), "the threads' end")
    with Switch(["p1", "p2"], shield=True) as switch:
        assert host.ping(1, 2)


@pytest.mark.live
def test_without_another_thread_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a limit on processes: of each thread in turn it is said, and nothing is left behind."""
    start, left = threading.Thread.start, [0]

    def refuse_later(thread: threading.Thread) -> None:
        if thread.name.startswith("fastbridge-") and not thread.name.startswith("fastbridge-log"):
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    text = "can't start new thread; allow this user, or its cgroup, more of them"
    with Lab(2) as lab:
        for fewer in range(100):
            switch = Switch(lab.ports, control=f"threads-{os.getpid()}", fast_path="nft", workers=1)
            switch.play(Scenario.parse('[[at]]\ntime = "600s"\nlink = "pod1"\nset = "cut=true"\n'))
            left[0] = fewer
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", refuse_later)
                try:
                    switch.start()
                except FastbridgeError as error:
                    assert text in str(error)
                    eventually(lambda: not ours(), "the threads' end")
                    with pytest.raises(ConfigError, match="was stopped"):
                        switch.start()
                else:
                    break
        with switch:
            assert lab["pod1"].ping("pod2", timeout=60)
    assert fewer >= 6  # data, control, fast path, policy, scenario, and two of the control socket
    eventually(lambda: not ours(), "the threads' end")


def test_a_capture_without_a_thread_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_all(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    switch = MemorySwitch(2)
    monkeypatch.setattr(threading.Thread, "start", refuse_all)
    with pytest.raises(FastbridgeError, match="can't start new thread; allow this user"):
        switch.capture(tmp_path / "a.pcapng")
    assert list(switch._watching) == []


@pytest.mark.live
@pytest.mark.parametrize("start", ["", "switch.start()\n"])
def test_a_process_that_ends_gives_carriers_back(start: str, host: Host) -> None:
    script = f"from fastbridge import Switch\nswitch = Switch(['p1', 'p2'])\n{start}switch.set_carrier('p1', False)\n"
    script += "import subprocess; print(subprocess.getoutput('ip -o link show p1'))"
    place = Path(fastbridge.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, cwd=place)
    assert done.returncode == 0 and done.stderr in ("", "port p1 is down\n")
    assert ",UP" not in done.stdout and ",UP" in ip("-o link show p1")


# -- ports that were removed ------------------------------------------------------------------------


def test_a_port_that_was_removed_is_no_other() -> None:
    switch = MemorySwitch(["a", "b"])
    gone = switch.ports[0]
    switch.remove_port(gone)
    for again in ("c", "a"):
        with pytest.raises(ConfigError, match="port a was removed"):
            switch.remove_port(gone)
        switch.add_port(again)
        if again == "c":
            assert switch.ports[0].index == gone.index
    assert {port.name for port in switch.ports} == {"a", "b", "c"}


@pytest.mark.live
def test_a_port_removed_while_its_interface_is_taken_away(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    ip("link add br0 type bridge")
    with caplog.at_level(logging.ERROR), Switch(["p1", "p2", "p3"]) as switch:
        for _ in range(30):
            ip("link set p1 master br0")
            switch.remove_port("p1")
            ip("link set p1 nomaster")
            switch.add_port("p1")
        assert host.ping(1, 2)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
