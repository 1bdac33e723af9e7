"""The child's side: run the program, seal, start the command, then be the small init that reaps and reports.

This runs in a copy of the caller's process. It never returns into the caller's
stack, it imports nothing (the host's files are gone after the pivot), and with a
pid namespace it is pid 1: signals that it doesn't handle can't hurt it, and when
it ends the kernel kills everything else inside.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from hexe.linux import constants as c
from hexe.linux import signals
from hexe.linux.packets import receive, send, send_descriptor
from hexe.linux.process import children_of, close_all_but, forget_arguments_and_environment, prctl, wait_for_any
from hexe.linux.syscalls import libc_signal, syscall
from hexe.sandbox.executable import safe_files, start_first
from hexe.sandbox.messages import pack, unpack
from hexe.sandbox.runner import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program

WIND_DOWN_SECONDS = 5.0


class Child:
    """What the child inherits from the caller: its plan and program, the socket, and the standard streams."""

    def __init__(
        self,
        plan: Plan,
        program: Program,
        buffer: bytearray,
        control: int,
        streams: tuple[int, int, int],
        old_mask: bytes,
    ) -> None:
        self.plan = plan
        self.program = program
        self.buffer = buffer
        self.control = control
        self.streams = streams
        self.old_mask = old_mask
        self.terminal = -1
        self.safe: frozenset[str] | None = None

    def main(self) -> None:
        """Everything the child does. Never returns."""
        status = 125
        try:
            status = self._main()
        except BaseException as error:  # noqa: BLE001 - this stack belongs to the caller: nothing may leave it
            try:
                send(self.control, pack("P", f"{type(error).__name__}: {error}"))
            except OSError:
                pass
        finally:
            os._exit(status)

    def _main(self) -> int:
        forget_arguments_and_environment(b"hexe: init")
        letter, _ = unpack(receive(self.control))
        if letter != "G":
            return 125  # the caller is gone, or could not write the id maps
        if not self._run("outer") or not self._run("inner"):
            return 125
        self._take_streams()
        self._become_session_leader()
        signals.block((c.SIGCHLD,))
        waiting = signals.open_signalfd((c.SIGCHLD,))
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.plan.policy.mount_namespace:
            self.safe = safe_files(self.plan.execute.argv[0], dict(self.plan.execute.environment))
        if not self._run("seal"):
            return 125
        close_all_but((0, 1, 2, self.control, waiting, null, self.terminal))
        # The gate. Until the caller has read and compared what /proc says of this process, nothing of the command
        # exists; what it says then holds for the command too, which inherits all of it.
        prctl(c.PR_SET_DUMPABLE, 1)
        send(self.control, b"D")
        letter, _ = unpack(receive(self.control))
        if letter != "G":
            return 125
        prctl(c.PR_SET_DUMPABLE, 0)
        command = self._start()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        return Init(self, command, waiting).loop()

    def _run(self, stage: str) -> bool:
        failed = run(self.program.stages[stage], self.buffer)
        if failed is not None:
            send(self.control, pack("E", stage, *failed))
        return failed is None

    def _take_streams(self) -> None:
        """Put the command's three streams in place, before Landlock's rules about them are made."""
        if self.plan.terminal:
            master = self.program.value(self.buffer, "terminal_master")
            self.terminal = self.program.value(self.buffer, "terminal_peer")
            send_descriptor(self.control, b"T", master)
            # The size and the modes of the caller's terminal must be there before the command looks.
            receive(self.control)
        sources = []
        for kind, fd in zip(self.plan.streams, self.streams):
            sources.append(self.terminal if kind == "terminal" else fd)
        for target, fd in enumerate(sources):
            if fd == target:
                os.set_inheritable(target, True)
            else:
                os.dup2(fd, target)

    def _become_session_leader(self) -> None:
        """A session without the caller's terminal; the command's group in it isn't orphaned, so job control works."""
        os.setsid()
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, c.TIOCSCTTY, 0)

    def _start(self) -> int:
        """Start the command and return its pid: 0 when it could not be executed, and the caller has been told."""
        policy = self.plan.policy
        if self.terminal < 0 and policy.pid_namespace:
            return self._spawn_command()
        command = os.fork()
        if command == 0:
            self._become_command()
        return command

    def _spawn_command(self) -> int:
        """posix_spawn(3): it shares this process's memory until the exec, where a fork would copy hundreds of pages."""
        mask = [number for number in range(1, 65) if self.old_mask[(number - 1) // 8] >> (number - 1) % 8 & 1]
        environment = dict(self.plan.execute.environment)

        def start(path: str) -> int:
            argv = self.plan.execute.argv
            return os.posix_spawn(path, argv, environment, setpgroup=0, setsigmask=mask, setsigdef=PYTHON_IGNORES)

        return self._start_first(environment, start)

    def _start_first(self, environment: dict[str, str], start: Callable[[str], int]) -> int:
        """Start the first file that the command's name finds; 0 after telling the caller why there is none."""
        try:
            return start_first(self.plan.execute.argv[0], environment, start, self.safe)
        except OSError as error:
            send(self.control, pack("F", error.errno))
            return 0

    def _become_command(self) -> None:
        """The forked command's own process: its group, its terminal, its signals, exec. Never returns."""
        try:
            os.setpgid(0, 0)
            if self.terminal >= 0:
                _give_terminal(self.terminal, os.getpid())
            if not self.plan.policy.pid_namespace and self.plan.policy.profile != "none":
                prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
            for number in PYTHON_IGNORES:
                libc_signal(number, 0)
            signals.set_mask(self.old_mask)
            environment = dict(self.plan.execute.environment)

            def execute(path: str) -> int:
                os.execve(path, self.plan.execute.argv, environment)

            self._start_first(environment, execute)
        except BaseException as error:  # noqa: BLE001 - nothing may leave this process either
            try:
                send(self.control, pack("P", f"{type(error).__name__}: {error}"))
            except OSError:
                pass
        finally:
            os._exit(125)


class Init:
    """The loop of pid 1 (or of the subreaper): reap, pass signals on, report the end."""

    def __init__(self, child: Child, command: int, waiting: int) -> None:
        self.child = child
        self.control = child.control
        self.command = command
        self.waiting = waiting
        self.user = self.system = 0.0
        self.peak = 0
        self.ended: int | None = None
        # While the caller reads the command's /proc entry, the command is not reaped: a dead one keeps its entry.
        self.held = child.plan.policy.witness and command > 0

    def loop(self) -> int:
        """Until the command has ended, or the caller has. Returns init's own exit status."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.waiting, select.POLLIN)
        if self.held:
            self._introduce()
        while True:
            for fd, _ in poll.poll():
                if fd == self.waiting:
                    signals.read_signals(self.waiting)
                    self._reap()
                elif not self._obey():
                    self._kill_everything()
                    return 125
            if self.ended is not None:
                if self.child.plan.policy.profile != "none":
                    self._kill_everything()
                send(self.control, pack("X", self.ended, self.user, self.system, self.peak))
                return 0

    def _introduce(self) -> None:
        """Give the caller a descriptor of the command's process, from which it learns the pid on its side."""
        pidfd = syscall("pidfd_open", self.command, 0)
        send_descriptor(self.control, b"R", pidfd)
        os.close(pidfd)

    def _reap(self) -> None:
        if self.held:
            return
        while True:
            child = wait_for_any()
            if child is None:
                return
            if os.WIFSTOPPED(child.status):
                if child.pid == self.command and self.child.terminal >= 0:
                    send(self.control, pack("S", os.WSTOPSIG(child.status)))
                continue
            self.user += child.user
            self.system += child.system
            self.peak = max(self.peak, child.peak)
            if child.pid == self.command:
                self.ended = child.status

    def _obey(self) -> bool:
        """Carry out one message of the caller; False when it wants an end or is gone."""
        letter, values = unpack(receive(self.control))
        if letter == "N":
            self._signal(int(values[0]))
        elif letter == "A":
            self.held = False
            self._reap()
        elif letter == "C":
            if self.child.terminal >= 0:
                _give_terminal(self.child.terminal, self.command)
            self._signal(c.SIGCONT)
        else:
            return False
        return True

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.command, number)
        except ProcessLookupError:
            pass  # it is ending by itself; SIGCHLD will say so
        except PermissionError:
            pass  # in profile none it can become another user (su, sudo), and is out of the caller's reach then

    def _kill_everything(self) -> None:
        """End every descendant. In a pid namespace our own end does that, by the kernel's hand."""
        if self.child.plan.policy.pid_namespace:
            return
        deadline = time.monotonic() + WIND_DOWN_SECONDS
        while time.monotonic() < deadline:
            victims = _descendants(os.getpid())
            if not victims:
                return
            for pid in victims:
                try:
                    os.kill(pid, c.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
            self._reap()
            select.poll().poll(1)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    queue = [pid]
    while queue:
        for child in children_of(queue.pop()):
            found.append(child)
            queue.append(child)
    return found


def _give_terminal(terminal: int, group: int) -> None:
    """tcsetpgrp(3), with SIGTTOU blocked as all of init's signals are."""
    fcntl.ioctl(terminal, c.TIOCSPGRP, group.to_bytes(4, "little"))


# Python ignores these two, and exec would pass that on.
PYTHON_IGNORES = (c.SIGPIPE, c.SIGXFSZ)
