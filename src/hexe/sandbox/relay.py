"""Copying between the caller's streams and the sandbox's, in the caller's one poll loop."""

from __future__ import annotations

import os
import stat
from errno import EIO, EPIPE

from hexe.errors import OutputError

CHUNK = 65536
# A pipe that poll calls writable takes at least this much without blocking (PIPE_BUF, pipe(7)).
SAFE_WRITE = 4096
_PTMX = os.makedev(5, 2)


def unblocking(fd: int, flags: int) -> int:
    """A descriptor for the same pipe or terminal that never blocks; ``fd`` itself where there is none.

    poll(2) promises too little: a terminal with room for one byte counts as writable, and
    between poll and the call another process may fill the pipe, or empty it. One blocked call would
    stop the whole loop, with its signals and its timeout. O_NONBLOCK set on ``fd`` would be
    seen by all who share it, so the file is opened once more.
    """
    found = os.fstat(fd)
    terminal = os.isatty(fd) and found.st_rdev != _PTMX  # opening that one makes a new terminal
    if not terminal and not stat.S_ISFIFO(found.st_mode):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return fd  # another user's terminal, or a pipe whose other end is closed: that one doesn't block


def write_within(fd: int, data: bytes, seconds: float) -> None:
    """Write as much as the reader takes while it makes no pause of more than ``seconds``. Raises OSError."""
    import select

    writer = unblocking(fd, os.O_WRONLY)
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    try:
        while data and poll.poll(int(seconds * 1000)):
            try:
                data = data[os.write(writer, data[:SAFE_WRITE]) :]
            except BlockingIOError:
                continue
    finally:
        if writer != fd:
            os.close(writer)


class Pump:
    """Moves bytes from one descriptor to another; reads only when all that it read before is written."""

    def __init__(self, source: int, target: int, *, close_target: bool, at_end: bytes = b"") -> None:
        self.source = source
        self.target = target
        # The caller's own are shared with others; what lies beyond 2 was opened by us, and is non-blocking already.
        self._reader = unblocking(source, os.O_RDONLY) if source <= 2 else source
        self._writer = unblocking(target, os.O_WRONLY) if target <= 2 else target
        self.close_target = close_target
        self.at_end = at_end
        self.buffer = b""
        self.finished = False
        self.abandoned = False
        self.paused = False

    def wanted(self) -> tuple[int, bool] | None:
        """(descriptor, True for writing) that this pump waits for; None when it waits for nothing."""
        if self.buffer:
            return self.target, True
        if self.finished or self.paused:
            return None
        return self.source, False

    def step(self) -> None:
        """Do the one read or write that the pump waited for."""
        if self.buffer:
            self._write()
        elif not self.finished:
            try:
                self.buffer = os.read(self._reader, CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != EIO:  # what a terminal says when its other side is closed
                    raise
            if not self.buffer:
                self._end()

    def _write(self) -> None:
        try:
            written = os.write(self._writer, self.buffer[:SAFE_WRITE])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno not in (EIO, EPIPE):
                raise self._failed(error) from None
            # The reader is gone. Who owns the source closes it then, so that the writer gets its SIGPIPE or EIO.
            self.buffer = b""
            self.finished = self.abandoned = True
            self.close()
            return
        self.buffer = self.buffer[written:]
        if not self.buffer and self.finished:
            self.close()

    def _failed(self, error: OSError) -> OutputError:
        from errno import errorcode

        name = errorcode.get(error.errno or 0, error.errno)
        return OutputError(
            f"write to descriptor {self.target}: {name}: the command's output can't be passed on; it was killed",
            hint=f"{error.strerror}: see where the output was redirected to",
        )

    def _end(self) -> None:
        self.finished = True
        if self.at_end:
            self.buffer, self.at_end = self.at_end, b""
        else:
            self.close()

    def close(self) -> None:
        """Close the target, when it is this pump's own: its reader sees the end."""
        if self.close_target and self.target >= 0:
            os.close(self.target)
            self.target = -1
