"""Labs: pods in network namespaces.

- topology: the plan, and Lab, which realises it; pods: what a pod can do; ping
- namespaces, namespace_helper: network namespaces, and the process that makes and holds them
- links: interfaces, by pyroute2; link_counters: their counters; silence: keeps the host off them without nf_tables
- persistent: pods that stay
"""
