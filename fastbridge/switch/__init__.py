"""The switch.

- live: Switch and its life; memory: MemorySwitch; base: their common part; options: their options
- fdb, counters, trace, port_flags: the views for users; loops: moving stations, and loops
- verbs, rows: what a running switch can be asked, and its answers; status: on one page
- port_socket, ring_size: open a port's sockets; port_links: the interfaces that are ports
- shield, nftables: keep the host out of the ports
- fast_path: forwarding by the kernel
"""
