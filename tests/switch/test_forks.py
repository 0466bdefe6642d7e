"""Forked children: they touch nothing that is their parent's, and say so in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import os, sys, threading, time, multiprocessing
from fastbridge import ConfigError, Lab, LabError, Switch

def end_of(pid):
    deadline = time.monotonic() + 60
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            sys.exit(f"a child hangs, {os.waitpid(pid, 0)}")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])

def refusal(ask, *arguments):
    try:
        answer = ask(*arguments)
    except (ConfigError, LabError) as error:
        return str(error)
    return f"{ask} gave {answer!r}"
"""


def run(script: str) -> str:
    found = subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, timeout=180)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    return found.stdout


@pytest.mark.live
def test_a_child_that_exits_leaves_its_parent_s_switch_and_lab_alone() -> None:
    run("""
with Lab(3) as lab, Switch(lab.ports, policy="guard,suppress", trusted=True) as switch, switch.trace() as trace:
    assert lab["pod1"].ping("pod2", timeout=60)
    pid = os.fork()
    if not pid:
        sys.exit(7)
    assert end_of(pid) == 7
    trace.read()
    assert switch.running and {port.state for port in switch.ports} == {"up"}
    assert lab["pod2"].ping("pod3", timeout=60) and lab["pod1"].ping("pod3", family=6, timeout=60)
    assert trace.read()
    counters = switch.counters()
    assert not any(count for why, count in counters.total.tx_dropped.items() if why != "costly")
    lab["pod3"].port.set_down()  # the control thread is there, too
    while {port.name: port.state for port in switch.ports}["pod3"] != "down":
        time.sleep(0.01)
""")


@pytest.mark.live
def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_holds() -> None:
    run("""
import contextlib
from fastbridge.links.scenario import Scenario
from fastbridge.switch.config_apply import Configured, of_switch
scenario = Scenario.parse('[[at]]\\ntime = "600s"\\nlink = "pod1"\\nset = "cut=true"\\n')
with (
    Lab(2) as lab, Switch(lab.ports) as switch, switch.trace(), switch.monitor() as monitor,
    switch.capture(os.devnull) as capture, switch.play(scenario) as playing,
):
    configured = Configured(switch, of_switch(switch))
    lane, held, forked = switch._fast.lane, threading.Event(), threading.Event()
    locks = [capture._closing._cond, playing._over._cond, monitor._changed, configured._reloading]
    locks += [lane.head._lock] if lane else []

    def hold():
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    pid = os.fork()
    if not pid:
        assert "runs in process" in refusal(switch.reload_config)
        sys.exit(7)
    forked.set()
    holder.join()
    assert end_of(pid) == 7
""")


def test_a_scenario_in_memory_goes_on_in_a_child() -> None:
    run("""
from fastbridge import MemorySwitch
from fastbridge.links.scenario import Scenario
switch = MemorySwitch(["a", "b"], clock=None)
playing = switch.play(Scenario.parse('[[at]]\\ntime = "2s"\\nlink = "a"\\nset = "delay=1ms"\\n'))
switch.advance(1)
pid = os.fork()
switch.advance(2)
assert playing.over and str(switch.own_links["a"]) == "delay=1ms"
if not pid:
    sys.exit(7)
assert end_of(pid) == 7
""")


@pytest.mark.live
@pytest.mark.parametrize("how", ["bridge", "direct"])
def test_a_child_that_exits_while_the_pods_are_joined_otherwise(how: str) -> None:
    run(f"""
with Lab(2) as lab, lab.{how}():
    pid = os.fork()
    if not pid:
        sys.exit(7)
    assert end_of(pid) == 7
    assert lab["pod1"].ping("pod2", count=3, timeout=60)
""")


