"""The fast path.

The kernel repeats the core's decisions for pairs of stations that the core has promoted; everything else comes to the
core.

- head: promotes and revokes, and knows no kernel
- hand: what carries that out. nft: an nf_tables table; bpf: a program before it (bpf_program, bpf_syscall, peers)
- hands: chooses one by the canary, two frames that try it
- punts: the veth pairs to the core; inside: the namespace that their ends are in
- lane: all of that for one switch; ports: what the switch's life knows of it
"""
