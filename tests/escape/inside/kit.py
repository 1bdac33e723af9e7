"""What the attempts are written with: raw system calls, the registry, and the verdicts.

These modules run in two places. The tests import them for the table; inside a sandbox
``main.py`` imports them with a bare ``python3 -I -S``, so they use the standard library only.
Importing one does nothing but fill the table.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from typing import NamedTuple

ALL = ("default", "sandbox", "full")
STRONG = ("sandbox", "full")
FULL = ("full",)
FAKE_ROOT = ("sandbox+root", "full+root")


class Facts(NamedTuple):
    """What the outside prepared and the attempts aim at. All paths are the same inside and outside."""

    secret: str
    """Stands in everything that must not be readable."""
    writable: str
    """A directory of the caller's, bound rw."""
    readonly: str
    """A directory of the caller's, bound ro; it holds the file ``kept``."""
    elsewhere: str
    """A directory of the host that no bind shows; it holds ``secret`` and the socket ``listener``."""
    other_home: str
    """A world-readable directory under /home that isn't the caller's."""
    victim: int
    """A process of the host with the sandbox's own host uid, the secret in its environment and at ``victim_at``."""
    victim_at: int
    neighbour: int
    """A process in another sandbox of the same caller."""
    abstract: str
    """The name of an abstract socket on which the host listens."""
    tcp_port: int
    ipc_key: int
    """The key of a System V segment, queue and semaphore of the host."""
    shm_name: str
    """A file in the host's /dev/shm, and a POSIX message queue, of this name."""
    key_name: str
    """The description of a user key in the caller's session keyring."""
    cache: str
    """Where the caller's Hexe keeps its seccomp filters."""
    block_device: str
    """A disk of the host, under /dev."""


class Control(NamedTuple):
    """The same attempt without the protection: where it runs, and what it must come to there.

    ``setting`` is a profile, ``PROFILE without PART, PART`` (see settings.py), ``host`` (as the
    caller, without Hexe) or ``host-root``. ``needs`` names what the control needs of the machine.
    """

    setting: str
    verdict: str = "ESCAPED"
    needs: str = ""


class Attempt(NamedTuple):
    """One attempt: ``refusal`` is what it must come to, by profile, as a regular expression of the whole verdict."""

    name: str
    area: str
    run: Callable[[Facts], str]
    stopped_by: str
    refusal: dict[str, str]
    controls: tuple[Control, ...]
    machine: str

    @property
    def about(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0].rstrip(".")


ATTEMPTS: dict[str, Attempt] = {}


class Refused(Exception):
    """The attempt got an answer, but not what it was after; the text says what it got."""


def attempt(
    refusal: str | dict[str, str],
    *controls: Control | str,
    profiles: tuple[str, ...] = ALL,
    by: str,
    machine: str = "",
) -> Callable[[Callable[[Facts], str]], Callable[[Facts], str]]:
    """Put a function into the table. It returns what it gained (an escape), or raises OSError or Refused."""
    expected = dict.fromkeys(profiles, refusal) if isinstance(refusal, str) else refusal

    def register(function: Callable[[Facts], str]) -> Callable[[Facts], str]:
        name = function.__name__
        assert name not in ATTEMPTS, f"two attempts are named {name}"
        assert function.__doc__, f"{name} needs a docstring: it is the table's line"
        area = function.__module__.removeprefix("attempts_")
        made = tuple(Control(each) if isinstance(each, str) else each for each in controls)
        ATTEMPTS[name] = Attempt(name, area, function, by, expected, made, machine)
        return function

    return register


# -- system calls -----------------------------------------------------------------------------------------------------

