"""A pair of connected sockets that carry packets, and a descriptor with one of them (unix(7), cmsg(3)).

Sending and receiving without a descriptor are write(2) and read(2). The module
``_socket`` would do all of this too; setting it up takes 0.2 ms.
"""

from __future__ import annotations

import os

from hexe.linux.constants import LONGEST_PACKET
from hexe.linux.syscalls import address_of, syscall

_AF_UNIX, _SOCK_SEQPACKET, _SOCK_CLOEXEC = 1, 5, 0o2000000
_SOL_SOCKET, _SCM_RIGHTS, _MSG_CMSG_CLOEXEC = 1, 1, 0x40000000
_CMSG_LEN, _CMSG_SPACE = 20, 24  # of one descriptor: a header of 16 bytes, 4 of data, padded to 8


def packet_pair() -> tuple[int, int]:
    """Two connected, close-on-exec SOCK_SEQPACKET descriptors. Raises OSError."""
    pair = bytearray(8)
    syscall("socketpair", _AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0, address_of(pair))
    return int.from_bytes(pair[:4], "little"), int.from_bytes(pair[4:], "little")


def send(fd: int, packet: bytes) -> None:
    """Send one packet. Raises BrokenPipeError when the other side is closed."""
    os.write(fd, packet)


def receive(fd: int) -> bytes:
    """One packet; empty when the other side is closed."""
    while True:
        try:
            return os.read(fd, LONGEST_PACKET)
        except ConnectionResetError:
            # Said once when the other side closed with packets of ours unread; what it sent before comes after this.
            continue


def send_descriptor(fd: int, packet: bytes, descriptor: int) -> None:
    """Send one packet together with a copy of a descriptor. Raises OSError."""
    control = bytearray(_CMSG_SPACE)
    control[0:8] = _CMSG_LEN.to_bytes(8, "little")
    control[8:12] = _SOL_SOCKET.to_bytes(4, "little")
    control[12:16] = _SCM_RIGHTS.to_bytes(4, "little")
    control[16:20] = descriptor.to_bytes(4, "little")
    data = bytearray(packet)
    vector, header = _message(data, control)
    syscall("sendmsg", fd, address_of(header), 0)
    del vector  # the kernel read through its address until here


def receive_descriptor(fd: int) -> tuple[bytes, int]:
    """One packet and the close-on-exec descriptor that came with it, -1 when none did."""
    data, control = bytearray(LONGEST_PACKET), bytearray(_CMSG_SPACE)
    vector, header = _message(data, control)
    while True:
        try:
            length = syscall("recvmsg", fd, address_of(header), _MSG_CMSG_CLOEXEC)
            break
        except ConnectionResetError:
            continue
    del vector
    came = int.from_bytes(header[40:48], "little") >= _CMSG_LEN
    return bytes(data[:length]), int.from_bytes(control[16:20], "little") if came else -1


def _message(data: bytearray, control: bytearray) -> tuple[bytearray, bytearray]:
    """A struct iovec and a struct msghdr around it (recvmsg(2)); both must live until the call is made."""
    vector = bytearray(address_of(data).to_bytes(8, "little") + len(data).to_bytes(8, "little"))
    header = bytearray(56)
    header[16:24] = address_of(vector).to_bytes(8, "little")
    header[24:32] = (1).to_bytes(8, "little")
    header[32:40] = address_of(control).to_bytes(8, "little")
    header[40:48] = len(control).to_bytes(8, "little")
    return vector, header
