"""One method on one engine: how many 64-byte frames a second the Linux bridge forwards here."""

from fastbridge.bench import ENGINES, METHODS, Testbed

method = METHODS["forwarding-rate"](sizes=(64,), seconds=0.2)
with Testbed(ENGINES["linux-bridge"], ports=2) as bed:
    print(f"{method.run(bed).values['frmol']:,.0f} frames/s")
