"""A terminal for tests: a real PTY, held at its outer end, with bounded waits for what appears on it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

from support import PATIENCE, Caller

# Runs as the first process of a new session: takes the descriptor as its controlling terminal, and becomes the rest.
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fd = int(sys.argv[1])
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
if fd > 2:
    os.close(fd)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Terminal:
    """A PTY whose inner end is the controlling terminal of what is started on it. ``close`` hangs up."""

    def __init__(self, caller: Caller, rows: int = 24, columns: int = 80) -> None:
        self.caller = caller
        self.outer, self.inner = os.openpty()
        os.set_blocking(self.outer, False)
        os.fchown(self.inner, caller.uid, -1)  # as a login gives it to its user
        self.seen = bytearray()
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the kernel tells the foreground group."""
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> list[Any]:
        """The modes, as tcgetattr(3) has them."""
        return termios.tcgetattr(self.inner)

    def is_raw(self) -> bool:
        """Whether keys pass at once and without an echo, as hexe has it while a command runs."""
        flags: int = self.modes()[3]
        return not flags & (termios.ICANON | termios.ECHO | termios.ISIG)

    def start(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start any command with the terminal as its streams, but for those given, and as its controlling terminal."""
        chosen = {"stdin": self.inner, "stdout": self.inner, "stderr": self.inner, **streams}
        number = str(self.inner)
        command = ["/usr/bin/python3", "-I", "-S", "-c", TAKE_TERMINAL, number, *argv]
        return self.caller.start(command, pass_fds=[self.inner], env={"TERM": "dumb"}, **chosen)

    def hexe(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start ``hexe ARGUMENTS`` on the terminal."""
        return self.start([self.caller.script, *arguments], **streams)

    def type(self, keys: str | bytes) -> None:
        """Press keys; reads what appears meanwhile, since an echo that nobody reads would block the keys."""
        data = keys.encode() if isinstance(keys, str) else keys
        deadline = time.monotonic() + PATIENCE
        while data:
            assert time.monotonic() < deadline, f"nobody takes the keys; on the screen: {bytes(self.seen[-2000:])!r}"
            readable, writable, _ = select.select([self.outer], [self.outer], [], 1)
            if readable:
                self._read()
            if writable:
                try:
                    data = data[os.write(self.outer, data[:4096]) :]
                except BlockingIOError:
                    continue

    def expect(self, pattern: str, timeout: float = PATIENCE) -> str:
        """Wait for the pattern behind what was matched before; returns all up to its end, or fails the test."""
        deadline = time.monotonic() + timeout
        expression = re.compile(pattern.encode(), re.DOTALL)
        while True:
            match = expression.search(bytes(self.seen))
            if match:
                text = self.seen[: match.end()]
                del self.seen[: match.end()]
                return text.decode("utf-8", "replace")
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} isn't on the screen, which has {bytes(self.seen[-2000:])!r}"
            if select.select([self.outer], [], [], left)[0] and not self._read():
                raise AssertionError(
                    f"{pattern!r} isn't on the screen, now closed, which has {bytes(self.seen[-2000:])!r}"
                )

    def read_all(self, process: subprocess.Popen[bytes], timeout: float = PATIENCE) -> bytes:
        """Everything until ``process`` has ended and nothing more is there."""
        deadline = time.monotonic() + timeout
        while True:
            ended = process.poll() is not None
            if select.select([self.outer], [], [], 0 if ended else 0.05)[0]:
                self._read()
            elif ended:
                everything, self.seen = bytes(self.seen), bytearray()
                return everything
            assert time.monotonic() < deadline, f"no end; on the screen: {bytes(self.seen[-2000:])!r}"

    def _read(self) -> bool:
        try:
            data = os.read(self.outer, 1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last inner end is closed
        self.seen += data
        return bool(data)

    def hang_up(self) -> None:
        """Close the outer end: the kernel sends SIGHUP to the session."""
        if self.outer >= 0:
            os.close(self.outer)
            self.outer = -1

    def close(self) -> None:
        """Give both ends back."""
        self.hang_up()
        if self.inner >= 0:
            os.close(self.inner)
            self.inner = -1
