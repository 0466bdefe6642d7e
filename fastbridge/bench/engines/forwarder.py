"""A switch in plain Python, as a program.

A good program with the standard library alone: one buffer, recv_into and send, an epoll loop that empties a socket
before it asks again, a dict for the table. It passes the vnet header on (10 bytes before the frame): without it no TCP
connection works with default offloads. It has neither ageing nor VLAN tags, which would slow it down.

    python forwarder.py IFACE IFACE…      # writes "ready" to stdout, runs until it is stopped
"""

from __future__ import annotations

import select
import socket
import struct
import sys

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23  # linux/if_packet.h
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 16 << 20
VNET_HDR = 10
LARGEST = VNET_HDR + 14 + 65536 + 64
BURST = 256  # frames from one socket before the others get their turn


def open_port(name: str) -> socket.socket:
    """Open a socket that takes every frame of interface `name`, whole and with its offloads."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    try:
        port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except PermissionError:  # in a user namespace the system's maximum holds
        port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    port.setblocking(False)
    port.bind((name, ETH_P_ALL))
    return port


def forward(ports: list[socket.socket]) -> None:
    """Learn, look up, send or flood, without end."""
    table: dict[bytes, socket.socket] = {}
    by_fd = {port.fileno(): port for port in ports}
    buffer = bytearray(LARGEST)
    view = memoryview(buffer)
    addresses = struct.Struct("6s6s").unpack_from
    epoll = select.epoll()
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    while True:
        for fd, _ in epoll.poll():
            ingress = by_fd[fd]
            receive = ingress.recv_into
            for _ in range(BURST):
                try:
                    size = receive(buffer)
                except OSError:  # empty, or down for a while
                    break
                destination, source = addresses(buffer, VNET_HDR)
                table[source] = ingress
                egress = None if destination[0] & 1 else table.get(destination)
                frame = view[:size]
                if egress is None:
                    for port in ports:
                        if port is not ingress:
                            transmit(port, frame)
                elif egress is not ingress:
                    transmit(egress, frame)


def transmit(port: socket.socket, frame: memoryview) -> None:
    """Send; drop the frame if the kernel does not take it, as a switch does."""
    try:  # noqa: SIM105 - suppress() costs more than the send's own Python
        port.send(frame)
    except OSError:
        pass


if __name__ == "__main__":
    opened = [open_port(name) for name in sys.argv[1:]]
    print("ready", flush=True)
    forward(opened)
