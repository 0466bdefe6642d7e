"""`fastbridge run`, the switch.

Forwards between interfaces of the current network namespace until SIGTERM, SIGINT or SIGHUP. With --json stdout holds
only JSON lines: the first has the event "ready", the last "stopped". Nothing here waits for their reader (streams.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import rich_click as click

from fastbridge.errors import FastbridgeError, PortError
from fastbridge.privileges import CAP_NET_ADMIN, give_up, refuse_calls
from fastbridge.sd_notify import Notifier
from fastbridge.switch.counters import Counters
from fastbridge.switch.options import FAST_PATHS, LiveOptions

from .options import link_option, read_policy_of_strangers, read_port_policies, scenario_option
from .service import Service
from .streams import ERRORS, StreamBox
from .wishes import Wishes

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from fastbridge.links.scenario import Scenario
    from fastbridge.metrics.endpoint import Endpoint
    from fastbridge.switch.config_apply import Configured
    from fastbridge.switch.helper import Helper
    from fastbridge.switch.live import Switch
    from fastbridge.switch.state import StateFile

_DEFAULTS = LiveOptions()
# Between two looks at the links. Each holds the data plane for some microseconds.
_LOOK_SECONDS = 0.1


def _read_ageing(context: click.Context, parameter: click.Parameter, text: str) -> float | None:
    if text == "never":
        return None
    try:
        return float(text)  # the switch checks its range
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of seconds; give one, or 'never'") from None


def _read_cpus(context: click.Context, parameter: click.Parameter, text: str | None) -> Sequence[int] | None:
    try:
        return None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a CPU number; give one, or several separated by commas: 2,3"
        ) from None


def _check_ports(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{twice} is named twice; name each interface once")
    return names


def _check_patterns(context: click.Context, parameter: click.Parameter, patterns: tuple[str, ...]) -> tuple[str, ...]:
    if "" in patterns:
        raise click.BadParameter("an empty pattern matches no interface; give one such as 'veth*'")
    return patterns


@click.command(epilog="Example: fastbridge run --arp guard,ratelimit=50,suppress veth1 veth2 veth3")
@click.argument("interfaces", metavar="[IFACE...]", nargs=-1, callback=_check_ports)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    is_eager=True,
    help="Read ports and options from this TOML file. Options given here come before it. SIGHUP reads it again.",
)
@click.option(
    "--state",
    metavar="FILE",
    help="Keep what is learned, and what is changed by hand, over a restart: written at the end, taken back at the "
    "start if it is not too old and the interfaces are the same.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="End the switch that has these interfaces as ports, as soon as everything here is ready to go on.",
)
@click.option(
    "--match",
    metavar="PATTERN",
    multiple=True,
    callback=_check_patterns,
    help="Interfaces whose names match (such as 'veth*') join when they appear and leave when they go. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout: ready, port events, stopped.")
@click.option(
    "--name",
    help="The name by which `fastbridge status` and the like find this switch.  [default: run- and the process id]",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="Print counters this often.",
)
@click.option(
    "--arp",
    metavar="POLICY",
    default=_DEFAULTS.policy,
    callback=read_policy_of_strangers,
    show_default=True,
    help="What becomes of ARP and ND: flood, suppress (answer for known neighbours), direct (ask the owner alone), "
    "guard (drop spoofed messages and packets; guard=router, for a router's port: IP packets from anywhere pass), "
    "ratelimit=RATE[:BURST] (frames/s of a port); several with commas.",
)
@click.option(
    "--arp-port",
    "arp_ports",
    metavar="IFACE=POLICY",
    multiple=True,
    callback=read_port_policies,
    help="A policy for one interface, in place of --arp, also for one that joins later. Repeatable. "
    "Use guard=router for a router's interface.",
)
@link_option
@scenario_option
@click.option(
    "--storm-control",
    metavar="FRAMES",
    type=click.FloatRange(min=0, min_open=True),
    help="Flood at most this many frames a second from each port: broadcast, multicast and unknown unicast, each.",
)
@click.option(
    "--no-loop-detection",
    is_flag=True,
    help="Do not probe for loops where MAC addresses keep moving, and do not block ports.",
)
@click.option(
    "--ageing",
    metavar="SECONDS",
    default=f"{_DEFAULTS.ageing:g}",
    callback=_read_ageing,
    show_default=True,
    help="Forget a MAC address after this long in silence, or `never`.",
)
@click.option(
    "--capacity",
    metavar="ENTRIES",
    type=int,
    default=_DEFAULTS.capacity,
    show_default=True,
    help="Learn at most this many MAC addresses.",
)
@click.option(
    "--filter-link-local",
    is_flag=True,
    help="Drop frames to 01:80:c2:00:00:0x (LLDP, LACP, STP), as 802.1D says. By default they pass.",
)
@click.option(
    "--busy-poll",
    metavar="MICROSECONDS",
    type=click.IntRange(0, 1_000_000),
    default=round(_DEFAULTS.busy_poll * 1e6),
    show_default=True,
    help="Wait this long for the next frame, spinning, before sleeping.",
)
@click.option(
    "--no-coalesce",
    is_flag=True,
    help="Send every frame by itself. By default, consecutive frames of a flow can leave as one GSO frame.",
)
@click.option(
    "--fast-path",
    type=click.Choice(FAST_PATHS),
    default=_DEFAULTS.fast_path,
    show_default=True,
    help="Let the kernel forward frames between known stations by itself: by nf_tables (nft), or by a tcx program "
    "(bpf, for root on kernel 6.6 or later). auto: by the one that works here.",
)
@click.option(
    "--workers",
    metavar="N",
    type=int,
    default=_DEFAULTS.workers,
    show_default=True,
    help="Spread the ports over this many threads, at most one for each CPU.",
)
@click.option(
    "--fanout",
    is_flag=True,
    help="Let all workers read every port. One worker takes each IP flow; fragments go by their addresses alone.",
)
@click.option(
    "--cpu",
    metavar="N[,N...]",
    callback=_read_cpus,
    help="Run the data plane on this CPU, or each worker on its own CPU.  [default: any]",
)
@click.option(
    "--metrics",
    metavar="[ADDR:]PORT|unix:PATH",
    help="Serve metrics for Prometheus there, on 127.0.0.1 if no address is given. Takes the extra `metrics`.",
)
@click.pass_context
def run(
    context: click.RichContext,
    /,
    config: str | None,
    state: str | None,
    take_over: bool,
    as_json: bool,
    interval: float | None,
    metrics: str | None,
    scenario: Scenario | None,
    **options: Any,
) -> None:
    """Forward frames between interfaces until Ctrl-C or SIGTERM.

    The interfaces must be Ethernet, up, and in the current network namespace. One that is deleted and
    made again is a port again. While they are ports, the host's own network stack neither hears nor
    speaks on them; its settings do not change.
    The running switch keeps no capability and cannot start other programs; a small helper process
    opens the ports that join later.
    """
    _check_together(config, **options)
    wishes = Wishes.of(context, config)
    wanted = wishes.read()
    endpoint = _open_endpoint(context, metrics, take_over) if metrics else None
    from fastbridge.switch.config_apply import Configured
    from fastbridge.switch.helper import Helper
    from fastbridge.switch.live import Switch

    logging.getLogger("fastbridge.switch.player").setLevel(logging.INFO)  # who has it play wants to see what happens
    ERRORS.hold(True)
    notifier = Notifier()
    signals = _Signals(reloads=config is not None)
    switch = Switch(wanted.ports, **wanted.options(), shield=True, take_over=take_over, control=wanted.name or True)
    if endpoint:
        endpoint.move_in()  # while it may
    configured = Configured(switch, wanted, wishes.read if config else None)
    if state is not None:
        switch.state = _take_back(switch, state)
    if scenario is not None:
        try:
            switch.play(scenario)
        except BaseException:
            switch.stop()
            raise
    helper = Helper(switch)
    give_up(keep=(CAP_NET_ADMIN,) if switch.unshielded else ())  # to put settings of interfaces back
    refuse_calls()
    ERRORS.hold(False)
    report = _JsonReport() if as_json else _TextReport()
    with helper, _Silence(switch) as silence, switch:
        if endpoint:
            endpoint.start(switch)
        names = [port.name for port in switch.ports]
        report.ready(names, wanted.match, switch.fast_path, switch.name, endpoint.url if endpoint else None)
        service = Service(notifier, switch)
        try:
            _follow(switch, report, helper, silence, interval, signals, configured, service)
        finally:  # also when nobody reads its output, or its helper has ended
            service.stopping()
            if endpoint:
                endpoint.close()  # before the ports: who takes over waits for these
            _keep(switch)
    report.stopped(switch.counters())
    report.close()
    if not signals.stop:
        raise PortError("all interfaces are gone: nothing is left to forward between")


def _take_back(switch: Switch, path: str) -> StateFile:
    """The state's file, and in the switch what it had."""
    from fastbridge.switch.state import StateFile

    state = StateFile(path)
    try:
        _log.warning("%s", state.take_back(switch))
    except FastbridgeError as error:
        _log.error("%s", error)
    return state


