"""HTTP requests: nginx in one pod, wrk in another, over 16 connections that stay open.

Both programs go where the scheduler puts them.

    apt-get install nginx-light wrk
    pytest --benchmark-only --blocks 10 benchmarks/decisions/test_http.py      # two minutes
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from live import eventually
from places import SEED, compared, enter
from work import Figures, Work, record

from fastbridge.bench import Testbed
from fastbridge.bench.engines import parse_engines
from fastbridge.bench.engines.engine import lacks_program
from fastbridge.bench.machine.child import Child
from fastbridge.bench.report.statistics import interleave
from fastbridge.lab.pods import Pod

pytestmark = [pytest.mark.live, pytest.mark.benchmark(group="HTTP", timer=Work.time)]

BASELINE = "linux-bridge"
CONTROL = f"{BASELINE} again"
ENGINES = (BASELINE, "fastbridge", "fastbridge/nft", "fastbridge/bpf", "fastbridge/af-packet", "direct")
CONNECTIONS, SECONDS, REQUESTS = 16, 2, 100_000
CONFIGURATION = """
master_process off;
daemon off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 80;
        location / {{ return 200 "fastbridge\\n"; }}
    }}
}}
"""


@contextmanager
def serving(pod: Pod, directory: Path) -> Iterator[None]:
    directory.mkdir()
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory))
    server = Child(pod.popen, ["nginx", "-p", str(directory), "-c", str(configuration)], name="nginx")
    try:
        eventually(lambda: server.check() or ":80 " in pod.run(["ss", "-Hltn"]).stdout, "nginx to listen")
        yield
    finally:
        server.stop()


def requests_a_second(client: Pod, server: Pod) -> float:
    assert server.ipv4
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", f"http://{server.ipv4.ip}/"]
    said = client.run(argv, timeout=10.0 + SECONDS).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found and float(found[1]) > 0, said
    return float(found[1])


def test_http(benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if reason := lacks_program("nginx-light", "nginx") or lacks_program("wrk", "wrk"):
        pytest.skip(reason)
    with ExitStack() as stack:
        beds = {}
        for engine in parse_engines(",".join(ENGINES)):
            if engine.missing():
                continue
            beds[engine.name] = bed = enter(stack, Testbed(engine))
            stack.enter_context(serving(bed.lab.pods[1], tmp_path / engine.name.replace("/", "-")))
            bed.running.pause()
        beds[CONTROL] = beds[BASELINE]
        rates: dict[str, dict[int, float]] = {name: {} for name in beds}
        for block, order in enumerate(interleave(list(beds), request.config.getoption("--blocks"), SEED)):
            for name in order:
                with beds[name].alone():
                    rates[name][block] = requests_a_second(*beds[name].lab.pods)
    figures: Figures = {f"{name}, requests/s": median(each.values()) for name, each in rates.items()}
    for name in beds:
        if name != BASELINE:
            figures |= compared(f"{name} / {BASELINE}", rates[name], rates[BASELINE])
    rounds = [REQUESTS / rate for rate in rates["fastbridge"].values()]
    record(benchmark, rounds, f"{REQUESTS:,} HTTP requests by {CONNECTIONS} connections", figures)
