"""A switch without interfaces: frames in, frames out, on the same core. For tests of protocols and tools."""

from fastbridge import MemorySwitch

switch = MemorySwitch(ports=4)
frame = bytes.fromhex("ffffffffffff 020000000001 88b5").ljust(60, b"\0")
for egress in switch.process(ingress=0, frames=[frame]):
    print(f"leaves by port {egress.port}: {len(egress.frame)} bytes")
print(switch.fdb.lookup("02:00:00:00:00:01"))
