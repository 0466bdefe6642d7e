"""`fastbridge run`, one switch or several.

Forwards between interfaces of the current network namespace until SIGTERM, SIGINT or SIGHUP. With --json stdout holds
only JSON lines: the first has the event "ready", the last "stopped". Nothing here waits for their reader (streams.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import rich_click as click

from fastbridge.errors import FastbridgeError, PortError
from fastbridge.privileges import CAP_NET_ADMIN, CAP_SYS_NICE, give_up, refuse_calls
from fastbridge.real_time import may_be_real_time
from fastbridge.sd_notify import Notifier
from fastbridge.switch.options import FAST_PATHS, LiveOptions

from .options import complete_lab, link_option, read_policy_of_strangers, read_port_policies, scenario_option
from .reports import Reports
from .running import Running, Signals, Silence, follow
from .service import Service
from .streams import ERRORS
from .wishes import Wishes

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from fastbridge.lab.persistent import StoredLab
    from fastbridge.links.scenario import Scenario
    from fastbridge.metrics.endpoint import Endpoint
    from fastbridge.switch.config import Config
    from fastbridge.switch.live import Switch
    from fastbridge.switch.several import Switches
    from fastbridge.switch.state import StateFile

_DEFAULTS = LiveOptions()


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


def _read_switches(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, list[str]]:
    """Read each NAME=IFACE,IFACE. The names and the interfaces are checked with what a file says."""
    switches: dict[str, list[str]] = {}
    for text in texts:
        name, equals, ports = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{text!r} is not NAME=IFACE,IFACE, such as s1=veth1,veth2")
        if name in switches:
            raise click.BadParameter(f"{name} is named twice; name each switch once, with all its interfaces")
        switches[name] = ports.split(",") if ports else []
    return switches


def _read_lab(context: click.Context, parameter: click.Parameter, name: str | None) -> StoredLab | None:
    if name is None:
        return None
    from fastbridge.lab.persistent import get  # pyroute2 is slow to import

    return get(name)


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
@click.option(
    "--switch",
    "switches",
    metavar="NAME=IFACE,IFACE...",
    multiple=True,
    callback=_read_switches,
    help="A switch of this name between these interfaces, in place of IFACE. Repeatable: all run in this process. "
    "Commands find each by its name; `port add` gives it more ports.",
)
@click.option(
    "--lab",
    metavar="NAME",
    callback=_read_lab,
    shell_complete=complete_lab,
    help="Join the lab that `fastbridge lab up` has made: all its switches, with its links, in place of IFACE.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout: ready, port events, stopped.")
@click.option(
    "--name",
    help="The name by which `fastbridge status` and the like find this switch.  [default: run- and the process id]",
)
@click.option(
    "--until-eof",
    is_flag=True,
    help="End when stdin ends, as it does when the program that holds its other end ends, even by SIGKILL.",
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
    "--real-time",
    is_flag=True,
    help="Let the data plane run before all ordinary programs, so that busy pods do not delay it (SCHED_RR).",
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
    until_eof: bool,
    as_json: bool,
    interval: float | None,
    metrics: str | None,
    scenario: Scenario | None,
    **options: Any,
) -> None:
    """Forward frames between interfaces until Ctrl-C or SIGTERM.

    The interfaces must be Ethernet, up, and in the current network namespace. One that is deleted and
    made again is a port again; with several switches, `port add` makes it one. While they are ports, the
    host's own network stack neither hears nor speaks on them; its settings do not change.
    The running switch keeps no capability and cannot start other programs; a small helper process
    opens the ports that join later.
    """
    _check_together(config, **options)
    wishes = Wishes.of(context, config)
    wanted = wishes.read()
    if wanted.switch:
        _check_several({"--state": state, "--take-over": take_over, "--scenario": scenario, "--metrics": metrics})
    endpoint = _open_endpoint(context, metrics, take_over) if metrics else None
    from fastbridge.switch.helper import Helper

    logging.getLogger("fastbridge.switch.player").setLevel(logging.INFO)  # who has it play wants to see what happens
    ERRORS.hold(True)
    notifier = Notifier()
    signals = Signals(reloads=config is not None, until_eof=until_eof)
    reports = Reports(as_json)
    opened = _open_several(wanted) if wanted.switch else _open_one(wanted, take_over)
    switches = list(opened.values()) if isinstance(opened, Mapping) else [opened]
    if endpoint:
        endpoint.move_in()  # while it may
    read = partial(wishes.read_each, list(wanted.switch))
    running = _configure(switches, wanted, read if config else None, reports)
    if state is not None:
        switches[0].state = _take_back(switches[0], state)
    if scenario is not None:
        try:
            switches[0].play(scenario)
        except BaseException:
            opened.stop()
            raise
    helper = Helper(switches)
    unshielded = next((switch.unshielded for switch in switches if switch.unshielded), "")
    give_up(_kept(switches))
    refuse_calls()
    ERRORS.hold(False)
    with helper, Silence(unshielded, [port.name for each in switches for port in each.ports]) as silence, opened:
        if endpoint:
            endpoint.start(switches[0])
        for one in running:
            one.ready(endpoint.url if endpoint else None)
        service = Service(notifier, switches)
        try:
            follow(running, reports, helper, silence, interval, signals, service, read)
        finally:  # also when nobody reads its output, or its helper has ended
            service.stopping()
            if endpoint:
                endpoint.close()  # before the ports: who takes over waits for these
            _keep(switches[0])
    for one in running:
        one.report.stopped(one.switch.counters())
    reports.close()
    if not signals.stop:
        raise PortError("all interfaces are gone: nothing is left to forward between")


def _open_one(wanted: Config, take_over: bool) -> Switch:
    from fastbridge.switch.live import Switch

    return Switch(wanted.ports, **wanted.options(), shield=True, take_over=take_over, control=wanted.name or True)


def _open_several(wanted: Config) -> Switches:
    from fastbridge.switch.several import Switches

    ports = {name: switch.ports for name, switch in wanted.switch.items()}
    # match: each would hear of every interface of every other one.
    return Switches(ports, **{**wanted.options(), "match": None}, shield=True, control=True)


def _configure(
    switches: Sequence[Switch], wanted: Config, read: Callable[[], Sequence[Config]] | None, reports: Reports
) -> list[Running]:
    """Apply what the configuration says of each switch. read: gives each one's configuration as it is by then."""
    from fastbridge.switch.config_apply import Configured

    def again(place: int) -> Callable[[], Config] | None:
        return (lambda: read()[place]) if read else None

    configs = list(wanted.apart().values()) or [wanted]
    return [
        Running(switch, reports.of(switch.name if wanted.switch else ""), Configured(switch, config, again(place)))
        for place, (switch, config) in enumerate(zip(switches, configs, strict=True))
    ]


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
    switches: Mapping[str, Sequence[str]],
    lab: StoredLab | None,
    name: str | None,
    workers: int,
    fanout: bool,
    **_: Any,
) -> None:
    """Raise UsageError for options that contradict each other. What a file says is checked with it."""
    if lab and (config or interfaces or match or switches or name):
        raise click.UsageError("--lab brings its switches; leave out -c, --name, --match, --switch and IFACE")
    if config is not None:
        return
    if fanout and workers == 1:
        raise click.UsageError("--fanout lets several workers read each port; add --workers 2 or more")
    if switches and (interfaces or match or name):
        raise click.UsageError("--switch names switches and their interfaces; leave out --name, --match and IFACE")
    if len(interfaces) < 2 and not match and not switches and not lab:
        raise click.UsageError(
            "a switch joins at least two interfaces: IFACE IFACE, a pattern: --match 'veth*', or a file: -c FILE"
        )
    named = {*interfaces, *(lab.ports if lab else ()), *(port for ports in switches.values() for port in ports)}
    for port in arp_ports:
        if port not in named and not any(fnmatchcase(port, pattern) for pattern in match):
            raise click.UsageError(f"--arp-port names {port}, which is not among the interfaces; name one of them")


def _check_several(given: Mapping[str, object]) -> None:
    """Raise UsageError for an option that only a run of one switch has."""
    for option, value in given.items():
        if value:
            raise click.UsageError(f"{option} is for a run of one switch; leave it out, or run each switch by itself")


def _open_endpoint(context: click.Context, address: str, take_over: bool) -> Endpoint:
    from fastbridge.metrics.endpoint import Endpoint  # the extra may be absent

    endpoint = Endpoint(address, take_over=take_over)
    context.call_on_close(endpoint.close)
    return endpoint


def _kept(switches: Sequence[Switch]) -> Iterator[int]:
    """The capabilities that a process with running switches needs itself."""
    if any(switch.unshielded for switch in switches):
        yield CAP_NET_ADMIN  # to put settings of interfaces back
    if any(switch.options.real_time for switch in switches) and not may_be_real_time():
        yield CAP_SYS_NICE
