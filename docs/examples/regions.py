"""Three regions of three pods each, with a matrix of delays between them; then one region is cut off for a while."""

from fastbridge import Lab, Scenario, Switch, matrix

REGIONS = {name: [f"{name}{n}" for n in (1, 2, 3)] for name in ("eu", "us", "asia")}

# One way; the way back is the same. A ping takes the sum.
LINKS = matrix(
    REGIONS,
    {
        ("eu", "eu"): "delay=1ms",
        ("eu", "us"): "delay=40ms",
        ("eu", "asia"): "delay=90ms",
        ("us", "asia"): "delay=60ms",
    },
)

OUTAGE = Scenario.parse(
    """
    [[at]]
    time = "0s"
    partition = [["asia1", "asia2", "asia3"]]   # against all others

    [[at]]
    time = "1s"
    heal = true
    """
)

with Lab([pod for pods in REGIONS.values() for pod in pods], link=LINKS) as lab, Switch(lab.ports) as switch:
    for one, other in (("eu1", "eu2"), ("eu1", "us1"), ("eu1", "asia1"), ("us2", "asia3")):
        lab[one].ping(other)  # the first one waits for ARP, too
        took = min(lab[one].ping(other, count=3).rtts)
        print(f"{one} to {other}: {took * 1000:.1f} ms")

    outage = switch.play(OUTAGE)
    print("eu1 reaches asia1 meanwhile:", bool(lab["eu1"].ping("asia1", timeout=0.5)))
    outage.wait()
    print("eu1 reaches asia1 afterwards:", bool(lab["eu1"].ping("asia1")))
