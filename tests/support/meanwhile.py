"""Something that goes on while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(action: Callable[[], object], pause: float = 0.0) -> Iterator[None]:
    """Do something over and over in another thread until the block ends, at least once; its failure is the test's.

    `pause`: seconds between two of them. Without one the test's own thread waits for the GIL at each of its calls.
    """
    done, failures = threading.Event(), []

    def work() -> None:
        try:
            action()
            while not done.wait(pause):
                action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures, failures
