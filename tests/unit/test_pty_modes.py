"""Raw mode, computed: against the C library's own cfmakeraw, and on a real terminal."""

from __future__ import annotations

import ctypes
import os

from hypothesis import given
from hypothesis import strategies as st

from hexe.linux import pty

KERNEL_CHARACTERS, LIBRARY_CHARACTERS = 19, 32


def library_raw(modes: bytes) -> bytes:
    """cfmakeraw(3) on the C library's larger structure, and back."""
    larger = ctypes.create_string_buffer(modes + bytes(LIBRARY_CHARACTERS - KERNEL_CHARACTERS + 3 + 8))
    ctypes.CDLL(None).cfmakeraw(larger)
    return larger.raw[: len(modes)]


@given(st.binary(min_size=36, max_size=36))
def test_any_modes_made_raw_are_what_the_c_library_makes(modes: bytes) -> None:
    raw = pty.raw_modes(modes)
    assert raw == library_raw(modes)
    assert pty.raw_modes(raw) == raw


def test_a_real_terminal_takes_them_and_gets_its_own_back() -> None:
    master, peer = os.openpty()
    try:
        before = pty.get_modes(peer)
        assert pty.raw_modes(before) != before
        pty.set_modes(peer, pty.raw_modes(before))
        assert pty.get_modes(peer) == pty.raw_modes(before)
        os.write(master, b"\x03\r")  # neither an interrupt nor a line end
        assert os.read(peer, 10) == b"\x03\r"
        pty.set_modes(peer, before)
        assert pty.get_modes(peer) == before
    finally:
        os.close(master)
        os.close(peer)


def test_sizes_are_copied() -> None:
    one, one_peer = os.openpty()
    other, other_peer = os.openpty()
    try:
        import fcntl
        import termios

        fcntl.ioctl(one_peer, termios.TIOCSWINSZ, b"\x28\0\x64\0\0\0\0\0")
        pty.copy_size(one_peer, other)
        assert os.get_terminal_size(other_peer) == (100, 40)
    finally:
        for fd in (one, one_peer, other, other_peer):
            os.close(fd)


def test_a_terminal_of_another_session_counts_as_ours() -> None:
    master, peer = os.openpty()
    try:
        assert pty.in_foreground(peer)
    finally:
        os.close(master)
        os.close(peer)
