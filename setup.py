"""Builds the Cython core; everything else about the package is in pyproject.toml.

Switches in the environment: FASTBRIDGE_DEBUG=1 (no optimisation, bounds checks, symbols),
FASTBRIDGE_SANITIZE=1 (AddressSanitizer and UBSan) or =thread (ThreadSanitizer), FASTBRIDGE_ANNOTATE=1 (an HTML page a
module).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup


def on(name: str) -> bool:
    """Whether a switch of the environment is on."""
    return os.environ.get(f"FASTBRIDGE_{name}", "0") not in ("", "0")


debug, sanitize = on("DEBUG"), on("SANITIZE")
# A warning in the generated C of our own code is an error in CI (.ci/run adds -Werror there).
compile_args = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
compile_args += ["-O0", "-g"] if debug else ["-O3", "-g1", "-fno-semantic-interposition"]
link_args: list[str] = []
if sanitize:
    flags = ["-fno-omit-frame-pointer", "-g"]
    if os.environ["FASTBRIDGE_SANITIZE"] == "thread":
        flags += ["-fsanitize=thread", "-Wno-tsan"]
    else:
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += flags
    link_args += flags

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=[("CYTHON_CLINE_IN_TRACEBACK", "0")],
    )
    for path in sorted(Path("fastbridge/core").rglob("*.pyx"))
]

setup(
    options={"build_ext": {"parallel": len(os.sched_getaffinity(0))}},
    ext_modules=cythonize(
        extensions,
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
