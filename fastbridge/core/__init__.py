"""The Cython core: imports nothing else of fastbridge.

A frame's path: breathe (one breath of a worker) calls receive (ring, slots), decide (forward, ethernet, batch), then
transmit (coalesce, cut, checksum).

- dataplane: workers, ports, links, counters; worker, worker_memory, port, bucket: what they hold
- mac_table, mac_growth, fdb_changes: the table; fdb: the FDB's face to Python
- port_rules, source_guard, punting (punt), packet_out, events, tapping (tap, watch), filters (filter), nominations
  (candidates), memory_ports: small classes over the data plane, each for one caller in Python
- foresight: what would become of a frame, by the same functions on copies; queues: what waits
- codes: every reason, flag, link state and event, by name; linux, af_packet: what comes from the kernel's headers
- barrier: atomics; tester: the bench's senders and receivers
"""

from importlib.util import find_spec
from pathlib import Path

if find_spec(".dataplane", __name__) is None:  # a clone, or an unpacked sdist
    _root = Path(__file__).resolve().parents[2]
    raise ImportError(f"the Cython core is not built in {_root}: run `pip install -e .` there", name=__name__)