def _keep(switch: Switch) -> None:
    """Write its state, if it keeps one."""
    try:
        if switch.state is not None:
            switch.save_state()
    except FastbridgeError as error:
        _log.error("%s", error)


def _check_together(
    config: str | None,
    interfaces: Sequence[str],
    match: Sequence[str],
    arp_ports: Mapping[str, str],
    workers: int,
    fanout: bool,
    **_: Any,
) -> None:
    """Raise UsageError for options that contradict each other. What a file says is checked with it."""
    if config is not None:
        return
    if fanout and workers == 1:
        raise click.UsageError("--fanout lets several workers read each port; add --workers 2 or more")
    if len(interfaces) < 2 and not match:
        raise click.UsageError(
            "a switch joins at least two interfaces: IFACE IFACE, a pattern: --match 'veth*', or a file: -c FILE"
        )
    for name in arp_ports:
        if name not in interfaces and not any(fnmatchcase(name, pattern) for pattern in match):
            raise click.UsageError(f"--arp-port names {name}, which is not among the interfaces; name one of them")


def _open_endpoint(context: click.Context, address: str, take_over: bool) -> Endpoint:
    from fastbridge.metrics.endpoint import Endpoint  # the extra may be absent

    endpoint = Endpoint(address, take_over=take_over)
    context.call_on_close(endpoint.close)
    return endpoint


