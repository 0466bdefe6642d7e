"""Policies decide what happens to ARP and ND frames.

- base: a policy and its verdicts; builtin: the ready-made ones, such as Suppress, which answers ARP
- runner: the thread that asks them
- neighbours, neighbour_entry: which MAC and port an IP is at
- bindings: the sources that guarded ports may use; doubts: when a binding is doubted, and ends
"""
