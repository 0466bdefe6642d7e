"""Call runner, stand-alone program.

`calls.call` starts it in a pod, for one call of one function. It imports nothing of fastbridge, so what it costs is
Python's own start, and what the function needs.

Its argument is the number of a file's descriptor. The file begins with two pickles: the caller's module search path
with the name of its pickler, then the function with its arguments. In their place this program writes the answer, a
pickle again: ("returned", RESULT), ("raised", ERROR, TRACEBACK), ("lost", WHY) for a function that cannot be loaded
here, or ("mute", WHY) for a result that cannot be pickled. RESULT and ERROR are pickles in themselves.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import IO, Any

Dumps = Callable[[Any], bytes]


def perform(request: IO[bytes], dumps: Dumps) -> tuple[Any, ...]:
    """Call the function. Its answer, in words that any Python can read."""
    try:
        function, arguments = pickle.load(request)  # noqa: S301 - from the process that started this one
    except Exception as error:
        return "lost", spoken(error)
    try:
        result = function(*arguments)
    except Exception as error:
        return "raised", pickled_error(error, dumps), traceback.format_exc()
    try:
        return "returned", dumps(result)
    except Exception as error:
        return "mute", spoken(error)


def pickled_error(error: Exception, dumps: Dumps) -> bytes | None:
    """None for an error that does not survive it; many of those with arguments of their own do not."""
    try:
        data = dumps(error)
        pickle.loads(data)  # noqa: S301 - just made
    except Exception:
        return None
    return data


def spoken(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Perform one call. When this process ends without an answer, the caller says so."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    with open(descriptor, "r+b") as file:
        request = io.BytesIO(file.read())
        file.seek(0)
        file.truncate()  # nothing is no answer
        sys.path[:], pickler = pickle.load(request)  # noqa: S301 - from the process that started this one
        pickle.dump(perform(request, import_module(pickler).dumps), file)


if __name__ == "__main__":
    main()
