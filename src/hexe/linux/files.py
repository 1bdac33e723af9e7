"""Reading small files of /proc and /sys with three system calls: ``open`` builds two buffers and a decoder first."""

from __future__ import annotations

import os


def read_bytes(path: str) -> bytes:
    """The whole of a file. Raises OSError with the path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def status_field(name: bytes) -> bytes:
    """The value of a line of /proc/self/status, such as ``CapEff``; empty when the kernel has no such line."""
    status = read_bytes("/proc/self/status")
    at = status.find(b"\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 2
    return status[start : status.index(b"\n", start)].strip()
