"""Coverage-guided fuzzing of what reads frames: parse, sources (ND and IP source addresses), coalesce, arp_nd.

    python tests/fuzz/targets.py                       # the stored corpus, all targets; what CI runs
    python tests/fuzz/targets.py --seconds 60 parse    # look for more; what is found is kept in tests/fuzz/corpus/parse
    python tests/fuzz/targets.py parse crash-1234      # one input again

The first three are the core's own functions (targets.pyx), built here by clang with libFuzzer; without clang, by cc,
they take the corpus, and no more. arp_nd is Python: atheris guides it where it is installed.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from shutil import which
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NATIVE, PYTHON = ("parse", "sources", "coalesce"), "arp_nd"
SANITIZERS = "address,undefined"
MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int main(int argc, char **argv) {
    static uint8_t data[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) { perror(argv[i]); return 1; }
        size_t size = fread(data, 1, sizeof(data), file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
    }
    return 0;
}
"""


def build(directory: Path, guided: bool) -> Path:
    """The program of the native targets."""
    from Cython.Compiler.Main import CompilationOptions, compile_single, default_options

    # pylint would not know: the result says how many errors there were, on stderr
    options = CompilationOptions(default_options, output_file=str(directory / "targets.c"), include_path=[str(ROOT)])
    if compile_single(str(HERE / "targets.pyx"), options, "targets").num_errors:
        raise SystemExit("targets.pyx does not compile")
    flags = ["-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-w"]
    flags += [f"-I{sysconfig.get_path('include')}", f"-fsanitize={'fuzzer,' if guided else ''}{SANITIZERS}"]
    sources = [str(directory / "targets.c")]
    if not guided:
        (directory / "main.c").write_text(MAIN)
        sources.append(str(directory / "main.c"))
    # What the module would need of Python is never called: it may stay undefined.
    link = ["-Wl,--unresolved-symbols=ignore-all", "-Wl,-z,lazy", "-no-pie"]
    program = directory / "targets"
    subprocess.run(["clang" if guided else "cc", *flags, *sources, *link, "-o", str(program)], check=True)
    return program


def run_native(program: Path, target: str, inputs: list[str], arguments: list[str]) -> None:
    environment = os.environ | {"FASTBRIDGE_TARGET": target, "ASAN_OPTIONS": "detect_leaks=0"}
    subprocess.run([str(program), *arguments, *inputs], env=environment, check=True)


def read_arp_nd(data: bytes) -> None:
    """Whatever the bytes: a message or none, never an exception; what is read has the size it should."""
    from fastbridge.arp_nd import read

    message = read(0, data)
    str(message)
    assert message.sender_ip is None or len(message.sender_ip) in (4, 16)
    assert message.sender_mac is None or len(message.sender_mac) == 6


def run_arp_nd(inputs: list[Path], seconds: float) -> None:
    for path in inputs:
        read_arp_nd(path.read_bytes())
    if not seconds:
        return
    import atheris

    with atheris.instrument_imports(include=["fastbridge.arp_nd"]):
        import fastbridge.arp_nd  # noqa: F401
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds:.0f}", str(corpus(PYTHON))], read_arp_nd)
    atheris.Fuzz()


def corpus(target: str) -> Path:
    return HERE / "corpus" / target


def seeds() -> None:
    """Make the corpus anew from the tests' own frames: one of each kind, whole and cut."""
    sys.path.insert(0, str(HERE.parent / "support"))
    import arp_nd_frames as make
    from coalescing import QUIET, TAGS, flow
    from segmentation import TCP, UDP, VNET

    a, b = "02:00:00:00:00:01", "02:00:00:00:00:02"
    neighbours: list[Any] = [make.arp(1, a, "10.0.0.1", "10.0.0.2"), make.arp(2, a, "10.0.0.1", "10.0.0.2", to=b)]
    neighbours += [make.ns(a, "fd00::1", "fd00::2"), make.na(a, "fd00::1"), make.dad(a, "fd00::1")]
    frames = [bytes(frame) for frame in neighbours]
    frames += [make.tagged(neighbours[0], 5), make.tagged(neighbours[2], 5, 7, tpid=0x88A8)]
    extended = frames[2][:20] + b"\x3c" + frames[2][21:54] + b"\x3a" + bytes(7) + frames[2][54:]
    frames.append(extended)  # ND behind a destination options header
    rng = random.Random(1)
    kept: dict[str, list[bytes]] = {"parse": frames, PYTHON: frames, "sources": [f[12:] for f in frames]}
    pairs = [flow(2, 9, version=v, protocol=p, tags=t, options=QUIET)
             for v in (4, 6) for p in (TCP, UDP) for t in (TAGS[0], TAGS[1], TAGS[4])]  # fmt: skip
    plain = [[packet.message()[VNET.size :] for packet in pair] for pair in pairs]
    kept["coalesce"] = [(len(one) - 14).to_bytes(2, "big") + one + two for one, two in plain]
    kept["parse"] = frames + [one for one, _ in plain]
    kept["sources"] += [one[12:] for one, _ in plain]
    for target, whole in kept.items():
        corpus(target).mkdir(parents=True, exist_ok=True)
        cut = [each[: rng.randrange(len(each))] for each in whole]
        for n, each in enumerate([*whole, *cut]):
            (corpus(target) / f"{n:03}").write_bytes(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=[*NATIVE, PYTHON, "seeds"])
    parser.add_argument("input", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0, help="look for more, so long")
    given = parser.parse_args()
    if given.target == "seeds":
        seeds()
        return
    targets = [given.target] if given.target else [*NATIVE, PYTHON]
    with tempfile.TemporaryDirectory() as scratch:
        program = None
        for target in targets:
            inputs = given.input or sorted(corpus(target).iterdir())
            if not inputs:
                raise SystemExit(f"{corpus(target)} is empty: make it anew with {sys.argv[0]} seeds")
            if target == PYTHON:
                run_arp_nd(inputs, given.seconds)
            else:
                guided = which("clang") is not None and bool(given.seconds)
                if given.seconds and not guided:
                    raise SystemExit("looking for more takes clang, with libFuzzer")
                program = program or build(Path(scratch), guided)
                run_native(program, target, [str(path) for path in inputs], [])
                if guided:
                    run_native(program, target, [str(corpus(target))], [f"-max_total_time={given.seconds:.0f}"])
            print(f"{target}: {len(inputs)} inputs, nothing found", flush=True)


if __name__ == "__main__":
    main()
