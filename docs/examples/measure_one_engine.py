"""One method on one engine: how many 64-byte frames a second the Linux bridge forwards here."""

from fastbridge import Lab, Topology
from fastbridge.bench import ENGINES, METHODS, Layout, Tester

engine, method = ENGINES["linux-bridge"], METHODS["forwarding-rate"](sizes=(64,), seconds=0.2)
layout = Layout.of_machine()  # which CPU sends, which switches
with (
    Lab(Topology.of(2, ipv6=None)) as lab,
    engine.attach(lab, layout.switch) as running,
    Tester(lab, running, name=engine.name, layout=layout) as tester,
):
    print(f"{method.run(tester).values['frmol']:,.0f} frames/s")
