"""Three routers, each joined to the other two: a link is cut, and the packets take the other way.

Run it: python three_routers.py
"""

from fastbridge import Lab, Switches, Topology

PLAN = """
[switch.home]   # 10.1.0.0/16
[switch.away]   # 10.2.0.0/16
[switch.net12]  # 10.3.0.0/16, and so on
[switch.net23]
[switch.net13]

[pod.client]
interfaces = { eth0 = "home" }

[pod.server]
interfaces = { eth0 = "away" }

[pod.r1]
interfaces = { eth0 = "home", eth1 = "net12", eth2 = "net13" }
forward = true
routes = ["10.2.0.0/16 via 10.5.0.2"]  # by r3

[pod.r2]
interfaces = { eth0 = "net12", eth1 = "net23" }
forward = true
routes = ["10.1.0.0/16 via 10.3.0.1", "10.2.0.0/16 via 10.4.0.2"]

[pod.r3]
interfaces = { eth0 = "away", eth1 = "net23", eth2 = "net13" }
forward = true
routes = ["10.1.0.0/16 via 10.4.0.1"]  # by r2: the answers go around

[link]
"r1.eth2" = "delay=10ms"
"""

with Lab(Topology.parse(PLAN)) as lab, Switches(lab.switches) as switches:
    client, r1 = lab["client"], lab["r1"]
    print("the client reaches the server:", bool(client.ping("server", timeout=5)))
    switches["net13"].cut("r1-eth2")
    print("with its link cut:", bool(client.ping("server", timeout=0.5)))
    r1.run(["ip", "route", "replace", "10.2.0.0/16", "via", "10.3.0.2"])
    print("by the other router:", bool(client.ping("server", timeout=5)))
