"""Making and reading processes: clone3, prctl, pidfds, the null device, what /proc says."""

from __future__ import annotations

import os
from errno import ENOSYS

from hexe.linux.constants import SIGCHLD
from hexe.linux.files import read_bytes
from hexe.linux.syscalls import address_of, copy_to, overwrite, syscall


def clone(flags: int) -> int:
    """Fork this (single-threaded) process into new namespaces; 0 in the child, its pid in the parent.

    clone3(2) with its own copy of the stack: the child goes on here. Only a process
    with one thread may call this, as after any fork. Raises OSError.
    """
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls
    args = bytearray(64)
    args[0:8] = flags.to_bytes(8, "little")
    args[32:40] = SIGCHLD.to_bytes(8, "little")
    try:
        return syscall("clone3", address_of(args), 64)
    except OSError as error:
        if error.errno != ENOSYS:
            raise
    # A container's seccomp filter hides clone3, whose flags it can't read, so that libc takes clone(2): same meaning,
    # and its refusal is the true one. The first two arguments are the same on x86_64 and aarch64.
    return syscall("clone", flags | SIGCHLD)


def prctl(option: int, *args: int) -> int:
    """prctl(2). Raises OSError."""
    return syscall("prctl", option, *args)


def close_from(first: int) -> None:
    """Close every descriptor from ``first`` on. close_range(2), Linux 5.9."""
    if first <= 0x7FFFFFFF:
        syscall("close_range", first, 0x7FFFFFFF, 0)


def close_all_but(keep: tuple[int, ...]) -> None:
    """Close every descriptor that isn't in ``keep``, known to us or not."""
    at = 0
    for fd in sorted(set(keep)):
        if fd > at:
            syscall("close_range", at, fd - 1, 0)
        at = fd + 1
    close_from(at)


def forget_arguments_and_environment(label: bytes) -> None:
    """Overwrite this process's own strings: /proc/PID/cmdline shows ``label`` then, and environ nothing.

    The kernel shows what lies at mm->arg_start..arg_end and env_start..env_end: fields
    48 to 51 of /proc/self/stat (proc_pid_stat(5)). Moving those needs CAP_SYS_RESOURCE;
    overwriting what they point at doesn't.
    """
    fields = read_bytes("/proc/self/stat").rpartition(b")")[2].split()
    # fields[0] is number 3 (state), so number N is at N - 3
    arg_start, arg_end, env_start, env_end = (int(fields[n - 3]) for n in (48, 49, 50, 51))
    if env_start and env_end > env_start:
        overwrite(env_start, env_end - env_start)
    if arg_start and arg_end > arg_start:
        overwrite(arg_start, arg_end - arg_start)
        copy_to(arg_start, label[: arg_end - arg_start - 1])


class Waited:
    """A child that ended or stopped: its wait status, seconds of user and system time, and peak memory in bytes."""

    __slots__ = ("peak", "pid", "status", "system", "user")

    def __init__(self, pid: int, status: int, usage: bytearray) -> None:
        words = [int.from_bytes(usage[at : at + 8], "little", signed=True) for at in range(0, 40, 8)]
        self.pid = pid
        self.status = status
        self.user = words[0] + words[1] / 1e6
        self.system = words[2] + words[3] / 1e6
        self.peak = words[4] * 1024


def wait_for_any() -> Waited | None:
    """wait4(2) for any child that ended or stopped, without waiting; None when there is none.

    Not ``os.wait4``: that imports the module ``resource`` at its first call, when the
    host's files are out of sight.
    """
    status, usage = bytearray(8), bytearray(144)
    try:
        pid = syscall("wait4", -1, address_of(status), os.WNOHANG | os.WUNTRACED, address_of(usage))
    except ChildProcessError:
        return None
    return Waited(pid, int.from_bytes(status[:4], "little"), usage) if pid else None


def write_proc(directory_fd: int, name: str, text: bytes) -> None:
    """Write a /proc file with one write(2), so that the kernel's refusal is seen. Raises OSError with the name."""
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, f"write: {os.strerror(error.errno or 0)}", name) from None
    finally:
        os.close(fd)


def children_of(pid: int) -> tuple[int, ...]:
    """The pids of a process's children, as /proc/PID/task/*/children has them; none when it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in read_bytes(f"/proc/{pid}/task/{task}/children").split()]
    except OSError:
        return tuple(found)
    return tuple(found)