class _Silence(contextlib.ExitStack):
    """Where the switch has no shield: settings of its interfaces, which are the next best."""

    def __init__(self, switch: Switch) -> None:
        super().__init__()
        self._needed = bool(switch.unshielded)
        self._silent: list[tuple[set[str], contextlib.ExitStack]] = []
        if self._needed:
            _log.warning(
                "nf_tables is not available (%s): interface settings keep the host silent instead, but it hears the "
                "pods",
                switch.unshielded,
            )
            self.callback(self.follow, ())
            self.follow([port.name for port in switch.ports])

    def follow(self, names: Collection[str]) -> None:
        """These are the ports now."""
        if not self._needed:
            return
        from fastbridge.lab.silence import silence  # pyroute2 is slow to import

        fresh = set(names)
        for some, undo in list(self._silent):
            fresh -= some
            some &= set(names)
            if not some:
                undo.close()
        self._silent = [(some, undo) for some, undo in self._silent if some]
        if fresh:
            undo = contextlib.ExitStack()
            undo.enter_context(silence(sorted(fresh)))
            self._silent.append((fresh, undo))


class _Signals:
    """Notes the signals that end a run, and, with a file to read again, SIGHUP.

    Signals ignored at the start stay ignored: SIGHUP under nohup, SIGINT in the background of a script. SIGTERM never
    is, and with a file SIGHUP is not either.
    """

    def __init__(self, reloads: bool) -> None:
        self.stop = False
        self.reload = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)
        if reloads:
            signal.signal(signal.SIGHUP, self._again)

    def _end(self, number: int, frame: object) -> None:
        self.stop = True

    def _again(self, number: int, frame: object) -> None:
        self.reload = True


class _Report:
    """The output of a run on stdout."""

    lost = "{:,} lines lost: nobody read them in time"

    def __init__(self) -> None:
        self._box = StreamBox("stdout", self.lost)

    def check(self) -> None:
        """Raise OSError when stdout cannot be written."""
        self._box.check()

    def close(self) -> None:
        """Wait for the reader, for 2 s at most. Raises OSError, ClickException."""
        read = self._box.close()
        self._box.check()
        if not read:
            raise click.ClickException("nobody reads stdout: the last lines are lost")

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        """Forwarding works; commands find the switch by this name. metrics: where they are."""

    def link(self, name: str, link: str) -> None:
        """A port joined or went up, down, or is gone."""

    def reloaded(self, changes: Sequence[str]) -> None:
        """What a configuration that was read again has changed."""

    def counters(self, counters: Counters) -> None:
        """An interval has passed."""

    def stopped(self, counters: Counters) -> None:
        """Forwarding has ended."""


