"""The switch.

- live: Switch, its life; memory: MemorySwitch; base: what both have; options: theirs
- fdb, counters, trace, port_flags: what users see of it; loops: stations that move, and loops
- port_socket, ring_size: how a port's sockets are opened; port_links: which interfaces are ports
- shield, nftables: the host kept out of the ports
- fast_path: what the kernel forwards by itself
"""
