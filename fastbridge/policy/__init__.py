"""Policies: what becomes of ARP and ND.

- base: what a policy is, and its verdicts; builtin: the ready-made ones; runner: the thread that asks them
- neighbours, neighbour_entry: who is where by IP
- bindings: what guarded ports may send; doubts: when a binding is doubted, and ends
"""
