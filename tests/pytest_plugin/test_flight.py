"""What a failing test's report says of its labs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from capture_files import tshark
from projects import PLUGIN, outcomes, run_tests

pytestmark = pytest.mark.live

FAILING = """
    import time
    import pytest
    from fastbridge import Topology

    # Without IPv6: else a report of the pod's groups may be its first frame.
    @pytest.mark.lab(pods=Topology.of(3, ipv6=None), link={"pod1": "from_pod.lose=frames 1"}, policy="suppress")
    def test_loses(lab, switch):
        answered = lab["pod1"].ping("pod2", timeout=0.01)
        while not switch.counters().total.dropped["link_loss"]:
            time.sleep(0.01)
        assert answered, "lost"

    def test_passes(lab):
        assert lab["pod1"].ping("pod2", timeout=60)

    @pytest.mark.xfail
    def test_is_meant_to_fail(lab):
        raise AssertionError
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_counters_tables_and_frames(tmp_path: Path, workers: str) -> None:
    if workers != "0":
        pytest.importorskip("xdist")
    arguments = ("-n", workers, "--lab-artifacts", "seen/here")
    done = run_tests(tmp_path, FAILING, *arguments, plugins=[PLUGIN, "xdist"])
    assert outcomes(done) == {"failed": 1, "passed": 1, "xfailed": 1}, done.stdout
    assert done.stdout.count("- lab: pod1, pod2, pod3 -") == 1 and "lab: pod1, pod2 -" not in done.stdout
    section = done.stdout.partition("lab: pod1, pod2, pod3 -")[2]
    for said in (
        "port   received  forwarded",
        "pod1: dropped: link_loss 1",
        "pod1: from_pod.lose=frames 1",
        "FDB:",
        "neighbours, policy suppress:",
        "neighbours in pods:",
        "(link_loss)",
    ):
        assert said in section, said
    (path,) = (tmp_path / "seen/here").iterdir()
    assert f"as pcapng: {path}" in section
    rows = tshark(path, "frame.interface_name", "frame.comment", options=("-Y", 'frame.comment contains "link_loss"'))
    assert rows == [("pod1", "dropped: link_loss")]


CUT = """
    def test_cut(lab, switch):
        switch.cut("pod1")
        switch.set_carrier("pod2", False)
        assert lab["pod2"].ping("pod1", timeout=0.01)
"""


def test_a_cut_and_a_carrier_that_is_lost_are_among_the_links(tmp_path: Path) -> None:
    said = run_tests(tmp_path, CUT, plugins=[PLUGIN]).stdout
    assert "pod1: cut to_pod and from_pod" in said and "pod2: down" in said


PHASES = """
    import pytest

    @pytest.fixture
    def broken(lab):
        lab["pod1"].ping("pod2", timeout=60)
        raise RuntimeError("in the setup")

    def test_setup(broken): ...

    @pytest.fixture
    def breaks(request):
        lab = request.getfixturevalue("lab")
        lab["pod1"].ping("pod2", timeout=60)
        yield
        raise RuntimeError("in the teardown")

    @pytest.fixture
    def breaks_late():
        yield
        raise RuntimeError("after the lab's end")

    def test_teardown(breaks_late, lab):
        lab["pod1"].ping("pod2", timeout=60)

    def test_closed(make_lab):
        with make_lab(policy="suppress") as lab:
            assert lab["pod1"].ping("pod2", timeout=60)
            raise RuntimeError("in the body")

    def test_stopped(lab):
        assert lab["pod1"].ping("pod2", timeout=60)
        lab.switch.stop()
        raise RuntimeError("after its stop")

    @pytest.mark.parametrize("name", ["a/b", "a b", "ü" * 200], ids=str)
    def test_names(lab, name):
        raise RuntimeError(name)
"""


