"""Three pods, a switch, a ping: namespaces and all are gone when the block ends. Needs no root."""

from fastbridge import Lab, Switch

with Lab(pods=3) as lab, Switch(lab.ports) as switch:
    print(lab["pod1"].ping("pod2"))
    for entry in switch.fdb:
        print(entry)
