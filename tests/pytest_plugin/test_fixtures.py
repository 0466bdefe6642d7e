"""Labs as fixtures: what a project of somebody else has of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from live import eventually, holders_of, namespaces_of
from projects import PLUGIN, command, environment, outcomes, run_tests

pytestmark = pytest.mark.live

FIRST = """
    import pytest

    @pytest.mark.lab(pods=3, link="delay=1ms", policy="suppress")
    def test_pods(lab, switch):
        assert lab["pod1"].ping("pod3", timeout=60)
        assert len(lab) == 3 and switch is lab.switch and switch.running
        assert str(switch.policy()) == "suppress" and str(switch.links["pod1"].link) == "delay=1ms"
        assert switch.fast_path == "off"

    def test_two_pods_without_a_marker(lab):
        assert [pod.name for pod in lab] == ["pod1", "pod2"]

    @pytest.mark.lab(["a", "b"], fast_path="auto", mtu=9000)
    class TestOfOneKind:
        def test_names(self, lab, switch):
            assert "a" in lab and switch.options.fast_path == "auto" and lab.topology.mtu == 9000

        @pytest.mark.lab(mtu=1400)
        def test_the_nearer_word_counts(self, lab):
            assert "a" in lab and lab.topology.mtu == 1400

    @pytest.mark.parametrize("lab", [{"link": "lan"}, {"link": "4g"}], indirect=True, ids=["lan", "4g"])
    def test_links(lab, request):
        assert request.node.callspec.id == ("lan" if "overhead" in str(lab.switch.links["pod1"].link) else "4g")

    def test_several(make_lab):
        with make_lab(pods=1) as early:
            assert early.switch.running
        assert not early.switch.running
        one, two = make_lab(), make_lab(["c"], policy="direct")
        assert one["pod1"].ping("pod2", timeout=60) and "c" in two
        test_several.made = [one, two]

    def test_they_end_with_the_test():
        assert not any(lab.switch.running for lab in test_several.made)
