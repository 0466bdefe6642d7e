"""A switch with the bpf hand, as a program.

It says on stdout what `fastbridge run --json` says, and takes its option --capacity; SIGTERM ends it.

    python -m fastbridge.bench.engines.bpf_switch --capacity 65536 IFACE IFACE…
"""

from __future__ import annotations

import argparse
import json
import signal

from fastbridge.switch.live import Switch


def main() -> None:
    """Forward until SIGTERM."""
    parser = argparse.ArgumentParser(description="Forward frames with the bpf hand until SIGTERM.")
    parser.add_argument("--capacity", type=int, default=65536, help="addresses to learn at most")
    parser.add_argument("interfaces", nargs="+")
    chosen = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    switch = Switch(chosen.interfaces, capacity=chosen.capacity, busy_poll=50e-6, shield=True, fast_path="bpf")
    with switch:
        lane = switch._lane
        if lane is None or lane.hand.name != "bpf":
            parser.exit(1, f"no bpf hand: {'no nf_tables' if lane is None else lane.without}\n")
        print(json.dumps({"event": "ready", "ports": chosen.interfaces}), flush=True)
        signal.sigwait([signal.SIGTERM])
    print(json.dumps({"event": "stopped", "counters": switch.counters().as_dict()}), flush=True)


if __name__ == "__main__":
    main()
