"""The machine.

Where a measurement runs, and what else runs there.

- cpus: which CPU sends and which one switches, and the CPU time of each
- disturbance: other programs, the hypervisor and quotas, watched during a trial
- fingerprint: the machine and its software, described; likeness: whether two of them can be compared
- offloads: of an interface, read and turned off
- child: a program as a child process, watched until it ends
"""
