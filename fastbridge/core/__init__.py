"""The Cython core: imports nothing else of fastbridge."""

from importlib.util import find_spec
from pathlib import Path

if find_spec(".dataplane", __name__) is None:  # a clone, or an unpacked sdist
    _root = Path(__file__).resolve().parents[2]
    raise ImportError(f"the Cython core is not built in {_root}: run `pip install -e .` there", name=__name__)