def test_in_all_phases_with_any_name(tmp_path: Path) -> None:
    done = run_tests(tmp_path, PHASES, "--lab-artifacts", "seen")
    assert outcomes(done) == {"failed": 5, "errors": 2, "passed": 1}, done.stdout
    sections = done.stdout.split("lab: pod1, pod2 -")[1:]
    assert len(sections) == 7 and "cannot tell" not in done.stdout
    for section in sections[:3]:
        assert "02:00:00:00:00:01 → pod1" in section and "ICMP echo reply" in section, section
    assert "10.0.0.1 → 02:00:00:00:00:01 on pod1" in done.stdout  # of the lab that was closed
    names = sorted(
        path.name.removeprefix("test_it.py-test_").rpartition("-")[0] for path in (tmp_path / "seen").iterdir()
    )
    assert names[:2] == ["closed", "names-a-b"] and names[1] == names[2]
    assert names[3].startswith("names-xfc-xfc-") and len(names[3]) < 100
    assert names[4:] == ["setup-setup", "stopped", "teardown-teardown"]


SHARED = """
    import pytest

    @pytest.fixture(scope="module")
    def net(lab_factory):
        with lab_factory() as lab:
            yield lab

    @pytest.mark.parametrize("n", [3, 0])
    def test_shared(net, n):
        if n:
            assert net["pod1"].ping("pod2", count=n, interval=0, timeout=60)
        raise RuntimeError

    def test_does_without(lab):
        raise RuntimeError
"""


def test_a_lab_that_is_shared_tells_each_test_its_own_frames(tmp_path: Path) -> None:
    done = run_tests(tmp_path, SHARED)
    assert outcomes(done) == {"failed": 3}, done.stdout
    _, first, second, alone = done.stdout.split("lab: pod1, pod2 -")
    assert first.count("ICMP echo request") == 3 and "--lab-artifacts DIR keeps them" in first
    assert "ICMP echo" not in second and "02:00:00:00:00:02 → pod2" in second
    assert "ICMP echo" not in alone
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pcapng"] == []


LARGE = """
    import time

    import pytest
    from fastbridge import Topology
    from fastbridge.pytest_plugin import flight

    flight._MOST = 1

    @pytest.mark.lab(Topology.linear(3, 1), link={"pod1": "from_pod.cut=true"})
    def test_it(lab):
        one, two, three = lab
        two.ping(three, timeout=60)
        one.ping(two, timeout=0.01)
        while not lab.running_switches["s1"].counters().total.dropped["link_cut"]:
            time.sleep(0.01)
        raise RuntimeError
"""


def test_a_large_lab_is_told_in_few_lines(tmp_path: Path) -> None:
    done = run_tests(tmp_path, LARGE, "--lab-artifacts", "seen")
    assert outcomes(done) == {"failed": 1}, done.stdout
    sections = re.findall(r"^-{5,} ([^\n]*) -{5,}\n(.*?)\n(?=-{5}|={5})", done.stdout, re.M | re.S)
    titles, texts = zip(*sections, strict=True)
    assert titles == ("lab: pod1, … and 2 more; switch s1", "more switches"), titles
    assert re.search(r"^port .*\npod1 .*\ntotal .*\n", texts[0], re.M)  # of two ports the one that lost something
    assert "neighbours in pods:\n" in texts[0] and len(texts[0].splitlines()) <= 16
    assert [line.partition(": ")[2][:7] for line in texts[1].splitlines()] == ["pod1, …"] * 2
    assert len(list((tmp_path / "seen").iterdir())) == 3 == texts[0].count(".pcapng") + texts[1].count(".pcapng")


def test_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    code = "def test_it(lab): raise RuntimeError"
    done = run_tests(tmp_path, code, "--lab-artifacts", "/proc/nowhere")
    assert outcomes(done) == {"failed": 1} and "cannot write /proc/nowhere/test_it.py-test_it-" in done.stdout
    (tmp_path / "file").touch()
    done = run_tests(tmp_path, code, "--lab-artifacts", "file")
    assert done.returncode == 4 and "--lab-artifacts file: this is no directory; name another one" in done.stderr
