"""User namespaces that exist only as maps, for idmapped mounts."""

from __future__ import annotations

import os

from hexe.linux.constants import CLONE_NEWUSER, SIGKILL
from hexe.linux.process import clone, write_proc
from hexe.linux.syscalls import syscall

_HIGHEST = 2**32 - 1


def swap_map(one: int, other: int) -> bytes:
    """The text of an id map over all ids that swaps two of them and leaves the rest as they are. Pure.

    >>> swap_map(0, 65534).decode().split("\\n")
    ['0 65534 1', '1 1 65533', '65534 0 1', '65535 65535 4294901760', '']
    """
    if one == other:
        return f"0 0 {_HIGHEST}\n".encode()
    low, high = min(one, other), max(one, other)
    pieces = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    pieces.append((high + 1, high + 1, _HIGHEST - high - 1))
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in pieces if count > 0).encode()


def user_namespace_for_idmap(disk_uid: int, shown_uid: int, disk_gid: int, shown_gid: int) -> int:
    """A descriptor of a user namespace that maps ids on disk to the shown ones (mount_setattr(2), ID-mapped mounts).

    Needs CAP_SETUID and CAP_SETGID of the initial namespace. Raises OSError.
    """
    reader, writer = os.pipe()
    pid = clone(CLONE_NEWUSER)
    if pid == 0:
        # Wait for the end of the pipe: the parent closes it, or dies.
        syscall("close", writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        os.close(reader)
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_proc(directory, "uid_map", swap_map(disk_uid, shown_uid))
            write_proc(directory, "gid_map", swap_map(disk_gid, shown_gid))
            return os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.close(directory)
    finally:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        os.close(writer)
