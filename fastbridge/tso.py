"""TCP segmentation offload of an interface, read.

An interface that has it takes GSO frames: it cuts them up, or hands them on as they are. Values are from
<linux/sockios.h> and <linux/ethtool.h>.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

_SIOCETHTOOL, _ETHTOOL_GTSO = 0x8946, 0x1E


def has_tso(sock: socket.socket, name: str) -> bool:
    """Whether the offload is on at an interface of the socket's namespace (any socket will do).

    Raises OSError: there is no such interface, or its driver knows nothing of it.
    """
    value = array.array("I", (_ETHTOOL_GTSO, 0))  # struct ethtool_value
    request = struct.pack("16sP16x", os.fsencode(name), value.buffer_info()[0])
    fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return bool(value[1])
