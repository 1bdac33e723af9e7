"""Terminals: raw mode, sizes, who is in the foreground."""

from __future__ import annotations

import fcntl
import os

from hexe.linux import constants as c

_TERMIOS_SIZE = 36  # the kernel's struct termios: four flag words, the line discipline, 19 control characters

# From termios(3), cfmakeraw: the input, output and local flags that raw mode clears, and CSIZE/PARENB.
_RAW_INPUT = 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000
_RAW_OUTPUT = 0o1
_RAW_LOCAL = 0o1 | 0o2 | 0o10 | 0o100 | 0o100000
_RAW_CONTROL, _CS8 = 0o60 | 0o400, 0o60
_VTIME, _VMIN = 5, 6


def get_modes(fd: int) -> bytes:
    """The terminal's modes as the kernel's structure. Raises OSError when it is no terminal."""
    return fcntl.ioctl(fd, c.TCGETS, bytes(_TERMIOS_SIZE))


def set_modes(fd: int, modes: bytes) -> None:
    """Give a terminal the modes that ``get_modes`` returned, at once."""
    fcntl.ioctl(fd, c.TCSETS, modes)


def raw_modes(modes: bytes) -> bytes:
    """The same modes made raw: every byte passes as it is. Pure."""
    words = [int.from_bytes(modes[at : at + 4], "little") for at in (0, 4, 8, 12)]
    words[0] &= ~(_RAW_INPUT)
    words[1] &= ~_RAW_OUTPUT
    words[2] = words[2] & ~_RAW_CONTROL | _CS8
    words[3] &= ~_RAW_LOCAL
    tail = bytearray(modes[16:])
    tail[1 + _VTIME], tail[1 + _VMIN] = 0, 1
    return b"".join(word.to_bytes(4, "little") for word in words) + bytes(tail)


def copy_size(source: int, target: int) -> None:
    """Give ``target`` the window size of ``source``; the kernel sends SIGWINCH to its foreground group."""
    fcntl.ioctl(target, c.TIOCSWINSZ, fcntl.ioctl(source, c.TIOCGWINSZ, bytes(8)))


def in_foreground(fd: int) -> bool:
    """Whether this process's group is the terminal's foreground group; True for a terminal of another session."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True
