"""`fastbridge metrics`, a running switch's metrics on stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click

from fastbridge.switch.counters import Counters
from fastbridge.switch.vitals import Vitals

from .operate import Remote, operate
from .stats import read_counters

if TYPE_CHECKING:
    from fastbridge.switch.member import SwitchPort


@click.command(epilog="Example: fastbridge metrics | grep dropped")
@operate
def metrics(remote: Remote) -> None:
    """Print what Prometheus reads of a running switch.

    The switch need not serve metrics. Takes the extra `metrics`. With --json: name, labels and value of each sample.
    """
    from fastbridge.metrics import collector, plain_text  # it says what to do where the extra is absent

    if remote.as_json:
        samples = [sample for family in collector(_Remote(remote)).collect() for sample in family.samples]
        click.echo(json.dumps([{"name": s.name, "labels": s.labels, "value": float(s.value)} for s in samples]))
    else:
        click.echo(plain_text(_Remote(remote)), nl=False)


class _Remote:
    """A running switch, as a collector asks one."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def counters(self) -> Counters:
        """See Source."""
        return read_counters(self._remote.call("stats"))

    def vitals(self) -> Vitals:
        """See Source."""
        return Vitals.from_dict(self._remote.call("vitals")[0])

    @property
    def ports(self) -> Sequence[SwitchPort]:
        """See Source."""
        from fastbridge.switch.member import SwitchPort  # `--help` must not wait for it

        return [SwitchPort(row["port"], row["ifname"], row["state"]) for row in self._remote.call("port.list")]
