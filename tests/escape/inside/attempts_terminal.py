"""Pushing keys into terminals. What the caller's own terminal would get is in test_streams.py."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pty
import termios

from kit import STRONG, Control, Facts, Refused, attempt, buffer, call

TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
# A kernel with dev.tty.legacy_tiocsti=0 says EIO by itself, to everyone.
TYPED = Control("sandbox without seccomp", "ESCAPED|REFUSED EIO")
FULL_TYPED = Control("full without seccomp", "ESCAPED|REFUSED EIO")


def own_terminal() -> int:
    """Become the leader of a session with a new terminal of its own; the terminal's descriptor."""
    os.setsid()
    _, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return slave


@attempt("EPERM", TYPED, FULL_TYPED, profiles=STRONG, by="seccomp refuses ioctl TIOCSTI")
def tiocsti(facts: Facts) -> str:
    """Type a character into the controlling terminal with TIOCSTI."""
    call("ioctl", own_terminal(), TIOCSTI, buffer(b"x"))
    return "a character was typed"


@attempt("EPERM", TYPED, FULL_TYPED, profiles=STRONG, by="seccomp compares the low 32 bits of the request")
def tiocsti_high_bits(facts: Facts) -> str:
    """TIOCSTI with bits set above the 32 that the kernel looks at (CVE-2019-10063)."""
    call("ioctl", own_terminal(), 0xDEADBEEF_00000000 | TIOCSTI, buffer(b"x"))
    return "a character was typed"


@attempt(
    "EPERM",
    Control("sandbox without seccomp", "REFUSED ENOTTY"),
    Control("full without seccomp", "REFUSED ENOTTY"),
    profiles=STRONG,
    by="seccomp refuses ioctl TIOCLINUX",
)
def tioclinux(facts: Facts) -> str:
    """Paste the selection of a virtual console with TIOCLINUX."""
    call("ioctl", own_terminal(), TIOCLINUX, buffer(b"\x03"))
    return "the selection was pasted"


@attempt("EPERM", "sandbox without seccomp", profiles=STRONG, by="seccomp refuses ioctl TIOCSETD")
def tiocsetd(facts: Facts) -> str:
    """Load a line discipline's driver with TIOCSETD."""
    call("ioctl", own_terminal(), TIOCSETD, buffer(bytes(4)))
    return "the line discipline was set"


def int80(number: int, *args: int) -> int:
    """A system call by the i386 entry; its result, negative for an errno."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise Refused("not a 64-bit process")
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; mov edx, ecx(4th) ...; int 0x80; pop rbx; ret
    code = bytes.fromhex("53 89f8 89f3 4189c8 89d1 4489c2 cd80 5b c3")
    low_memory = 0x40  # MAP_32BIT
    page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low_memory, mmap.PROT_WRITE | mmap.PROT_READ)
    page.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(4096), 5):
        raise AssertionError("mprotect failed")
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(start)
    return int(function(number, *(args + (0,) * (3 - len(args)))))


def int80_checked(number: int, *args: int) -> int:
    """The same, raising OSError. Skips nothing: getpid proves first that the entry exists."""
    if int80(20) != os.getpid():
        raise Refused("this kernel has no i386 entry")
    result = int80(number, *args)
    if result < 0:
        raise OSError(-result, "int 0x80")
    return result


@attempt(
    "EPERM",
    TYPED,
    profiles=STRONG,
    by="seccomp covers the 32-bit sibling of the machine",
    machine="x86_64",
)
def tiocsti_by_int80(facts: Facts) -> str:
    """TIOCSTI by the i386 entry (int 0x80)."""
    terminal = own_terminal()
    low = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
    low.write(b"x")
    int80_checked(54, terminal, TIOCSTI, ctypes.addressof(ctypes.c_char.from_buffer(low)))
    return "a character was typed"


@attempt(
    "EPERM",
    "sandbox without seccomp",
    profiles=STRONG,
    by="seccomp covers the 32-bit sibling of the machine",
    machine="x86_64",
)
def unshare_by_int80(facts: Facts) -> str:
    """A new user namespace by the i386 entry."""
    int80_checked(310, 0x10000000)
    return "a new user namespace"


@attempt(
    "ENOSYS",
    Control("sandbox without seccomp", "ESCAPED|REFUSED EAFNOSUPPORT"),
    profiles=STRONG,
    by="seccomp answers socketcall as a whole, since its arguments lie in memory",
    machine="x86_64",
)
def socketcall_by_int80(facts: Facts) -> str:
    """A vsock socket by i386's socketcall, whose arguments no filter can see."""
    low = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
    low.write((40).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(4))
    int80_checked(102, 1, ctypes.addressof(ctypes.c_char.from_buffer(low)))
    return "an AF_VSOCK socket"


@attempt(
    "EPERM",
    Control("sandbox without seccomp", "ESCAPED|REFUSED ENOSYS"),
    profiles=STRONG,
    by="seccomp takes the x32 numbers for a foreign architecture",
    machine="x86_64",
)
def unshare_by_x32(facts: Facts) -> str:
    """A new user namespace by its x32 number (bit 30 set)."""
    from kit import call_number

    call_number(0x40000000 | 272, 0x10000000, what="x32 unshare")
    return "a new user namespace"
