"""The shield at a port's egress: only the switch sends. What the host hears is in cli/test_run_host_live.py."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from frames import ethernet
from live import Wire

from fastbridge import Lab
from fastbridge.switch.shield import Shield, let_pass

pytestmark = pytest.mark.live


def test_only_the_switch_sends() -> None:
    with Lab(1) as lab, closing(Shield(lab.ports[0].open_socket)) as shield:
        port, wire = lab.ports[0], Wire(lab["pod1"])
        with port.open_socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock, closing(wire.socket):
            sock.bind((port.name, 0))

            def passes() -> bool:
                frame = ethernet(wire.mac, 2 << 40)
                try:
                    sock.send(frame)
                except OSError:
                    return False
                return wire.receive()[0] == frame

            assert passes()
            shield.add([(1, port.name)])
            assert not passes()
            let_pass(sock)
            assert passes()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 0)
            assert not passes()
            shield.remove(1)
            assert passes()
