"""docs/control.md is true: its commands run as written, by socat and jq, and its numbers are the code's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from talks import Ticker

from fastbridge.control import guest, protocol, server
from fastbridge.control.directory import make_directory, socket_path
from fastbridge.control.server import ControlServer
from fastbridge.control.verbs import Verbs

PAGE = Path(__file__).parents[2] / "docs/control.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the tests were copied without docs/")


def verbs() -> Verbs:
    made = Verbs()

    @made.verb("fdb.show")
    def fdb_show(port: str | None = None) -> list[dict[str, Any]]:
        """The entries of the FDB."""
        return [{"mac": "02:00:00:00:00:01", "ifname": port, "flags": [], "state": ""}]

    @made.verb("monitor", stream=True)
    def monitor() -> Ticker:
        """One station is learned, and then nothing happens any more."""
        ticker = Ticker()
        ticker.say(event="learned", mac="02:00:00:00:00:01", ifname="veth1")
        ticker.end()
        return ticker

    return made


@pytest.mark.live  # /run is the sandbox's
def test_the_commands_run_as_written() -> None:
    if missing := [program for program in ("bash", "socat", "jq") if shutil.which(program) is None]:
        pytest.skip(f"needs {' and '.join(missing)}")
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    make_directory()
    with ControlServer(socket_path("blue"), verbs()):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", "\n".join(blocks)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    decoder, said, text = json.JSONDecoder(), [], done.stdout.strip()
    while text:
        one, end = decoder.raw_decode(text)
        said.append(one)
        text = text[end:].strip()
    entries, parameters, first, second, *events = said
    assert entries == [{"mac": "02:00:00:00:00:01", "ifname": "veth1", "flags": [], "state": ""}]
    assert parameters["properties"]["port"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert (first, second) == (["a", protocol.WRONG_PARAMETERS], ["b", protocol.NO_VERB])
    learned = {"event": "learned", "mac": "02:00:00:00:00:01", "ifname": "veth1"}
    assert events == [None, learned, None]  # the answer, the event, the end


def test_the_numbers_are_true() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.*?) \| (.*?) \|$", text, re.M))
    for name, number in {
        "a request's line": f"{protocol.MOST_BYTES:,} bytes",
        "clients": f"{server._MOST_CLIENTS}.",
        "requests of a client that wait": f"{guest._MOST_WAITING}.",
        "requests of a client": f"{guest._RATE} a second",
        "streams of a client": f"{server._MOST_STREAMS}",
    }.items():
        assert rows[name].startswith(number), name
    assert rows["answers of all clients that nobody reads"].startswith(f"{server._MOST_UNREAD >> 20} MiB")
    assert f"for {guest._STALLED_SECONDS:g} s" in rows["answers"]
    codes = {protocol.PARSE, protocol.INVALID, protocol.NO_VERB, protocol.WRONG_PARAMETERS, protocol.INTERNAL}
    assert {str(code) for code in codes | {protocol.BUSY}} <= rows.keys() and "1, 2, 3, 4" in rows
    assert f"`version` in the schema is {protocol.VERSION}." in text
