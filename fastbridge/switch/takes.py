"""What may leave by a port: the frames that its pod takes, in a queue that suits it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from fastbridge.core.port_rules import PortRules

from .member import Member
from .opening import Opener

_AT_A_TIME = 500  # pods that are asked: some 2 ms


class Takes:
    """The frames that each port of a switch takes, as its pod and its queue are now."""

    def __init__(self, members: Mapping[int, Member], rules: PortRules, opener: Opener) -> None:
        """members: by index; ports come and go in it."""
        self._members, self._rules, self._opener = members, rules, opener
        self._asked = 0

    def ask_pods(self) -> None:
        """Ask the pods whether they take merged frames. Of many pods some are asked at a time, all in turn."""
        members = [(index, member) for index, member in list(self._members.items()) if member.ask_pod]
        first = self._asked % max(1, len(members))
        turn = (members[first:] + members[:first])[:_AT_A_TIME]
        self._asked = first + len(turn)
        for index, member in turn:
            if member.ask_pod is not None:
                member.takes_merged = member.ask_pod()
                self.suit(index, member)

    def suit(self, index: int, member: Member) -> None:
        """Send single frames, and few at a time, into a queue that shapes: it counts frames, and pings wait in it.

        A pod that takes no merged frames still gets another pod's own frames of 64 KB, as over a bridge.
        """
        if member.socket_port:
            return
        shaped = member.link is not None and member.link.shaped
        takes = "single" if shaped else "all" if member.takes_merged else "unmerged"
        if takes == member.takes:
            return
        with contextlib.suppress(IndexError):  # removed meanwhile
            self._rules.set_takes(index, takes)
        with contextlib.suppress(OSError):  # closed meanwhile
            self._opener.set_send_buffer(member.sockets[-1], shaped)
        member.takes = takes
