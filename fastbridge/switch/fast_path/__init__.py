"""The fast path.

The kernel repeats the core's decisions for pairs of stations that the core has promoted; everything else comes to the
core.

- head: promotes and revokes pairs. It does not know how the kernel does it.
- hand: the interface to the kernel. nft: by an nf_tables table; bpf: by a program before that table (bpf_program,
  bpf_syscall, peers)
- hands: chooses a hand. The canary tries it with two frames.
- punts: the veth pairs to the core; inside: the namespace of the core's ends
- lane: the fast path of one switch; ports: the part that live.py uses
"""
