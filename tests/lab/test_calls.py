"""Python functions called in a pod: what goes there, what comes back, and what ends a call."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE

from fastbridge import ConfigError, Lab, LabError
from fastbridge.lab import calls

pytestmark = pytest.mark.live

LOCK = threading.Lock()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(2) as lab:
        yield lab


class RefusedError(Exception):
    pass


class OddError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def refuse(why: str) -> None:
    raise RefusedError(why)


def be_odd() -> None:
    raise OddError(1, 2)


def take_the_lock() -> bool:
    return LOCK.acquire(timeout=PATIENCE)


def join(*words: str, by: str = " ") -> str:
    return by.join(words)


def listen_and_wait(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        time.sleep(1000)


def test_a_function_sees_the_pod(lab: Lab) -> None:
    for pod in lab:
        assert {name for _, name in pod.call(socket.if_nameindex)} == {"lo", "eth0"}
        assert sorted(pod.call(os.listdir, "/sys/class/net")) == ["eth0", "lo"]
        assert pod.call(Path("/sys/class/net/eth0/address").read_text) == f"{pod.mac}\n"
    assert lab["pod1"].call(os.getcwd) == str(Path.cwd())
    assert lab["pod1"].call(os.getppid) == os.getpid()


def test_what_a_function_may_be(lab: Lab) -> None:
    pod, words = lab["pod1"], ["a", "b"]

    def inner(more: str) -> str:
        return join(*words, more)

    assert pod.call(join, "a", "b") == "a b"
    assert pod.call(functools.partial(join, by="-"), "a", "b") == "a-b"
    assert pod.call(inner, "c") == "a b c"
    assert pod.call(lambda: [join(word, "!") for word in words]) == ["a !", "b !"]
    assert pod.call(words.count, "a") == 1


def test_what_it_raises_comes_back_with_its_traceback(lab: Lab) -> None:
    with pytest.raises(RefusedError, match=r"^because$") as caught:
        lab["pod1"].call(refuse, "because")
    text = str(caught.value.__cause__)
    assert "Traceback (most recent call last)" in text and "in refuse" in text and "RefusedError: because" in text


def test_an_error_that_cannot_come_back_is_told(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"^be_odd in pod pod1 raised .*OddError: 1 and 2$") as caught:
        lab["pod1"].call(be_odd)
    assert "in be_odd" in str(caught.value.__cause__)


def test_what_cannot_be_pickled_is_told(lab: Lab) -> None:
    with pytest.raises(ConfigError, match=r"^join cannot go to a pod: cannot pickle"):
        lab["pod1"].call(join, LOCK)  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"^create_server in pod pod2 returns what cannot be pickled: TypeError: "):
        lab["pod2"].call(socket.create_server, ("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("function", "argument", "end"),
    [
        (os._exit, 3, "ended with exit status 3"),
        (os._exit, 0, "ended with exit status 0"),
        (signal.raise_signal, signal.SIGKILL, "was killed by SIGKILL"),
        (signal.raise_signal, signal.SIGRTMIN + 1, "was killed by signal 35"),
    ],
)
def test_a_process_that_ends_without_a_result(
    lab: Lab, function: Callable[[Any], None], argument: int, end: str
) -> None:
    with pytest.raises(LabError, match=f"^{function.__name__} in pod pod1 {end}, without a result$"):
        lab["pod1"].call(function, argument)


def test_a_call_that_takes_too_long_is_killed(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"^sleep in pod pod1 was killed: it took longer than 0\.2 s$"):
        lab["pod1"].call(time.sleep, 1000, timeout=0.2)


def test_a_call_ends_with_the_lab() -> None:
    told: list[str] = []
    with Lab(1) as lab:
        pod = lab["pod1"]

        def wait() -> None:
            with pytest.raises(LabError) as caught:
                pod.call(listen_and_wait, 5000)
            told.append(str(caught.value))

        thread = threading.Thread(target=wait)
        thread.start()
        pod.wait_listening(5000, timeout=PATIENCE)
    thread.join()
    assert told == ["listen_and_wait in pod pod1 was killed by SIGKILL, without a result"]


def test_a_lock_that_a_thread_holds_holds_up_no_call(lab: Lab) -> None:
    """A forked child would wait for it for ever."""
    with LOCK:
        assert lab["pod1"].call(take_the_lock, timeout=PATIENCE)


def test_a_forked_child_has_a_lock_of_its_own() -> None:
    with calls._registry:  # as another thread may hold it
        child = os.fork()
        if not child:
            os._exit(0 if calls._registry.acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_call_at_once(lab: Lab) -> None:
    found: dict[str, str] = {}

    def ask(name: str) -> None:
        found[name] = lab[name].call(Path("/sys/class/net/eth0/address").read_text)

    threads = [threading.Thread(target=ask, args=(pod.name,)) for pod in lab]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {pod.name: f"{pod.mac}\n" for pod in lab}


MAIN = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # as if these were not installed
from fastbridge import ConfigError, Lab
class Wrong(Exception):
    pass
def names(one):
    import socket
    if one > 1:
        raise Wrong(one)
    return sorted(name for _, name in socket.if_nameindex())
with Lab(1) as lab:
    try:
        print(lab["pod1"].call(names, 1))
        lab["pod1"].call(names, 2)
    except Wrong as error:
        print("wrong", error)
    except ConfigError as error:
        print(error)
"""


def test_a_function_of_the_main_program() -> None:
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, timeout=180)
    assert (done.stdout, done.stderr) == ("['eth0', 'lo']\nwrong 2\n", "")


def test_without_cloudpickle_the_way_out_is_said() -> None:
    done = subprocess.run([sys.executable, "-c", MAIN, "cloudpickle"], capture_output=True, text=True, timeout=180)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("names in pod pod1 cannot be loaded by a new Python: AttributeError: ")
    assert "take the extra `call`" in line


IN_A_TEST = """
from fastbridge import Lab
def helper():
    import os
    return sorted(os.listdir("/sys/class/net"))
def test_call():
    with Lab(1) as lab:
        assert lab["pod1"].call(helper) == lab["pod1"].call(lambda: helper()) == ["eth0", "lo"]
"""


def test_a_function_of_a_module_that_no_import_finds(tmp_path: Path) -> None:
    """As pytest's --import-mode=importlib makes them."""
    (tmp_path / "test_it.py").write_text(IN_A_TEST)
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_it.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
