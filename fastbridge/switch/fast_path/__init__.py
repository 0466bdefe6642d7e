"""The fast path.

The kernel repeats the core's decisions for pairs of stations that the core has promoted; everything else comes to the
core. `head` promotes and revokes, and knows no kernel; a `hand` does what it says: `nft` by an nf_tables table, `bpf`
by a program before it (bpf_program, bpf_syscall; peers). `punts` are the veth pairs to the core, `inside` the namespace
their ends are in; `lane` is all of that for one switch, and `ports` is the switch's side of it.
"""
