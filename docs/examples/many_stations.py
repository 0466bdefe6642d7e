"""The FDB as numpy arrays: a hundred thousand stations learned, looked up and counted at once."""

import numpy as np

from fastbridge import Switch

switch = Switch.in_memory(ports=8, capacity=200_000)
macs = np.arange(100_000, dtype=np.uint64) + 0x02_00_00_00_00_00
ports = (np.arange(100_000) % 8).astype(np.uint16)
print("learned", switch.fdb.learn_many(macs, ports))
print("found", int((switch.fdb.lookup_many(macs) == ports).sum()))
print("a row:", switch.fdb.to_numpy()[0])
