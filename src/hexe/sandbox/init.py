"""The child's side: run the program, seal, start the command, then be the small init that reaps and reports.

This runs in a copy of the caller's process. It never returns into the caller's
stack, it imports nothing (the host's files are gone after the pivot), and with a
pid namespace it is pid 1: signals that it doesn't handle can't hurt it, and when
it ends the kernel kills everything else inside.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import select
import time
from errno import EACCES, ENOENT, ENOTDIR

from hexe.linux import constants as c
from hexe.linux import signals
from hexe.linux.process import children_of, close_all_but, forget_arguments_and_environment, prctl, wait_for_any
from hexe.linux.syscalls import libc_signal
from hexe.sandbox.environment import DEFAULT_PATH
from hexe.sandbox.messages import LONGEST, pack, unpack
from hexe.sandbox.runner import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program

WIND_DOWN_SECONDS = 5.0


class Child:
    """What the child inherits from the caller: its plan and program, the sockets, and the standard streams."""

    def __init__(
        self,
        plan: Plan,
        program: Program,
        buffer: bytearray,
        control: _socket.socket,
        door: _socket.socket,
        streams: tuple[int, int, int],
        old_mask: bytes,
    ) -> None:
        self.plan = plan
        self.program = program
        self.buffer = buffer
        self.control = control
        self.door = door
        self.streams = streams
        self.old_mask = old_mask
        self.terminal = -1

    def main(self) -> None:
        """Everything the child does. Never returns."""
        status = 125
        try:
            status = self._main()
        except BaseException as error:  # noqa: BLE001 - this stack belongs to the caller: nothing may leave it
            try:
                self.control.send(pack("P", f"{type(error).__name__}: {error}"))
            except OSError:
                pass
        finally:
            os._exit(status)

    def _main(self) -> int:
        forget_arguments_and_environment(b"hexe: init")
        letter, _ = unpack(self.control.recv(LONGEST))
        if letter != "G":
            return 125  # the caller is gone, or could not write the id maps
        if not self._run("outer") or not self._run("inner"):
            return 125
        self._take_streams()
        self._become_session_leader()
        signals.block((c.SIGCHLD,))
        waiting = signals.open_signalfd((c.SIGCHLD,))
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        close_all_but((0, 1, 2, self.control.fileno(), self.door.fileno(), waiting, null, self.terminal))
        if not self._run("seal"):
            return 125
        command = os.fork()
        if command == 0:
            self._command()
        self.door.close()
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        return Init(self, command, waiting).loop()

    def _run(self, stage: str) -> bool:
        failed = run(self.program.stages[stage], self.buffer)
        if failed is not None:
            self.control.send(pack("E", stage, *failed))
        return failed is None

    def _take_streams(self) -> None:
        """Put the command's three streams in place, before Landlock's rules about them are made."""
        if self.plan.terminal:
            master = self.program.value(self.buffer, "terminal_master")
            self.terminal = self.program.value(self.buffer, "terminal_peer")
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))]
            self.control.sendmsg([b"T"], rights)
            # The size and the modes of the caller's terminal must be there before the command looks.
            self.control.recv(LONGEST)
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

    def _command(self) -> None:
        """The command's own process: its group, its signals, the door, exec. Never returns."""
        try:
            os.setpgid(0, 0)
            if self.terminal >= 0:
                _give_terminal(self.terminal, os.getpid())
            if not self.plan.policy.pid_namespace and self.plan.policy.profile != "none":
                prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
            for number in (c.SIGPIPE, c.SIGXFSZ):
                libc_signal(number, 0)  # Python ignores these two, and exec would pass that on
            # From now on the caller may read /proc/PID of this process, as of any that has been executed.
            prctl(c.PR_SET_DUMPABLE, 1)
            self.door.send(b"D")
            letter, _ = unpack(self.door.recv(LONGEST))
            if letter != "G":
                os._exit(125)
            signals.set_mask(self.old_mask)
            error = _execute(self.plan.execute.argv, self.plan.execute.environment)
            self.door.send(pack("F", error))
        except BaseException as error:  # noqa: BLE001 - nothing may leave this process either
            try:
                self.door.send(pack("P", f"{type(error).__name__}: {error}"))
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

    def loop(self) -> int:
        """Until the command has ended, or the caller has. Returns init's own exit status."""
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.waiting, select.POLLIN)
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
                self.control.send(pack("X", self.ended, self.user, self.system, self.peak))
                return 0

    def _reap(self) -> None:
        while True:
            child = wait_for_any()
            if child is None:
                return
            if os.WIFSTOPPED(child.status):
                if child.pid == self.command and self.child.terminal >= 0:
                    self.control.send(pack("S", os.WSTOPSIG(child.status)))
                continue
            self.user += child.user
            self.system += child.system
            self.peak = max(self.peak, child.peak)
            if child.pid == self.command:
                self.ended = child.status

    def _obey(self) -> bool:
        """Carry out one message of the caller; False when it wants an end or is gone."""
        letter, values = unpack(self.control.recv(LONGEST))
        if letter == "N":
            self._signal(int(values[0]))
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
                except ProcessLookupError:
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


def _execute(argv: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> int:
    """execve, with the search along PATH that a shell makes. Returns only to say with which errno it failed."""
    env = dict(environment)
    name = argv[0]
    if "/" in name:
        candidates = [name]
    else:
        candidates = [f"{directory or '.'}/{name}" for directory in env.get("PATH", DEFAULT_PATH).split(":")]
    worst = ENOENT
    for path in candidates:
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                continue
            if error.errno != EACCES:
                return error.errno or ENOENT
            worst = EACCES
    return worst