X86_64 = platform.machine() == "x86_64"
_X86 = {
    "ioctl": 16,
    "clone": 56,
    "ptrace": 101,
    "syslog": 103,
    "setgroups": 116,
    "capset": 126,
    "mknod": 133,
    "personality": 135,
    "modify_ldt": 154,
    "pivot_root": 155,
    "prctl": 157,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "reboot": 169,
    "sethostname": 170,
    "iopl": 172,
    "init_module": 175,
    "delete_module": 176,
    "quotactl": 179,
    "semget": 64,
    "shmget": 29,
    "shmat": 30,
    "msgget": 68,
    "msgrcv": 70,
    "mq_open": 240,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "bpf": 321,
    "userfaultfd": 323,
}
_ARM = {
    "ioctl": 29,
    "clone": 220,
    "ptrace": 117,
    "syslog": 116,
    "setgroups": 159,
    "capset": 91,
    "personality": 92,
    "pivot_root": 41,
    "prctl": 167,
    "adjtimex": 171,
    "chroot": 51,
    "acct": 89,
    "settimeofday": 170,
    "mount": 40,
    "umount2": 39,
    "swapon": 224,
    "reboot": 142,
    "sethostname": 161,
    "init_module": 105,
    "delete_module": 106,
    "quotactl": 60,
    "semget": 190,
    "shmget": 194,
    "shmat": 196,
    "msgget": 186,
    "msgrcv": 188,
    "mq_open": 180,
    "kexec_load": 104,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "unshare": 97,
    "perf_event_open": 241,
    "fanotify_init": 262,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "setns": 268,
    "process_vm_readv": 270,
    "bpf": 280,
    "userfaultfd": 282,
}
_NEW = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "clone3": 435,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "memfd_secret": 447,
}
NUMBERS = {**(_X86 if X86_64 else _ARM), **_NEW}

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

Argument = int | bytes | None | ctypes.Array[ctypes.c_char]


def checked(result: int, what: str) -> int:
    """The result, or an OSError with errno."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def call_number(number: int, *args: Argument, what: str = "") -> int:
    """One system call by its number. Text is passed as bytes, memory as a ctypes buffer."""
    given: list[object] = []
    for value in args:
        given.append(ctypes.c_ulong(value & 0xFFFFFFFFFFFFFFFF) if isinstance(value, int) else value)
    return checked(int(_syscall(ctypes.c_long(number), *given)), what or str(number))


def call(name: str, *args: Argument) -> int:
    """One system call by its name; raises OSError."""
    return call_number(NUMBERS[name], *args, what=name)


def buffer(content: bytes, size: int = 0) -> ctypes.Array[ctypes.c_char]:
    """Memory to hand to the kernel."""
    return ctypes.create_string_buffer(content, max(size, len(content), 1))


def address(memory: ctypes.Array[ctypes.c_char]) -> int:
    """Where the memory lies."""
    return ctypes.addressof(memory)


def words(*values: int) -> bytes:
    """64-bit words, as many of the kernel's structures are made of."""
    return b"".join((value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little") for value in values)


# -- small things that several attempts do ----------------------------------------------------------------------------


def read(path: str) -> str:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(65536).decode("utf-8", "replace")


def opened_for_writing(path: str, extra: int = 0) -> str:
    """Open an existing file for writing, and write nothing: enough to know. Raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | extra))
    return f"{path} can be opened for writing"


def found_secret(text: str, facts: Facts, where: str) -> str:
    """The attempt is a success when the secret stands in the text."""
    if facts.secret in text:
        return f"the secret stands in {where}"
    raise Refused(f"nothing of it in {where}")


def capability_line(name: str, path: str = "/proc/self/status") -> int:
    """A Cap* line of a status file."""
    for line in read(path).splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1], 16)
    raise AssertionError(f"no {name} in {path}")


CAP_SYS_ADMIN = 21
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD = -100


def private_mounts() -> None:
    """In a control that may mount: a copy of the mounts, so that no attempt touches the host's, or the next one's.

    It belongs to the same user namespace, so nothing in it is locked that wasn't before.
    """
    if capability_line("CapEff") >> CAP_SYS_ADMIN & 1:
        try:
            call("unshare", CLONE_NEWNS)
        except PermissionError:
            return  # a seccomp filter stands before it: then nothing can be mounted either
        with contextlib.suppress(PermissionError):  # Landlock forbids it, and every other mount
            call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def become_privileged_in_a_nested_namespace() -> None:
    """A nested user and mount namespace, with every capability in it, unless this process has some already.

    The control keeps the capabilities of the sandbox's own user namespace: then there is nothing to nest.
    """
    if capability_line("CapEff"):
        return
    uid, gid = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        except PermissionError:
            pass  # uid 0 without CAP_SETFCAP may not map itself (user_namespaces(7)); the capabilities are there anyway
        os.close(fd)
    assert capability_line("CapEff"), "the nested namespace gave no capability"
