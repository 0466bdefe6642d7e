"""Builds the Cython core; everything else about the package is in pyproject.toml.

Switches in the environment: FASTBRIDGE_DEBUG=1 (no optimisation, bounds checks, symbols),
FASTBRIDGE_SANITIZE=1 (AddressSanitizer and UBSan) or =thread (ThreadSanitizer), FASTBRIDGE_ANNOTATE=1 (an HTML page a
module), FASTBRIDGE_ABI3=1 (the limited API: one wheel for Python 3.11 and all later ones).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup


def on(name: str) -> bool:
    """Whether a switch of the environment is on."""
    return os.environ.get(f"FASTBRIDGE_{name}", "0") not in ("", "0")


debug, sanitize, abi3 = on("DEBUG"), on("SANITIZE"), on("ABI3")
cpus = len(os.sched_getaffinity(0))
# A warning in the generated C of our own code is an error in CI (.ci/run adds -Werror there).
compile_args = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
# Under sanitizers, beyond -O1 the compiler takes twice as long, and drops faults that they would find.
optimised = ["-O1", "-g"] if sanitize else ["-O3", "-g1", "-fno-semantic-interposition"]
compile_args += ["-O0", "-g"] if debug else optimised
link_args: list[str] = []
if sanitize:
    flags = ["-fno-omit-frame-pointer"]
    if os.environ["FASTBRIDGE_SANITIZE"] == "thread":
        flags += ["-fsanitize=thread", "-Wno-tsan"]
    else:
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += flags
    link_args += flags

macros = [("CYTHON_CLINE_IN_TRACEBACK", "0")]
if abi3:
    if sys.version_info < (3, 11):
        raise SystemExit("FASTBRIDGE_ABI3 needs Python 3.11 or later: before it, the limited API has no buffers")
    macros.append(("Py_LIMITED_API", "0x030B0000"))

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
        py_limited_api=abi3,
    )
    for path in sorted(Path("fastbridge/core").rglob("*.pyx"))
]

if __name__ == "__main__":  # the processes that cythonize() starts may import this file (Python 3.14)
    setup(
        options={
            "build_ext": {"parallel": cpus},
            "bdist_wheel": {"py_limited_api": "cp311" if abi3 else False},
        },
        ext_modules=cythonize(
            extensions,
            nthreads=cpus,
            annotate=on("ANNOTATE"),
            compiler_directives={
                "language_level": 3,
                "boundscheck": debug,
                "wraparound": False,
                "cdivision": not debug,
                "initializedcheck": debug,
                "embedsignature": True,
                "auto_pickle": False,
                "autotestdict": False,
            },
        ),
    )
