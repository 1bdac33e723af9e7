"""Copying between the caller's streams and the sandbox's, in the caller's one poll loop."""

from __future__ import annotations

import os
from errno import EIO

CHUNK = 65536
# A descriptor that poll calls writable takes at least this much without blocking (PIPE_BUF, pipe(7)).
SAFE_WRITE = 4096


class Pump:
    """Moves bytes from one descriptor to another; reads only when all that it read before is written."""

    def __init__(self, source: int, target: int, *, close_target: bool, at_end: bytes = b"") -> None:
        self.source = source
        self.target = target
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
                self.buffer = os.read(self.source, CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != EIO:  # what a terminal says when its other side is closed
                    raise
            if not self.buffer:
                self._end()

    def _write(self) -> None:
        try:
            written = os.write(self.target, self.buffer[:SAFE_WRITE])
        except (BlockingIOError, InterruptedError):
            return
        except (BrokenPipeError, OSError) as error:
            if error.errno not in (EIO, 32):
                raise
            # The reader is gone. Who owns the source closes it then, so that the writer gets its SIGPIPE or EIO.
            self.buffer = b""
            self.finished = self.abandoned = True
            self.close()
            return
        self.buffer = self.buffer[written:]
        if not self.buffer and self.finished:
            self.close()

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
