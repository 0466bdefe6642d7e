"""The switch.

- live: Switch and its life; memory: MemorySwitch; base: their common part; options: their options
- fdb, counters, trace, port_flags: the views for users; loops: moving stations, and loops
- capture: frames and their fates; recorder, file_capture: as a file; capture_verbs: for clients; mirror: to a port;
  watchers: all that watch
- verbs, rows: what a running switch can be asked, and its answers; status: on one page; load, vitals: how busy it is
- monitoring: what happens, as events; explain: what would become of a frame
- config: a switch as a file; config_apply: a file upon a running one; state: what a restart takes back
- matching: interfaces that come and go; take_over: from another process; helper: who has the rights
- port_socket, ring_size: open a port's sockets; port_links: the interfaces that are ports; socket_port: ports that are
  Python objects
- shield, nftables: keep the host out of the ports
- fast_path: forwarding by the kernel
"""