class _JsonReport(_Report):
    lost = '{{"event": "lost", "lines": {}}}'

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        found = {"metrics": metrics} if metrics else {}
        self._say("ready", ports=list(names), fast_path=fast_path, name=name, **found)

    def link(self, name: str, link: str) -> None:
        self._say("port", name=name, link=link)

    def reloaded(self, changes: Sequence[str]) -> None:
        self._say("reloaded", changes=list(changes))

    def counters(self, counters: Counters) -> None:
        self._say("counters", counters=counters.as_dict())

    def stopped(self, counters: Counters) -> None:
        self._say("stopped", counters=counters.as_dict())

    def _say(self, event: str, **fields: Any) -> None:
        self._box.put(json.dumps({"event": event, **fields}), always=event == "stopped")


class _TextReport(_Report):
    """For people. Changes of links are in the log, on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._before: Counters | None = None
        self._since = time.monotonic()

    def ready(self, names: Sequence[str], match: Sequence[str], fast_path: str, name: str, metrics: str | None) -> None:
        by_hand = sys.stdin.isatty() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        how = "Ctrl-C ends it" if by_hand else "SIGTERM ends it"
        between = [*names, *(f"all that match {pattern}" for pattern in match)]
        self._box.put(f"forwarding between {', '.join(between)}; {how}")
        if metrics:
            self._box.put(f"metrics at {metrics}")

    def reloaded(self, changes: Sequence[str]) -> None:
        self._box.put(f"read again: {', '.join(changes) or 'nothing differs'}")

    def counters(self, counters: Counters) -> None:
        now = time.monotonic()
        total, before = counters.total, self._before.total if self._before else type(counters.total)()
        seconds = now - self._since
        self._before, self._since = counters, now
        lost = sum(total.dropped.values()) + sum(total.tx_dropped.values()) + total.rx_missed
        lost -= sum(before.dropped.values()) + sum(before.tx_dropped.values()) + before.rx_missed
        self._box.put(
            f"{time.strftime('%H:%M:%S')}  "
            f"received {(total.rx_frames - before.rx_frames) / seconds:>11,.0f} frames/s"
            f" {(total.rx_bytes - before.rx_bytes) * 8e-6 / seconds:>10,.1f} Mb/s"
            f"   flooded {(total.flooded - before.flooded) / seconds:,.0f}/s   lost {lost / seconds:,.0f}/s"
        )

    def stopped(self, counters: Counters) -> None:
        from fastbridge.cli.counter_table import counter_table  # --json needs no tables
        from fastbridge.console import make_console

        console = make_console()
        with console.capture() as captured:
            console.print()
            console.print(counter_table(counters))
            console.print(counters.story)
        self._box.put(captured.get().removesuffix("\n"), always=True)


def _follow(
    switch: Switch,
    report: _Report,
    helper: Helper,
    silence: _Silence,
    interval: float | None,
    signals: _Signals,
    configured: Configured,
    service: Service,
) -> None:
    """Report changes of links, and counters every `interval`, until a signal comes or all interfaces are gone."""
    links = {port.name: "up" for port in switch.ports}
    due = time.monotonic() + interval if interval else float("inf")
    service.ready()
    while not signals.stop and (configured.config.match or set(links.values()) != {"gone"}):
        report.check()
        helper.check()
        if signals.reload:
            signals.reload = False
            service.reloading()
            _reload(configured, report)
            service.ready()
        with switch.still():  # a port that is on its way out looks blocked
            before, links = links, {port.name: port.state for port in switch.ports}
        for name, link in {**dict.fromkeys(before, "gone"), **links}.items():
            if link != before.get(name):
                report.link(name, link)
        if links != before:
            service.changed()
            silence.follow([name for name, link in links.items() if link != "gone"])
        if time.monotonic() >= due:
            report.counters(switch.counters())
            due += interval or 0
        time.sleep(max(0.0, min(_LOOK_SECONDS, due - time.monotonic())))


def _reload(configured: Configured, report: _Report) -> None:
    try:
        changes = configured.reload()
    except FastbridgeError as error:
        _log.error("%s; the switch goes on as it is", error)
    else:
        report.reloaded(changes)
