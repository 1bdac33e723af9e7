"""Signals as file descriptors: block, then read them with signalfd(2)."""

from __future__ import annotations

import os

from hexe.linux.files import status_field
from hexe.linux.syscalls import address_of, syscall

SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2
_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_SIGINFO_SIZE = 128


def _mask(numbers: tuple[int, ...]) -> bytearray:
    bits = 0
    for number in numbers:
        bits |= 1 << (number - 1)
    return bytearray(bits.to_bytes(8, "little"))


def block(numbers: tuple[int, ...]) -> bytes:
    """Block the signals in this thread and return the mask that was in force before (8 bytes)."""
    new, old = _mask(numbers), bytearray(8)
    syscall("rt_sigprocmask", SIG_BLOCK, address_of(new), address_of(old), 8)
    return bytes(old)


def unblock(numbers: tuple[int, ...]) -> None:
    """Let the blocked signals through again: one that waits is delivered at once."""
    mask = _mask(numbers)
    syscall("rt_sigprocmask", SIG_UNBLOCK, address_of(mask), 0, 8)


def set_mask(mask: bytes) -> None:
    """Put back a mask that ``block`` returned."""
    new = bytearray(mask)
    syscall("rt_sigprocmask", SIG_SETMASK, address_of(new), 0, 8)


def open_signalfd(numbers: tuple[int, ...]) -> int:
    """A non-blocking, close-on-exec descriptor that reads the (blocked) signals. Raises OSError."""
    mask = _mask(numbers)
    return syscall("signalfd4", -1, address_of(mask), 8, _SFD_NONBLOCK | _SFD_CLOEXEC)


def read_signals(fd: int) -> tuple[int, ...]:
    """The numbers of the signals that wait at the descriptor: none when it is empty."""
    try:
        data = os.read(fd, _SIGINFO_SIZE * 16)
    except BlockingIOError:
        return ()
    return tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), _SIGINFO_SIZE))


def ignored_signals() -> frozenset[int]:
    """The signals that this process was started with ignored (nohup ignores SIGHUP). From /proc/self/status."""
    bits = int(status_field(b"SigIgn") or b"0", 16)
    return frozenset(number for number in range(1, 65) if bits >> (number - 1) & 1) if bits else frozenset()
