"""A policy in ten lines: who announces itself is not heard, everything else is answered by the switch."""

from fastbridge import Drop, Kind, Lab, Message, Neighbours, Policy, Suppress, Switch, Verdict


class NoGossip(Policy):
    """Drops ARP announcements; leaves all else to the next policy."""

    def decide(self, message: Message, neighbours: Neighbours) -> Verdict | None:
        """A verdict, or None for no opinion."""
        return Drop("gossip") if message.kind is Kind.ARP_ANNOUNCEMENT else None


with Lab(pods=3) as lab, Switch(lab.ports, policy=NoGossip() | Suppress()) as switch:
    lab["pod1"].ping("pod2")
    lab["pod3"].ping("pod2")  # the switch knows by now where pod2 is, and answers pod3's question
    for neighbour in switch.neighbours:
        print(neighbour)
