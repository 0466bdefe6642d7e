"""The sandbox: a private network namespace for the whole test run, entered before anything else is imported.

Tests make links in "the current namespace"; that must not be the machine's. Root gets a network and a mount
namespace of its own, an ordinary user gets them inside a user namespace. The latter needs a single-threaded
process, so this file imports neither fastbridge nor numpy at the top. Where namespaces are not to be had, the tests
marked `live` skip and say why.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from clock import Clock
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

if importlib.util.find_spec("hypothesis"):  # the benchmarks do without the extra `test`
    from hypothesis import Phase, settings
    from hypothesis.database import DirectoryBasedExampleDatabase

    # No timed assertions. What failed before is kept beside the tests, where this user may write; else nowhere.
    _beside = Path(__file__).parents[1]
    _kept = DirectoryBasedExampleDatabase(_beside / ".hypothesis/examples") if os.access(_beside, os.W_OK) else None
    # What fails is made short, and not explained: that traces each line of the model, which takes minutes.
    _phases = [phase for phase in Phase if phase is not Phase.explain]
    settings.register_profile("fastbridge", deadline=None, database=_kept, phases=_phases)
    settings.register_profile("fastbridge, shorter", settings.get_profile("fastbridge"), max_examples=25)


# What is asserted there says what was compared, as in the tests.
pytest.register_assert_rewrite(*(path.stem for path in (Path(__file__).parent / "support").glob("*.py")))

# The programs under test shall run as a user's do, who has not set it: with it a last flush that fails is never seen.
os.environ.pop("PYTHONUNBUFFERED", None)

# Nor shall they know a width that a test does not give them. readline sets one as it is imported, behind os.environ.
with contextlib.suppress(ImportError):
    importlib.import_module("readline")
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
    os.unsetenv(name)

# Nor ignore a signal that ends a program: `nohup` lets pytest ignore SIGHUP, a shell without job control SIGINT, and a
# program inherits that. What is handled, if only by doing nothing, is the default again in a program that is started.
for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def enter_sandbox() -> None:
    """Raise OSError when the kernel does not let us."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _libc("unshare", CLONE_NEWNET | CLONE_NEWNS)
    except PermissionError:
        _libc("unshare", CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUSER)
        # Root inside, so that the programs under test find what `sudo` would give them.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        os.environ["LOGNAME"] = f"uid-{uid}"  # names pytest's directory in /tmp; root's is not ours
    _libc("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    _libc("mount", b"tmpfs", b"/run", b"tmpfs", 0, None)  # /run/netns and the state of persistent labs


def _libc(function: str, *args: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*args) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function}: {os.strerror(error)}")


try:
    enter_sandbox()
    no_sandbox = None
except OSError as error:
    no_sandbox = f"no private network namespace on this machine ({error.strerror}), so no live tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast-path", help="the fast path of switches for which a test asks for none: off, nft, bpf")


def pytest_configure(config: pytest.Config) -> None:
    import effort

    if hasattr(config.option, "maxworkerrestart"):
        # A worker that crashes ends the run: xdist would wait for ever for what it left, when the others are done.
        config.option.maxworkerrestart = config.option.maxworkerrestart or "0"
    effort.whole = config.option.markexpr != "not slow and not alone"  # as pyproject.toml has it
    if "settings" in globals():
        settings.load_profile("fastbridge" if effort.whole else "fastbridge, shorter")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Each file goes to one worker: what is made once a file is made once, and its tests do not meet each other."""
    from xdist import scheduler

    return scheduler.LoadFileScheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if _path_mark(metafunc.definition) == "both_paths":
        wanted = metafunc.config.getoption("--fast-path")
        others = [pytest.param(path, marks=pytest.mark.slow) for path in ("off", "bpf")]
        metafunc.parametrize("fast_path", [wanted] if wanted else ["nft", *others], indirect=True)


def _path_mark(node: pytest.Item) -> str:
    """A test's own mark counts more than its module's."""
    return next((mark.name for mark in node.iter_markers() if mark.name in ("core_path", "both_paths")), "")


@pytest.fixture(autouse=True)
def fast_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast path of switches for which the test asks for none."""
    wanted = request.config.getoption("--fast-path")
    path = "off" if _path_mark(request.node) == "core_path" else getattr(request, "param", wanted)
    if path:
        from fastbridge.switch.options import LiveOptions

        monkeypatch.setitem(LiveOptions.__init__.__kwdefaults__, "fast_path", path)


def pytest_report_header() -> str:
    return "sandbox: " + (no_sandbox or "private network namespace")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return config.getoption("benchmark_only", False) or None  # then only benchmarks/ is of interest


@pytest.fixture(autouse=True, scope="session")
def away_from_the_sources() -> Iterator[None]:
    """Python programs started by a test import the fastbridge that is tested.

    They look in the current directory first; in a clone whose fastbridge is installed, that is one without its core.
    """
    spec = importlib.util.find_spec("fastbridge")
    assert spec and spec.origin
    before = Path.cwd()
    os.chdir(Path(spec.origin).parents[1])
    yield
    os.chdir(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if no_sandbox and item.get_closest_marker("live"):
            item.add_marker(pytest.mark.skip(reason=no_sandbox))


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """A live test must leave no link, namespace, process, thread or socket behind."""
    if not request.node.get_closest_marker("live"):
        yield
        return
    before = possessions()
    yield

    def left() -> dict[str, list[str]]:
        now = possessions()
        return {kind: sorted(things - before[kind]) for kind, things in now.items() if things - before[kind]}

    deadline = time.monotonic() + 60  # the kernel takes a namespace down, and what is in it, when it comes to that
    while left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left(), f"left behind: {left()}"


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves."""
    from clock import Clock

    return Clock()


@pytest.fixture(scope="module")
def unprivileged() -> Iterator[list[str]]:
    """The command line of a Python with no privilege at all."""
    from unprivileged import unprivileged

    yield from unprivileged()


def possessions() -> dict[str, set[str]]:
    """What this process owns in the kernel, by kind."""
    mine = [_read_link(fd) for fd in Path("/proc/self/fd").iterdir()]
    return {
        "links": {name for _, name in socket.if_nameindex()},
        "descriptors": {target for target in mine if re.match(r"(net|user|mnt|socket|packet):", target)},
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "processes": {pid for task in Path("/proc/self/task").iterdir() for pid in _children(task)},
        "threads": {thread.name for thread in threading.enumerate()},
    }


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # the descriptor by which the directory itself was read
        return ""


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:  # a thread that has just ended
        return []
