"""A switch in your own program, which answers at its control socket: here, and to `fastbridge fdb show`."""

from fastbridge import Client, Lab, Switch

with Lab(pods=2) as lab, Switch(lab.ports, control="blue") as switch:
    lab["pod1"].ping("pod2")
    with Client("blue") as client:
        for entry in client.call("fdb.show"):
            print(entry["mac"], entry["ifname"])
        client.call("port.set", port="pod1", flags={"isolated": True})
    print(switch.status().name, switch.flags("pod1"))
