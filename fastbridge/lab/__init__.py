"""Labs: pods in network namespaces.

- topology: the plan, and Lab, which realises it; pods: what a pod can do; ping
- plans: pods, interfaces and routes as data; plan_checks; tables: as TOML and dicts; generators: of any size
- stack: a pod's addresses, forwarding and routes
- namespaces, namespace_helper: network namespaces, and the process that makes and holds them
- calls, call_runner: Python functions in pods; listening: who listens there; uplink: a way out; trials: all ping
- links: interfaces, by pyroute2; link_counters: their counters; silence: keeps the host off them without nf_tables
- persistent: pods that stay; visits: to them; graph: a plan as a drawing
"""
