"""What came of a run: how the command ended, what it used, and what the kernel said of its protections."""

from __future__ import annotations

from hexe.errors import EXIT_TIMEOUT
from hexe.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.attest import Evidence


class Outcome(Record):
    """The end of a command that was started. Times are in seconds, ``peak`` in bytes.

    ``exit_code`` is -1 when ``signal`` ended the command. ``user``, ``system`` and
    ``peak`` are of the command and of everything that it, or init, waited for.
    """

    exit_code: int
    signal: int
    timed_out: bool
    wall: float
    user: float
    system: float
    peak: int
    evidence: Evidence | None

    @property
    def status(self) -> int:
        """The exit status that ``hexe run`` gives: the command's own, 128+N for signal N, 124 for a timeout."""
        if self.timed_out:
            return EXIT_TIMEOUT
        return 128 + self.signal if self.signal else self.exit_code
