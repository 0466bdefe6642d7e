"""A protocol over a bad link, in virtual time: hours pass at once, and a seed gives the same run every time."""

from fastbridge import Arrival, Link, MemorySwitch

ALICE, BOB, TYPE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), bytes.fromhex("88b5")
TIMEOUT, MESSAGES = 0.25, 200


def stop_and_wait(seed: int) -> list[Arrival]:
    """Alice sends a message until Bob's acknowledgement comes, then the next one. All that arrives, and when."""
    switch = MemorySwitch(["alice", "bob"], clock=None)
    switch.set_link("alice", Link(delay="20ms", jitter="5ms", loss="10%", duplicate="1%", seed=seed))
    heard: list[Arrival] = []
    acknowledged = 0
    while acknowledged < MESSAGES:
        switch.process("alice", [BOB + ALICE + TYPE + bytes([acknowledged])])
        waited = 0.0
        expected = acknowledged + 1
        while acknowledged < expected and waited < TIMEOUT:
            due = switch.next_due
            step = TIMEOUT - waited if due is None else min(due, TIMEOUT - waited)
            waited += step
            for arrival in switch.advance(step):
                heard.append(arrival)
                number = arrival.frame[14]
                if switch.ports[arrival.port].name == "bob":
                    switch.process("bob", [ALICE + BOB + TYPE + bytes([number])])
                elif number == acknowledged:
                    acknowledged += 1
    return heard


run = stop_and_wait(seed=7)
messages = sum(arrival.port == 1 for arrival in run)
print(f"{MESSAGES} messages in {run[-1].time:.3f} s: {messages} arrived, with the repeated ones")
print("the same again:", run == stop_and_wait(seed=7), "and with another seed:", run == stop_and_wait(seed=8))
