"""Capture files, read by other programs."""

from __future__ import annotations

import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

from fastbridge.errors import ConfigError
from fastbridge.pcap_filter import compile_filter


def _has_libpcap() -> bool:
    try:
        compile_filter("arp")
    except ConfigError:
        return False
    return True


needs_libpcap = pytest.mark.skipif(not _has_libpcap(), reason="libpcap is not installed")


def tshark(path: Path, *fields: str, options: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """What tshark says of each frame, field by field."""
    command = ["tshark", "-n", "-r", str(path), *options, "-T", "fields", "-E", "separator=/t"]
    done = _run([*command, *(part for field in fields for part in ("-e", field))])
    return [tuple(line.split("\t")) for line in done.splitlines()]


def capinfos(path: Path) -> dict[str, str]:
    """What capinfos says of the whole file; of what it says of each interface, the last."""
    lines = _run(["capinfos", str(path)]).splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _run(command: list[str]) -> str:
    try:
        # Without the library of a sanitizer that these tests may run under: it is not for other people's programs.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180, env=environment).stdout
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")


def read_blocks(path: Path) -> list[Any]:
    """The blocks, by python-pcapng."""
    pcapng = pytest.importorskip("pcapng")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own making
        return list(pcapng.FileScanner(file))


def statistics(path: Path) -> dict[str, tuple[int, int, int]]:
    """Of each interface: frames that the filter let pass, that the capture lost, that were written."""
    blocks = read_blocks(path)
    names = [block.options["if_name"] for block in blocks if type(block).__name__ == "InterfaceDescription"]
    return {
        names[block.interface_id]: tuple(
            block.options[name] for name in ("isb_filteraccept", "isb_ifdrop", "isb_usrdeliv")
        )
        for block in blocks
        if type(block).__name__ == "InterfaceStatistics"
    }
