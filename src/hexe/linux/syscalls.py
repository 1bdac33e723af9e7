"""System calls by number, for the machines that Hexe knows, and the one way to make them.

The calls go through ``_ctypes``, the C half of ctypes: the package around it costs
1.3 ms to import, and nothing of it is needed here. FUNCFLAG_PYTHONAPI keeps the GIL
during the call. That matters for clone3 (the child must own the interpreter's lock
when it wakes up) and costs nothing for the rest, which never block for long.

Source of the numbers: the kernel's arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import _ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    _IntData = _ctypes._SimpleCData[int]
    _BytesData = _ctypes._SimpleCData[bytes]
else:
    _IntData = _BytesData = _ctypes._SimpleCData

_NEW = {  # since Linux 5.1 a number is the same on every machine
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

_X86_64 = {
    "write": 1,
    "close": 3,
    "ioctl": 16,
    "socket": 41,
    "sendmsg": 46,
    "recvmsg": 47,
    "socketpair": 53,
    "clone": 56,
    "fchdir": 81,
    "chdir": 80,
    "setgroups": 116,
    "setresuid": 117,
    "setresgid": 119,
    "capset": 126,
    "prctl": 157,
    "pivot_root": 155,
    "mount": 165,
    "umount2": 166,
    "sethostname": 170,
    "keyctl": 250,
    "openat": 257,
    "mkdirat": 258,
    "mknodat": 259,
    "symlinkat": 266,
    "signalfd4": 289,
    "rt_sigprocmask": 14,
    "unshare": 272,
    "wait4": 61,
    "seccomp": 317,
}

_AARCH64 = {
    "write": 64,
    "close": 57,
    "ioctl": 29,
    "socket": 198,
    "socketpair": 199,
    "sendmsg": 211,
    "recvmsg": 212,
    "clone": 220,
    "fchdir": 50,
    "chdir": 49,
    "setgroups": 159,
    "setresuid": 147,
    "setresgid": 149,
    "capset": 91,
    "prctl": 167,
    "pivot_root": 41,
    "mount": 40,
    "umount2": 39,
    "sethostname": 161,
    "keyctl": 219,
    "openat": 56,
    "mkdirat": 34,
    "mknodat": 33,
    "symlinkat": 36,
    "signalfd4": 74,
    "rt_sigprocmask": 135,
    "unshare": 97,
    "wait4": 260,
    "seccomp": 277,
}

MACHINE = os.uname().machine
NUMBERS: dict[str, int] = {**{"x86_64": _X86_64, "aarch64": _AARCH64}.get(MACHINE, {}), **_NEW}


class _Long(_IntData):
    _type_ = "l"


class _Char(_BytesData):
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    """A C function that takes and returns longs, sets errno aside, and is called with the GIL held."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long
    _argtypes_ = (_Long,) * 7


class _Signal(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = _Long
    _argtypes_ = (_Long, _Long)


class _Memory(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = _Long
    _argtypes_ = (_Long, _Long, _Long)


_libc = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is the process itself: dlopen(3)
raw = _Function(_ctypes.dlsym(_libc, "syscall"))
_signal = _Signal(_ctypes.dlsym(_libc, "signal"))
_memset = _Memory(_ctypes.dlsym(_libc, "memset"))
_memcpy = _Memory(_ctypes.dlsym(_libc, "memcpy"))
get_errno = _ctypes.get_errno


def supported() -> bool:
    """Whether Hexe knows this machine's system call numbers."""
    return MACHINE in ("x86_64", "aarch64")


def syscall(name: str, *args: int, path: str = "") -> int:
    """Make one system call with up to six integers (addresses among them).

    Returns the call's result. Raises OSError with the call's name, and the path
    if one is given, when the kernel refuses.
    """
    a, b, c, d, e, f = args + (0,) * (6 - len(args))
    result: int = raw(NUMBERS[name], a, b, c, d, e, f)
    if result == -1:
        number = get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", path or None)
    return result


def address_of(buffer: bytearray) -> int:
    """The address of a bytearray's first byte. The caller keeps the bytearray alive and unresized."""
    return _ctypes.addressof(_Char.from_buffer(buffer))


def overwrite(address: int, length: int) -> None:
    """Fill ``length`` bytes of this process's memory at ``address`` with zeros."""
    _memset(address, 0, length)


def copy_to(address: int, data: bytes) -> None:
    """Copy bytes into this process's memory at ``address``."""
    held = bytearray(data)
    _memcpy(address, address_of(held), len(held))


def libc_signal(number: int, handler: int) -> None:
    """signal(2) with 0 = SIG_DFL or 1 = SIG_IGN, without importing the signal module (3 ms of enum)."""
    _signal(number, handler)