"""

SHARED = """
    import unittest, pytest

    @pytest.fixture(scope="module")
    def net(lab_factory):
        with lab_factory(pods=3) as lab:
            yield lab
        assert not lab.switch.running

    @pytest.fixture(scope="session")
    def forgotten(lab_factory):
        return lab_factory()

    @pytest.mark.parametrize("n", range(2))
    def test_one_lab_for_all(net, forgotten, n):
        seen = test_one_lab_for_all.__dict__.setdefault("seen", net)
        assert seen is net and net["pod1"].ping("pod2", timeout=60) and forgotten.switch.running

    @pytest.mark.lab(pods=2)
    class TestOfUnittest(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def _take_lab(self, lab):
            self.lab = lab

        def test_ping(self):
            self.assertTrue(self.lab["pod1"].ping("pod2", timeout=60))
"""


def test_a_marker_two_fixtures_and_a_factory(tmp_path: Path) -> None:
    done = run_tests(tmp_path, FIRST)
    assert outcomes(done) == {"passed": 8}, done.stdout


TOPOLOGY = """
mtu = 1400
[switch.lan1]
[switch.lan2]
[pod.a]
interfaces = { eth0 = "lan1" }
[pod.b]
interfaces = { eth0 = "lan2" }
[pod.r]
interfaces = { eth0 = "lan1", eth1 = "lan2" }
forward = true
[link]
"r.eth1" = "from_pod.cut=true"
"""

ROUTED = """
    import time
    import pytest

    @pytest.mark.lab("net.toml", policy="suppress")
    def test_route(lab, switches):
        assert lab["a"].ping("r", timeout=60) and list(switches) == ["lan1", "lan2"]
        assert str(switches["lan2"].policy()) == "suppress" and lab.topology.mtu == 1400
        answered = lab["a"].ping("b", timeout=0.01)
        while not switches["lan2"].counters().total.dropped["link_cut"]:
            time.sleep(0.01)
        assert answered, "cut"

    @pytest.mark.lab("net.toml")
    def test_which(switch): ...

    @pytest.mark.lab("nowhere.toml")
    def test_file(lab): ...
"""


def test_several_switches_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(TOPOLOGY, encoding="utf-8")
    done = run_tests(tmp_path, ROUTED, "--lab-artifacts", "seen")
    assert outcomes(done) == {"failed": 1, "errors": 2}, done.stdout
    assert "this lab has several switches, lan1, lan2: take one of `switches`" in done.stdout
    assert re.search(r"^@pytest.mark.lab: .*nowhere.toml", done.stdout, re.M)
    one, two = re.findall(r"- lab: a, b, r; switch (lan[12]) -+\n(.*?)\n[-=_]", done.stdout, re.S)[-2:]
    assert one[0] == "lan1" and "neighbours in pods:" in one[1] and "ICMP echo request" in one[1]
    assert two[0] == "lan2" and "neighbours in pods:" not in two[1] and "dropped (link_cut)" in two[1]
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "seen").iterdir()}
    assert {f"test_it.py-test_route-{name}" for name in ("lan1", "lan2")} <= names


def test_labs_of_wider_scopes_and_of_unittest(tmp_path: Path) -> None:
    done = run_tests(tmp_path, SHARED)
    assert outcomes(done) == {"passed": 3}, done.stdout


WRONG = """
    import pytest

    @pytest.mark.lab(pod=3)
    def test_word(lab): ...

    @pytest.mark.lab(match=["eth*"])
    def test_word_of_the_host(lab): ...

    @pytest.mark.lab(2, "4g")
    def test_two_values(lab): ...

    @pytest.mark.lab(link="delay=20")
    def test_link(switch): ...

    @pytest.mark.lab(policy="flod")
    def test_policy(lab): ...

    @pytest.mark.parametrize("lab", ["4g"], indirect=True)
    def test_parameter(lab): ...

    @pytest.mark.lab(3, pods=2)
    def test_named_twice(lab): ...
"""


def test_a_wrong_word_is_one_line(tmp_path: Path) -> None:
    done = run_tests(tmp_path, WRONG)
    assert outcomes(done) == {"errors": 7}, done.stdout
    for said in (
        "pods are named twice: 3, and pods=2",
        "a lab takes no 'pod'; did you mean 'pods'? A lab takes: pods, mtu, link, ageing",
        "a lab takes no 'match'; it takes: pods, mtu, link, ageing",
        "one value may have no name, the pods; here are 2",
        "delay '20': a unit is missing",
        "'flod'",
        "a dictionary of its words, not '4g'",
    ):
        assert any(line.startswith("@pytest.mark.lab: ") and said in line for line in done.stdout.splitlines()), said
    for noise in ("labs.py", "Traceback", "traceback", "During handling"):
        assert noise not in done.stdout


REFUSED = """
    import pytest
    from fastbridge.errors import PrivilegeError
    from fastbridge.lab import topology

    class Refusing:
        def __init__(self, **_):
            raise PrivilegeError("the kernel gives no network namespaces (Operation not permitted): run as root")

    @pytest.fixture(autouse=True)
    def refusing(monkeypatch):
        monkeypatch.setattr(topology, "NamespaceHelper", Refusing)

    def test_fixture(lab): ...

    def test_factory(make_lab):
        make_lab()
"""


def test_where_the_machine_refuses_tests_are_skipped_with_the_way_out(tmp_path: Path) -> None:
    done = run_tests(tmp_path, REFUSED)
    assert outcomes(done) == {"skipped": 2}, done.stdout
    assert "no lab: the kernel gives no network namespaces (Operation not permitted): run as root" in done.stdout
    done = run_tests(tmp_path, REFUSED, "--lab-require")
    assert outcomes(done) == {"failed": 1, "error": 1} and done.returncode == 1, done.stdout
    assert "run as root (--lab-require)" in done.stdout and "Traceback" not in done.stdout


# No capability is left, and its user namespace may have none below it.
LIMITED = """
echo 0 >/proc/sys/user/max_user_namespaces
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def test_a_real_refusal(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(lab): ...", encoding="utf-8")
    limited = ["unshare", "--user", "--map-root-user", "sh", "-euc", LIMITED, "sh"]
    done = subprocess.run(
        [*limited, sys.executable, *command("test_it.py")],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcomes(done) == {"skipped": 1}, done.stdout + done.stderr
    assert "no lab: the kernel gives no network namespaces" in done.stdout
    assert "user.max_user_namespaces" in done.stdout


NOTHING = """
    import sys

    def test_nothing_is_imported():
        for path in ("fastbridge", "numpy", "pyroute2", "rich"):
            print("LOADED", sorted(name for name in sys.modules if name.partition(".")[0] == path))
"""


def test_who_asks_for_no_lab_imports_nothing(tmp_path: Path) -> None:
    done = run_tests(tmp_path, NOTHING)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert loaded == [f"LOADED ['fastbridge', '{PLUGIN}']", *["LOADED []"] * 3], done.stdout


@pytest.mark.slow
def test_it_is_installed_as_a_plugin(tmp_path: Path) -> None:
    assert [point.value for point in entry_points(group="pytest11", name="fastbridge")][:1] == [PLUGIN], (
        "this environment has an older installation: pip install -e ."
    )
    code = """
    def test_it(pytestconfig):
        assert pytestconfig.pluginmanager.has_plugin("fastbridge")
    """
    done = run_tests(tmp_path, code, "--strict-markers", plugins=["no:benchmark", "no:asyncio"], autoload=True)
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr


PARALLEL = """
    import random, pytest

    @pytest.mark.lab(pods=2, link="delay=1ms")
    @pytest.mark.parametrize("n", range(8))
    def test_ping(lab, n):
        assert lab["pod1"].ping("pod2", timeout=60)
"""


@pytest.mark.slow
def test_four_at_a_time_in_random_order(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    pytest.importorskip("pytest_randomly")
    done = run_tests(tmp_path, PARALLEL, "-n", "4", plugins=[PLUGIN, "xdist", "randomly"])
    assert outcomes(done) == {"passed": 8}, done.stdout


ASYNC = """
    import asyncio, socket, pytest, LOOP

    async def greet(reader, writer):
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    async def talk(lab, make_lab):
        one, two = lab
        listener = two.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((str(two.ipv4.ip), 0))
        address = listener.getsockname()
        server = await asyncio.start_server(greet, sock=listener)
        async with server:
            sock = one.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address)
            reader, writer = await asyncio.open_connection(sock=sock)
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        assert make_lab()["pod1"].ping("pod2", timeout=60)  # in the running loop
        assert type(asyncio.get_running_loop()).__module__.startswith("LOOP")

    @pytest.mark.lab(link="delay=1ms")
"""

BY_LOOP = {
    "asyncio": """
    @pytest.mark.asyncio
    async def test_streams(lab, make_lab):
        await talk(lab, make_lab)
    """,
    "uvloop": """
    def test_streams(lab, make_lab):
        uvloop.run(talk(lab, make_lab))
    """,
}


@pytest.mark.parametrize("loop", BY_LOOP)
def test_beside_an_event_loop(tmp_path: Path, loop: str) -> None:
    pytest.importorskip("pytest_asyncio")
    pytest.importorskip(loop)
    code = ASYNC.replace("LOOP", loop) + BY_LOOP[loop].lstrip("\n")
    scope = "asyncio_default_fixture_loop_scope=function"
    done = run_tests(tmp_path, code, "-o", scope, plugins=[PLUGIN, "asyncio"])
    assert outcomes(done) == {"passed": 1}, done.stdout


WAITING = """
    import os, pathlib, sys, time

    def test_it(lab, capfd):
        assert lab["pod1"].ping("pod2", timeout=60)
        lab["pod1"].popen(["sleep", "1000"])
        pathlib.Path("ready.part").write_text(str(os.getpid()))
        os.rename("ready.part", "ready")
        time.sleep(1000)
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_sigkill_leaves_nothing(tmp_path: Path, workers: str) -> None:
    """pytest is killed; its worker ends with it."""
    pytest.importorskip("xdist")
    (tmp_path / "test_it.py").write_text(textwrap.dedent(WAITING), encoding="utf-8")
    words = command("test_it.py", "-n", workers, plugins=[PLUGIN, "xdist"])
    with subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        eventually(lambda: (tmp_path / "ready").exists() or run.poll() is not None, "the lab")
        tester = int((tmp_path / "ready").read_text())
        held = namespaces_of(tester)
        assert len(held) >= 3  # two pods, the host ends
        with holders_of(held) as holders:
            assert holders() >= {tester}
            run.kill()
            eventually(lambda: not holders(), "the end of the namespaces' last holder")


def test_an_ordinary_user(unprivileged: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are for its user alone
        path = Path(directory) / "test_it.py"
        path.write_text("def test_it(lab): assert lab['pod1'].ping('pod2', timeout=60)", encoding="utf-8")
        path.parent.chmod(0o755)
        script = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
        arguments = [*command(str(path))[2:], "--rootdir", directory, "--lab-require"]
        done = subprocess.run(
            [*unprivileged, script, *arguments], capture_output=True, text=True, timeout=180, cwd="/", env=environment()
        )
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr
