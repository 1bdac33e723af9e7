"""What the kernel and command-line tests share: callers (root, an ordinary user), bounded waits, reading /proc."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

T = TypeVar("T")
PATIENCE = 20.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("user", "pid", "mnt", "uts", "ipc", "net", "cgroup")


def wait_until(condition: Callable[[], T], timeout: float = PATIENCE, what: str = "") -> T:
    """The first true value of ``condition``; fails the test when there is none within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}; last value {value!r}")
        time.sleep(0.005)


class Running(NamedTuple):
    """A hexe whose command is up: the host's pids of all three processes."""

    hexe: subprocess.Popen[bytes]
    init: int
    command: int

    def finish(self) -> int:
        """End its input, and with that the command; returns hexe's exit status."""
        assert self.hexe.stdin
        self.hexe.stdin.close()
        return self.hexe.wait(PATIENCE)


class Caller:
    """Someone who runs ``hexe``: root, or an ordinary user. One for each test; ``close`` cleans up after it.

    Nothing of the suite's own environment reaches hexe: ``environment`` is all there is, and what a call adds.
    """

    def __init__(self, name: str, uid: int, gid: int, user: str, home: str, script: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.user = user
        self.home = home
        self.script = script
        self.is_root = uid == 0
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def home_inside(self) -> str:
        """Where home is in a profile with a root of its own."""
        return self.home if self.home.startswith("/home/") else f"/home/{self.user}"

    @cached_property
    def environment(self) -> dict[str, str]:
        """The caller's environment: what a plain login gives."""
        return {
            "PATH": SYSTEM_PATH,
            "HOME": self.home,
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
        }

    @cached_property
    def scratch(self) -> Path:
        """A directory of the caller's own on disk, outside of /tmp and of home: invisible inside unless bound."""
        path = Path(tempfile.mkdtemp(prefix="hexe-scratch-", dir="/var/tmp"))
        path.chmod(0o755)
        os.chown(path, self.uid, self.gid)
        return path

    def write(self, path: str | Path, text: str | bytes = "", mode: int = 0o644) -> Path:
        """A file of the caller's (missing parents too); a relative ``path`` lies in ``scratch``."""
        full = self.scratch / path
        self.mkdir(full.parent)
        full.write_bytes(text.encode() if isinstance(text, str) else text)
        full.chmod(mode)
        os.chown(full, self.uid, self.gid)
        return full

    def mkdir(self, path: str | Path, mode: int = 0o755) -> Path:
        """A directory of the caller's (missing parents too); a relative ``path`` lies in ``scratch``."""
        full = self.scratch / path
        if not full.is_dir():
            self.mkdir(full.parent)
            full.mkdir()
            full.chmod(mode)
            os.chown(full, self.uid, self.gid)
        return full

    def hexe(
        self,
        *args: str,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        timeout: float = 30,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run ``hexe ARGS`` to its end. ``env`` adds to the caller's environment; standard input is empty by default.

        A run that exceeds ``timeout`` is killed and fails the test.
        """
        given = None if input is None else input.encode("utf-8", "surrogateescape")
        if given is not None:
            stdin = subprocess.PIPE
        process = self.popen(
            *args,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            pass_fds=pass_fds,
        )
        try:
            out, err = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"hexe {' '.join(args)}: no end within {timeout} s; {out!r} {err!r}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, _text(out), _text(err))

    def sh(
        self, script: str, *options: str, input: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """``hexe run OPTIONS -- sh -c SCRIPT``."""
        return self.hexe("run", *options, "--", "sh", "-c", script, input=input, env=env)

    def inside(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> str:
        """The standard output of a shell script run inside; it must succeed and leave standard error empty."""
        done = self.sh(script, *options, env=env)
        assert (done.returncode, done.stderr) == (0, ""), f"{done}"
        return done.stdout

    def python(self, code: str, *options: str, env: Mapping[str, str] | None = None) -> str:
        """The standard output of Python code run inside by /usr/bin/python3; it must succeed."""
        done = self.hexe("run", *options, "--", "/usr/bin/python3", "-I", "-c", code, env=env)
        assert done.returncode == 0, f"{done}"
        return done.stdout

    def popen(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = True,
        wrapper: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start ``hexe ARGS`` and return at once. What still runs at the end of the test is killed.

        ``wrapper`` is a command that runs hexe, as ``nohup`` does. A session of its own
        keeps a Control-C of whoever runs the tests, and their terminal, out of it.
        """
        return self.start(
            [*wrapper, self.script, *args],
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
        )

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start any command as this caller, outside of any sandbox."""
        change = os.geteuid() == 0 and not self.is_root
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.home,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
            user=self.uid if change else None,
            group=self.gid if change else None,
            extra_groups=[] if change else None,
        )
        self._started.append(process)
        return process

    def running(self, *options: str, script: str = "", env: Mapping[str, str] | None = None) -> Running:
        """Start ``hexe run OPTIONS`` with a shell that runs SCRIPT and then waits for the end of its input."""
        command = f"{script}\necho ready; exec cat"
        process = self.popen("run", *options, "--", "sh", "-c", command, env=env, stdin=subprocess.PIPE)
        line = read_line(process.stdout)
        if line != "ready":
            process.kill()
            raise AssertionError(f"the command didn't come up: {line!r} {process.communicate()}")
        init = children_of(process.pid)[0]
        return Running(process, init, children_of(init)[0])

    def close(self) -> None:
        """Kill what is left of this test's processes, and remove its scratch directory."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._started.clear()
        if "scratch" in self.__dict__:
            shutil.rmtree(self.scratch)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "surrogateescape")


# -- what /proc of the host says of running processes ---------------------------------------------------------------


def status_of(pid: int | str) -> dict[str, str]:
    """/proc/PID/status as a dictionary."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def namespaces_of(pid: int | str) -> dict[str, str]:
    """The namespace links of a process, as ``readlink /proc/PID/ns/*`` has them."""
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in NAMESPACES}


def children_of(pid: int) -> list[int]:
    """The child processes of a process; none when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants_of(pid: int) -> list[int]:
    """Children, their children, and so on: for a running hexe the first is its init, the second the command."""
    found: list[int] = []
    for child in children_of(pid):
        found += [child, *descendants_of(child)]
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return not status_of(pid)["State"].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_with(marker: str) -> list[int]:
    """The pids of all processes of this machine whose command line has ``marker`` in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EACCES):
                    raise
    return found


def read_line(stream: IO[bytes] | None, timeout: float = PATIENCE) -> str:
    """One line from a pipe of a running process, without its newline; fails the test when none comes in time."""
    assert stream is not None
    with alarm(timeout, "a line of output"):
        return stream.readline().decode().rstrip("\n")


@contextlib.contextmanager
def alarm(timeout: float, what: str) -> Iterator[None]:
    """Fail the test when the block, which may block in the kernel, isn't done in time."""

    def ring(_number: int, _frame: object) -> None:
        raise AssertionError(f"not within {timeout} s: {what}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
