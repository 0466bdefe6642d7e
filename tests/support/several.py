"""The switches of a lab that has several, running."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from fastbridge import Lab, Switch


@contextlib.contextmanager
def switched(lab: Lab) -> Iterator[Mapping[str, Switch]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Switch(ports)) for name, ports in lab.switches.items()}
