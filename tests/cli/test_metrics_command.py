"""`fastbridge metrics`: what a running switch would serve, also when it serves nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from command import ROOT, complaint, run, say
from live import PATIENCE
from prometheus_client import CollectorRegistry, parser

from fastbridge import Client, Lab, Switch
from fastbridge.metrics import collector
from fastbridge.policy.waits import BOUNDS, Waits
from fastbridge.switch.verbs import switch_verbs
from fastbridge.switch.vitals import FastPathVitals, Vitals


def sampled(families: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_vitals_are_the_same_on_the_wire_and_back() -> None:
    waits = Waits(tuple(range(len(BOUNDS) + 1)), 1.5)
    vitals = Vitals(1, 2, 3, 4, 5, 6, [7, 8], waits, [0.5, 0.25], FastPathVitals("nft", 9, 10, 11, 12, 13))
    assert Vitals.from_dict(json.loads(json.dumps(vitals.as_dict())) | {"of_a_newer_version": 1}) == vitals
    switch = Switch.in_memory(2)
    (row,) = switch_verbs(switch).call("vitals", {})
    assert Vitals.from_dict(json.loads(json.dumps(row))).as_dict() == switch.vitals().as_dict()


@pytest.fixture
def switch(lab: Lab, start: Callable[..., subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    process = start("run", "--json", "--name", "here", "pod1", "pod2", "pod3")
    assert say(process)["event"] == "ready"
    yield process
    process.terminate()
    process.communicate(timeout=PATIENCE)


@pytest.mark.live
def test_the_command_prints_what_the_switch_would_serve(lab: Lab, switch: subprocess.Popen[str]) -> None:
    assert lab["pod1"].ping("pod2", count=3, interval=0.02, timeout=PATIENCE)
    done = run("metrics", "--switch", "here")
    assert (done.returncode, done.stderr) == (0, "")
    printed = sampled(parser.text_string_to_metric_families(done.stdout))
    registry = CollectorRegistry()
    registry.register(collector(Switch.in_memory(["pod1", "pod2", "pod3"])))
    missing = sampled(registry.collect()).keys() - printed.keys()
    assert {name for name, _ in missing} <= {"fastbridge_fast_path_info", "fastbridge_policy_frames_total"}
    frames = [printed["fastbridge_port_receive_frames_total", (("port", name),)] for name in ("pod1", "pod2")]
    assert min(frames) >= 3
    with Client("here", timeout=PATIENCE) as client:
        for row in client.call("stats")[:-1]:
            assert printed["fastbridge_port_receive_frames_total", (("port", row["ifname"]),)] <= (
                row["rx_frames"] + row["fast"]
            )
    rows = json.loads(run("metrics", "--json").stdout)
    assert {(row["name"], tuple(sorted(row["labels"].items()))) for row in rows} >= printed.keys()
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=done.stdout, capture_output=True, text=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.live
def test_without_a_switch_or_the_extra_one_line_says_so(switch: subprocess.Popen[str]) -> None:
    assert "nowhere" in complaint(run("metrics", "--switch", "nowhere"), 2)
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from fastbridge.cli import main\n"
        "sys.argv = ['fastbridge', 'metrics']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert "pip install -e '.[metrics]'" in complaint(done, 2)
