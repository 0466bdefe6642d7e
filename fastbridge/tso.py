"""TCP segmentation offload of an interface, read.

An interface with this offload takes GSO frames. It cuts them up, or hands them on whole. The values are those of
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
    """Whether the offload is on at an interface in the socket's namespace. Any socket will do.

    Raises OSError: there is no such interface, or its driver does not know the offload.
    """
    value = array.array("I", (_ETHTOOL_GTSO, 0))  # struct ethtool_value
    request = struct.pack("16sP16x", os.fsencode(name), value.buffer_info()[0])
    fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return bool(value[1])