@pytest.mark.live
def test_children_forked_at_any_moment_of_a_busy_switch_end() -> None:
    run("""
with Lab(2) as lab, Switch(lab.ports, policy="suppress") as switch:
    done = threading.Event()
    def look():
        while not done.is_set():
            switch.counters(), switch.ports, switch.fdb.flush(), lab["pod1"].counters(), list(switch.neighbours)
    def talk():
        while not done.is_set():
            lab["pod1"].ping("pod2")
    threads = [threading.Thread(target=work) for work in (look, talk)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        pid = os.fork()
        if not pid:
            switch.stop()
            lab.close()
            assert not switch.running
            os._exit(0)  # these threads' locks are not what is tested
        assert end_of(pid) == 0
    done.set()
    for thread in threads:
        thread.join()
    assert lab["pod1"].ping("pod2", timeout=60)
""")


@pytest.mark.live
def test_sockets_end_with_the_parent_s_switch_though_a_child_lives_on() -> None:
    run("""
def packet_sockets(lab):
    return len(lab.run_host(["cat", "/proc/net/packet"]).stdout.splitlines()) - 1
lab = Lab(2)
switch = Switch(lab.ports)
switch.start()
assert packet_sockets(lab) == 4
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
child.start()
switch.stop()
deadline = time.monotonic() + 60
while left := packet_sockets(lab):
    assert time.monotonic() < deadline, left
with Switch(lab.ports):
    assert lab["pod1"].ping("pod2", timeout=60)
lab.close()
child.kill()
child.join()
""")


@pytest.mark.live
def test_in_a_child_every_use_says_one_sentence() -> None:
    out = run("""
lab = Lab(2)
switch = Switch(lab.ports)
switch.start()
fdb, fd = switch.fdb, lab["pod1"].namespace.fd
assert lab["pod1"].counters()
pid = os.fork()
if not pid:
    assert not switch.running
    pod = lab["pod1"]
    for ask in (
        switch.start, switch.counters, switch.announce, lambda: switch.trace().__enter__(),
        lambda: switch.ports, lambda: switch.neighbours, lambda: switch.moves, lambda: list(switch.fdb),
        lambda: switch.fdb.flush(), lambda: switch.add_port("pod9"), lambda: switch.remove_port("pod1"),
        lambda: switch.set_policy("guard"),
        pod.counters, pod.neighbours, pod.set_down, lambda: pod.namespace.fd, lambda: pod.ping("pod2"),
        lambda: pod.run(["true"]), lambda: pod.popen(["true"]), lambda: pod.call(abs, -1),
        lambda: pod.wait_listening(80), lambda: lab.uplink().__enter__(), lambda: lab.run_host(["true"]),
        lambda: lab.bridge().__enter__(), lambda: lab.direct().__enter__(),
    ):
        print(refusal(ask))
    print(refusal(fdb.flush), refusal(len, fdb), sep="\\n")
    assert not os.path.exists(f"/proc/self/fd/{fd}") or not os.readlink(f"/proc/self/fd/{fd}").startswith("net:")
    with Lab(2) as other, Switch(other.ports):
        assert other["pod1"].ping("pod2", timeout=60)
    sys.stdout.flush()
    os._exit(0)
assert end_of(pid) == 0
switch.stop()
lab.close()
""")
    lines = set(out.splitlines())
    assert len(lines) == 2, lines
    assert any(line.startswith("this switch runs in process") for line in lines)
    assert any(line.startswith("this lab belongs to process") for line in lines)


@pytest.mark.live
def test_daemonising_with_a_switch_says_so() -> None:
    run("""
lab = Lab(2)
switch = Switch(lab.ports)
switch.start()
pid = os.fork()
if not pid:
    if os.fork():
        os._exit(0)
    os.setsid()
    assert not switch.running and "a forked child makes a Switch of its own" in refusal(switch.start)
    sys.exit(0)
assert end_of(pid) == 0
switch.stop()
lab.close()
""")


def test_a_switch_in_memory_is_anybody_s() -> None:
    run("""
switch = Switch.in_memory()
frame = bytes.fromhex("ffffffffffff0200000000010800") + bytes(46)
pid = os.fork()
if not pid:
    assert switch.process(0, [frame]) == [(1, frame)]
    sys.exit(0)
assert end_of(pid) == 0
assert switch.process(0, [frame]) == [(1, frame)]
""")
