"""supervise: the caller's one loop from the released child to its end. Signals, terminal, relays, timeout, the gate.

The gate: init stands sealed, and nothing of the command exists yet; the kernel's own
account of init is compared with the plan; only then may it start the command, which
inherits all of it. Anything else, and it is killed.
"""

from __future__ import annotations

import os
import select
import time

from hexe.errors import AttestationError, CommandError, HexeError
from hexe.linux import constants as c
from hexe.linux import signals
from hexe.linux.packets import receive_descriptor, send
from hexe.sandbox.attest import Evidence, compare, pid_of, read_evidence, read_namespaces, read_status
from hexe.sandbox.messages import pack, unpack
from hexe.sandbox.outcome import Outcome
from hexe.sandbox.spawn import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.relay import Pump
    from hexe.sandbox.spawn import Spawned

# What is still in a pipe or a terminal is fetched within this time where others may go on writing (profile none),
# and within the second one after a timeout.
DRAIN_SECONDS = 5.0
LATE_DRAIN_SECONDS = 1.0
# An init that was told to kill everything, and has not ended after this time, is killed.
LAST_RESORT_SECONDS = 10.0
# poll(2) takes an int of milliseconds: a longer wait is taken in parts.
LONGEST_PATIENCE = 3600.0


class Supervisor:
    """Runs one spawned child to its end. ``run`` gives the Outcome or raises what went wrong before the exec."""

    def __init__(self, spawned: Spawned) -> None:
        self.spawned = spawned
        self.plan = spawned.plan
        self.pumps = spawned.pumps
        self.started = time.monotonic()
        self.deadline = self.started + self.plan.policy.timeout if self.plan.policy.timeout else None
        self.own_namespaces = read_namespaces("self")  # now: the child is busy with its mounts meanwhile
        self.ignored = signals.ignored_signals()
        # A stopped init reads nothing: sending to it must not stop us too.
        os.set_blocking(spawned.control, False)
        self.evidence: Evidence | None = None
        self.executed = False
        self.failure: HexeError | None = None
        self.ended: list[str] | None = None
        self.control_open = True
        self.timed_out = False
        self.master = -1
        self.screen = -1
        self.saved_modes = b""

    def run(self) -> Outcome:
        """Loop until the child is gone. The caller's terminal is given back as it was, whatever happens."""
        try:
            while self.control_open and self.failure is None:
                self._turn()
            if self.failure is None:
                self._drain()
        except BaseException:
            self._kill()
            raise
        finally:
            self._restore_terminal()
        if self.failure is not None:
            self._kill()
        _, status = os.waitpid(self.spawned.pid, 0)
        self._give_signals_back()
        if self.failure is None and not self.executed and not self.timed_out:
            from hexe.sandbox.diagnose import explain_lost_init

            self.failure = explain_lost_init(status)
        if self.failure is not None:
            raise self.failure
        return self._outcome(status)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        poll = select.poll()
        control = self.spawned.control
        poll.register(control, select.POLLIN)
        poll.register(self.spawned.signals, select.POLLIN)
        waiting = self._register_pumps(poll)
        for fd, events in poll.poll(self._patience()):
            if fd == control:
                self._hear_control()
            elif fd == self.spawned.signals:
                for number in signals.read_signals(fd):
                    self._signal(number)
            for pump in ready_pumps(waiting, fd, events):
                if pump in self.pumps:
                    pump.step()
                    if pump.abandoned:
                        self._close_source(pump)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self._time_out()

    def _time_out(self) -> None:
        """Kill everything; and init itself too, when it doesn't do its part (without a pid namespace)."""
        if self.timed_out:
            self.deadline = None
            os.kill(self.spawned.pid, c.SIGKILL)
        else:
            self.timed_out = True
            self.deadline = time.monotonic() + LAST_RESORT_SECONDS
            self._kill()

    def _patience(self) -> int | None:
        if self.deadline is None:
            return None
        return max(0, int(min(self.deadline - time.monotonic(), LONGEST_PATIENCE) * 1000) + 1)

    def _register_pumps(self, poll: select.poll) -> dict[int, list[Pump]]:
        masks: dict[int, int] = {}
        waiting: dict[int, list[Pump]] = {}
        for pump in self.pumps:
            wanted = pump.wanted()
            if wanted is not None:
                fd, writing = wanted
                masks[fd] = masks.get(fd, 0) | (select.POLLOUT if writing else select.POLLIN)
                waiting.setdefault(fd, []).append(pump)
        for fd, mask in masks.items():
            poll.register(fd, mask)
        return waiting

    def _close_source(self, pump: Pump) -> None:
        """Nobody reads what the command writes: end it as without us (hexe run --tty -- yes | head -1)."""
        if pump.source == 0:
            return
        self.pumps = [each for each in self.pumps if pump.source not in (each.source, each.target)]
        if pump.source == self.master:
            self.master = -1
        os.close(pump.source)

    def _hear_control(self) -> None:
        packet, descriptor = receive_descriptor(self.spawned.control)
        letter, values = unpack(packet)
        if self.timed_out and letter not in ("X", ""):
            if descriptor >= 0:
                os.close(descriptor)
        elif letter == "T":
            self._take_terminal(descriptor)
            self._tell(b"G")
        elif letter == "E":
            from hexe.sandbox.diagnose import explain_step
            from hexe.sandbox.program import lower

            stage, index, errno = values[0], int(values[1]), int(values[2])
            self.failure = explain_step(self.plan, lower(self.plan), stage, index, errno, self.spawned.facts)
        elif letter == "P":
            from hexe.sandbox.diagnose import explain_init

            self.failure = explain_init(" ".join(values))
        elif letter == "S":
            self._stop_with_command()
        elif letter == "X":
            self.ended = values
        elif letter == "D":
            self._open_gate()
        elif letter == "R":
            self._read_witness(descriptor)
        elif letter == "F":
            from hexe.sandbox.command_errors import explain_exec

            self.failure = explain_exec(self.plan, int(values[0]))
        elif not letter:
            self.control_open = False

    # -- the gate ---------------------------------------------------------------------------------------------------

    def _open_gate(self) -> None:
        """Init stands sealed at the gate: let it through when the kernel's account of it agrees with the plan."""
        try:
            self.evidence = read_evidence(self.spawned.pid)
        except OSError as error:
            self.failure = unreadable(error)
            return
        self._compare(self.evidence)
        if self.failure is None:
            self.executed = True
            self._tell(b"G")

    def _read_witness(self, pidfd: int) -> None:
        """The command has been executed, and is held unreaped meanwhile: read its own status too."""
        try:
            pid = pid_of(pidfd)
            assert self.evidence is not None
            self.evidence = self.evidence.replace(status=read_status(pid))
        except OSError as error:
            self.failure = unreadable(error)
            return
        finally:
            os.close(pidfd)
        self._compare(self.evidence)
        if self.failure is None:
            self._tell(b"A")

    def _compare(self, evidence: Evidence) -> None:
        wrong = compare(self.plan, self.spawned.facts, evidence, self.own_namespaces)
        if wrong:
            self.failure = AttestationError(
                f"the kernel's account differs from profile {self.plan.policy.profile}: {'; '.join(wrong)}",
                hint="it was killed; please report this with the output of hexe doctor --json",
            )

    # -- signals ----------------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        if number in FORWARDED:
            if number in self.ignored:
                return
            if not self.executed:
                self.timed_out = False
                self.failure = CommandError(
                    f"stopped by signal {number} before the command was started", exit_code=128 + number
                )
                return
            self._send("N", number)
        elif number == c.SIGTSTP and number not in self.ignored:
            self._send("N", number)
            self._stop()
        elif number == c.SIGCONT:
            self._enter_raw_mode()
            self._send("C")
        elif number == c.SIGWINCH:
            if self.master >= 0 and self.screen >= 0:
                from hexe.linux import pty

                pty.copy_size(self.screen, self.master)
            else:
                self._send("N", number)

    def _send(self, letter: str, *values: object) -> None:
        if self.executed:
            self._tell(pack(letter, *values))

    def _tell(self, packet: bytes) -> None:
        try:
            send(self.spawned.control, packet)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended; the loop hears that next
        except BlockingIOError:
            pass  # it is stopped, with hundreds of signals waiting for it already

    def _stop_with_command(self) -> None:
        """The command was stopped at its terminal (Ctrl-Z): stop too, so that the caller's shell takes over."""
        self._restore_terminal()
        if self.deadline is None:
            self._stop()
            return
        # A command could stop itself to stop the clock. The kernel's own SIGTSTP stops nobody whom no shell could
        # continue: there the timeout goes on.
        os.kill(os.getpid(), c.SIGTSTP)
        signals.unblock((c.SIGTSTP,))
        signals.block((c.SIGTSTP,))

    def _stop(self) -> None:
        os.kill(os.getpid(), c.SIGSTOP)

    def _give_signals_back(self) -> None:
        signals.set_mask(self.spawned.old_mask)

    # -- terminal ---------------------------------------------------------------------------------------------------

    def _take_terminal(self, master: int) -> None:
        from hexe.linux import pty
        from hexe.sandbox.relay import Pump

        self.master = master
        os.set_inheritable(master, False)
        os.set_blocking(master, False)
        kinds = [stream.kind for stream in self.spawned.facts.streams]
        if "tty" in kinds:
            self.screen = kinds.index("tty")
            pty.copy_size(self.screen, master)
            pty.set_modes(master, pty.get_modes(self.screen))
        out = 1 if self.plan.streams[1] == "terminal" else self.screen if self.screen >= 0 else 1
        self.pumps.append(Pump(master, out, close_target=False))
        # Control-D is what a terminal has for the end of its input.
        at_end = b"\x04" if kinds[0] != "tty" else b""
        self.keys = Pump(0, master, close_target=False, at_end=at_end)
        self.pumps.append(self.keys)
        self._enter_raw_mode()

    def _enter_raw_mode(self) -> None:
        if self.master < 0 or self.spawned.facts.streams[0].kind != "tty":
            return
        from hexe.linux import pty

        in_front = pty.in_foreground(0)
        self.keys.paused = not in_front  # a background job that reads its terminal is stopped by the kernel
        if in_front and not self.saved_modes:
            modes = pty.get_modes(0)
            pty.set_modes(0, pty.raw_modes(modes))
            self.saved_modes = modes
            pty.copy_size(0, self.master)

    def _restore_terminal(self) -> None:
        if self.saved_modes:
            from hexe.linux import pty

            modes, self.saved_modes = self.saved_modes, b""
            try:
                pty.set_modes(0, modes)
            except OSError:
                pass  # the terminal is gone, and its modes with it

    # -- the end ----------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        """End everything at once: with pid 1 the kernel kills its whole namespace; the subreaper kills its tree."""
        if self.plan.policy.pid_namespace or not self.executed:
            os.kill(self.spawned.pid, c.SIGKILL)
            return
        try:
            os.kill(self.spawned.pid, c.SIGCONT)  # the command may have stopped it
            send(self.spawned.control, b"K")
        except OSError:
            os.kill(self.spawned.pid, c.SIGKILL)

    def _drain(self) -> None:
        """Move what the command wrote before it ended, for as long as its reader takes for that.

        Others could go on writing only where nothing ends them (profile none). A signal
        that would have ended the command while it waited for its reader ends this too, and
        so does the timeout.
        """
        outgoing = [pump for pump in self.pumps if pump.source != 0]
        bounded = self.timed_out or self.plan.policy.profile == "none"
        if bounded:
            self.deadline = time.monotonic() + (LATE_DRAIN_SECONDS if self.timed_out else DRAIN_SECONDS)
        while True:
            self.pumps = [pump for pump in outgoing if pump.wanted() is not None]
            poll = select.poll()
            waiting = self._register_pumps(poll)
            if not waiting:
                return
            poll.register(self.spawned.signals, select.POLLIN)
            ready = poll.poll(self._patience() if any(pump.buffer for pump in self.pumps) else 0)
            if not any(fd in waiting for fd, _ in ready) and not any(pump.buffer for pump in self.pumps):
                return
            for fd, events in ready:
                if fd == self.spawned.signals and self._ends_drain(signals.read_signals(fd)):
                    return
                for pump in ready_pumps(waiting, fd, events):
                    pump.step()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.timed_out = self.timed_out or not bounded
                return

    def _ends_drain(self, numbers: tuple[int, ...]) -> bool:
        for number in numbers:
            if number == c.SIGTSTP and number not in self.ignored:
                self._stop()
        return any(number in FORWARDED and number not in self.ignored for number in numbers)

    def _outcome(self, status: int) -> Outcome:
        wall = time.monotonic() - self.started
        if self.ended is not None:
            status = int(self.ended[0])
            user, system, peak = float(self.ended[1]), float(self.ended[2]), int(self.ended[3])
        else:
            # Killed with its pid namespace: what is known is what init had waited for.
            import resource

            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            user, system, peak = usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = -1 if killed else os.WEXITSTATUS(status)
        return Outcome(code, killed, self.timed_out, wall, user, system, peak, self.evidence)


def ready_pumps(waiting: dict[int, list[Pump]], fd: int, events: int) -> list[Pump]:
    """The pumps that may take their step: one terminal can be read by one pump and written by another."""
    reading = events & ~select.POLLOUT
    writing = events & ~select.POLLIN
    return [pump for pump in waiting.get(fd, ()) if (writing if pump.buffer else reading)]


def unreadable(error: OSError) -> AttestationError:
    """What to say when /proc doesn't let the caller read its own child."""
    return AttestationError(
        f"can't read what the kernel says of the started process: {error.filename}: {error.strerror}",
        hint="is /proc mounted with hidepid, or is this a container that hides it? Mount /proc without hidepid",
    )
