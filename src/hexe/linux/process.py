"""Making and reading processes: clone3, prctl, pidfds, the null device, what /proc says."""

from __future__ import annotations

import os

from hexe.linux.constants import SIGCHLD
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
    return syscall("clone3", address_of(args), 64)


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
    """Overwrite this process's own argument and environment strings: /proc/PID/cmdline shows ``label``, environ nothing.

    The kernel shows what lies at mm->arg_start..arg_end and env_start..env_end: fields
    48 to 51 of /proc/self/stat (proc_pid_stat(5)). Moving those needs CAP_SYS_RESOURCE;
    overwriting what they point at doesn't.
    """
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    # fields[0] is number 3 (state), so number N is at N - 3
    arg_start, arg_end, env_start, env_end = (int(fields[n - 3]) for n in (48, 49, 50, 51))
    if env_start and env_end > env_start:
        overwrite(env_start, env_end - env_start)
    if arg_start and arg_end > arg_start:
        overwrite(arg_start, arg_end - arg_start)
        copy_to(arg_start, label[: arg_end - arg_start - 1])


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
            with open(f"/proc/{pid}/task/{task}/children", "rb") as children:
                found += [int(word) for word in children.read().split()]
    except OSError:
        return tuple(found)
    return tuple(found)
