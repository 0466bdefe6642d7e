"""Data planes that run in real time: their threads alone, and one clear line where that is not allowed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from live import PATIENCE, eventually, stage

from fastbridge import Lab, PrivilegeError, Switch
from fastbridge.real_time import allow_real_time


def policies() -> dict[str, int]:
    """The scheduling policy of each thread of this process that has a name of ours."""
    threads = [each for each in threading.enumerate() if each.name.startswith("fastbridge-") and each.native_id]
    return {each.name: os.sched_getscheduler(each.native_id or 0) for each in threads}


@pytest.fixture
def allowed() -> None:
    try:
        allow_real_time()
    except PrivilegeError as error:
        pytest.skip(str(error))


@pytest.mark.live
@pytest.mark.usefixtures("allowed")
def test_only_the_data_plane_runs_in_real_time() -> None:
    workers = min(2, len(os.sched_getaffinity(0)))
    with stage(2, real_time=True, workers=workers) as (lab, _):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        data = [f"fastbridge-data-{n}" for n in range(workers)]
        eventually(lambda: all(policies()[name] == os.SCHED_RR for name in data), "real-time workers")
        assert {how for name, how in policies().items() if name not in data} == {os.SCHED_OTHER}
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.live
@pytest.mark.usefixtures("allowed")
def test_rights_given_up_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with Lab(2) as lab:
        switch = Switch(lab.ports, real_time=True)
        with monkeypatch.context() as without, pytest.raises(PrivilegeError, match="no real-time threads"):
            without.setattr(os, "sched_setscheduler", refuse)
            with switch:
                pass
        assert not switch.running
        with Switch(lab.ports, real_time=True):  # the ports are free
            assert lab["pod1"].ping("pod2", timeout=PATIENCE)


@pytest.mark.live
def test_by_default_nothing_does() -> None:
    with stage(2) as (lab, _):
        assert lab["pod1"].ping("pod2", timeout=PATIENCE)
        assert set(policies().values()) == {os.SCHED_OTHER}


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/setpriv").exists(), reason="becomes another user")
@pytest.mark.parametrize("allowed", [0, 1])
def test_an_ordinary_user_needs_the_limit(allowed: int) -> None:
    become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    source = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom fastbridge.real_time import allow_real_time\nallow_real_time()"
    )
    limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_RTPRIO, ({allowed}, {allowed}))"
    limited = [sys.executable, "-c", f"{limit}\nos.execvp(sys.argv[1], sys.argv[1:])"]
    done = subprocess.run([*limited, *become, sys.executable, "-c", source], capture_output=True, text=True)
    if "not allowed to raise maximum limit" in done.stderr:
        pytest.skip("this root may not raise RLIMIT_RTPRIO")
    if any(said in done.stderr for said in ("setpriv:", "Permission denied", "No module named")):
        pytest.skip("no other user here may read this Python and its packages")
    assert (done.returncode == 0) == bool(allowed), done.stderr
    assert allowed or "run it as root, or allow it by `ulimit -r 1`" in done.stderr
