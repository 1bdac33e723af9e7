"""The seccomp filter in the kernel: each refusal is a real system call, made with the filter and without.

Each attempt is chosen so that the bare kernel answers something else (a bad descriptor, a
null pointer, success): a test that would pass without the filter is an error here.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyseccomp
import pytest

from hexe.sandbox.filters import load_filter

Attempt = Callable[[], int]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
KILLED = 1000  # plus the signal
MACHINE = os.uname().machine
ROOT = os.geteuid() == 0


class SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def number(name: str, arch: int = pyseccomp.Arch.NATIVE) -> int:
    found = pyseccomp.resolve_syscall(arch, name)
    assert isinstance(found, int)
    return found


def install(program: bytes) -> None:
    """Put the filter on this process. No way back: only in a child."""
    buffer = ctypes.create_string_buffer(program, len(program))
    head = SockFprog(len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.syscall(number("seccomp"), SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(head)):
        raise OSError(ctypes.get_errno(), "seccomp")


def outcome(attempt: Attempt, variant: str | None) -> int:
    """The errno of the attempt in a child, 0 for success, KILLED plus the signal if it died of it."""
    program = load_filter(variant) if variant else None
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            faulthandler.disable()  # a kernel without int 0x80 kills the child, which is no news
            if program:
                install(program)
            os.write(writing, attempt().to_bytes(2, "little"))
        finally:
            os._exit(0)
    os.close(writing)
    answer = os.read(reading, 2)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return KILLED + os.WTERMSIG(status)
    assert answer, "the child failed before the attempt"
    return int.from_bytes(answer, "little")


def raw(nr: int, *args: int | bytes | None) -> int:
    ctypes.set_errno(0)
    passed = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in args]
    passed += [ctypes.c_ulong(0)] * (6 - len(passed))
    if libc.syscall(ctypes.c_long(nr), *passed) == -1:
        return ctypes.get_errno()
    return 0


def call(name: str, *args: int | bytes | None) -> Attempt:
    return lambda: raw(number(name), *args)


def clone(flags: int) -> Attempt:
    def attempt() -> int:
        ctypes.set_errno(0)
        child = libc.syscall(number("clone"), ctypes.c_ulong(flags), *[ctypes.c_ulong(0)] * 4)
        if not child:
            os._exit(0)
        return ctypes.get_errno() if child == -1 else 0

    return attempt


HIGH = 0xABCD_EF01 << 32
NEWUSER = 0x1000_0000
SIGCHLD = int(signal.SIGCHLD)
BAD = 2**64 - 1  # no descriptor; no pointer either

# What an ordinary user may attempt too: the bare kernel's own answer isn't EPERM.
REFUSED: dict[str, Attempt] = {
    "TIOCSTI": call("ioctl", BAD, 0x5412, b"x"),
    "TIOCSTI, high bits": call("ioctl", BAD, HIGH | 0x5412, b"x"),
    "TIOCLINUX": call("ioctl", BAD, 0x541C, b"x"),
    "TIOCLINUX, high bits": call("ioctl", BAD, HIGH | 0x541C, b"x"),
    "TIOCCONS": call("ioctl", BAD, 0x541D),
    "TIOCSETD": call("ioctl", BAD, 0x5423, b"\0\0\0\0"),
    "AF_VSOCK": call("socket", 40, 1, 0),
    "AF_VSOCK, high bits": call("socket", HIGH | 40, 1, 0),
    "AF_ALG": call("socket", 38, 5, 0),
    "AF_NETLINK, sock_diag": call("socket", 16, 3, 4),
    "AF_NETLINK, sock_diag, high bits": call("socket", 16, 3, HIGH | 4),
    "AF_NETLINK, kobject_uevent": call("socket", 16, 2, 15),
    "an unknown family": call("socket", 999, 1, 0),
    "socketpair of AF_INET": call("socketpair", 2, 1, 0, 0),
    "unshare a user namespace": call("unshare", NEWUSER),
    "unshare a user namespace and files": call("unshare", NEWUSER | 0x400),
    "unshare an unknown namespace": call("unshare", 1 << 33),
    "clone a user namespace": clone(NEWUSER | SIGCHLD),
    "clone a user namespace, high bits": clone(HIGH | NEWUSER | SIGCHLD),
    "setns": call("setns", BAD, 0),
    "keyctl": call("keyctl", 0, 2**64 - 3, 0),
    "add_key": call("add_key", None, None, None, 0, 0),
    "request_key": call("request_key", None, None, None, 0),
    "userfaultfd": call("userfaultfd", 0x8001),
    "memfd_secret": call("memfd_secret", 0xFFFF),
    "personality READ_IMPLIES_EXEC": call("personality", 0x40_0000),
    "personality READ_IMPLIES_EXEC, high bits": call("personality", HIGH | 0x40_0000),
    "chroot": call("chroot", b"/nonexistent/root"),
    "kcmp": lambda: raw(number("kcmp"), os.getpid(), os.getpid(), 99, 0, 0),
    "get_mempolicy": call("get_mempolicy", None, None, 0, 0, 0),
    "mbind": call("mbind", 1, 0, 99, 0, 0, 0),
    "io_uring_enter": call("io_uring_enter", BAD, 0, 0, 0, 0, 0),
    "io_uring_register": call("io_uring_register", BAD, 0, 0, 0),
    "fanotify_mark": call("fanotify_mark", BAD, 0, 0, BAD, 0),
    "clock_settime": call("clock_settime", 9999, None),
    "umount2": call("umount2", None, 0xFFFF),
}

# For root only: to a user the bare kernel says EPERM itself. All of these are harmless as they are given.
REFUSED_ROOT: dict[str, Attempt] = {
    "TIOCSTI on a terminal": lambda: raw(number("ioctl"), os.openpty()[1], HIGH | 0x5412, b"x"),
    "AF_PACKET through SOCK_PACKET": call("socket", 2, 10, 0),
    "bpf": call("bpf", 9999, None, 0),
    "perf_event_open": call("perf_event_open", None, 0, 0, 0, 0),
    "io_uring_setup": call("io_uring_setup", 0, None),
    "mount": call("mount", None, None, None, 0, None),
    "pivot_root": call("pivot_root", None, None),
    "open_tree": call("open_tree", BAD, None, 0xFFFF),
    "move_mount": call("move_mount", BAD, None, BAD, None, 0xFFFF),
    "fsopen": call("fsopen", None, 0xFFFF),
    "fsmount": call("fsmount", BAD, 0xFFFF, 0),
    "fspick": call("fspick", BAD, None, 0xFFFF),
    "mount_setattr": call("mount_setattr", BAD, None, 0xFFFF, None, 0),
    "open_by_handle_at": call("open_by_handle_at", BAD, None, 0),
    "fanotify_init": call("fanotify_init", 0xFFFF_FFFF, 0),
    "quotactl": call("quotactl", 0xFFFF_FFFF, None, 0, None),
    "swapon": call("swapon", None, 0),
    "reboot": call("reboot", 0, 0, 0, None),
    "kexec_load": call("kexec_load", 0, 99, None, 0xFFFF_FFFF),
    "init_module": call("init_module", None, 0, None),
    "finit_module": call("finit_module", BAD, None, 0xFFFF),
    "delete_module": call("delete_module", None, 0),
    "settimeofday": call("settimeofday", 1, None),
    "acct": call("acct", 1),
    "syslog": call("syslog", 99, None, 0),
    "sethostname": call("sethostname", None, BAD),
}
REFUSED_X86: dict[str, Attempt] = {
    "modify_ldt": lambda: raw(number("modify_ldt"), 99, None, 0),
    "an x32 number": lambda: raw(0x4000_0000 | number("getpid")),
    "x32's own ioctl": lambda: raw(0x4000_0000 | 514, BAD, 0x5412, b"x"),
}
DEBUGGING: dict[str, Attempt] = {
    "ptrace": call("ptrace", 0, 0, None, None),
    "process_vm_readv": lambda: raw(number("process_vm_readv"), os.getpid(), None, 0, None, 0, 0),
    "process_vm_writev": lambda: raw(number("process_vm_writev"), os.getpid(), None, 0, None, 0, 0),
    "personality ADDR_NO_RANDOMIZE": call("personality", 0x4_0000),
}
ALLOWED: dict[str, Attempt] = {
    "AF_UNIX": call("socket", 1, 1, 0),
    "AF_INET": call("socket", 2, 0x80802, 0),
    "AF_INET6": lambda: raw(number("socket"), 10, 1, 0) % errno.EAFNOSUPPORT,  # a host may have no IPv6
    "AF_INET, rubbish in the unused half": call("socket", HIGH | 2, 1, 0),
    "AF_NETLINK, route": call("socket", 16, 0x80003, 0),
    "unshare files": call("unshare", 0x600),
    "clone like fork": clone(SIGCHLD),
    "ask for the personality": call("personality", 0xFFFF_FFFF),
    "personality PER_LINUX32": call("personality", 8),
    "another ioctl": lambda: raw(number("ioctl"), os.openpty()[1], 0x5401, b" " * 64),
    "a filter of one's own": lambda: _installed_another(),
}


def _installed_another() -> int:
    install(b"\x06\0\0\0\0\0\xff\x7f")  # return allow
    return 0


def check_refused(attempt: Attempt, variant: str, expected: int = errno.EPERM) -> None:
    without = outcome(attempt, None)
    assert without != expected, "proves nothing: without the filter it is the same"
    assert outcome(attempt, variant) == expected, f"without the filter: {without}"


@pytest.mark.parametrize("variant", ["sandbox", "full"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, variant: str) -> None:
    check_refused(REFUSED[name], variant)


@pytest.mark.skipif(not ROOT, reason="to an ordinary user the kernel itself says EPERM; the unit tests run every call")
@pytest.mark.parametrize("name", REFUSED_ROOT)
def test_refused_to_root(name: str) -> None:
    check_refused(REFUSED_ROOT[name], "sandbox")


@pytest.mark.skipif(MACHINE != "x86_64", reason="calls of x86_64")
@pytest.mark.parametrize("name", REFUSED_X86)
def test_refused_on_x86(name: str) -> None:
    check_refused(REFUSED_X86[name], "sandbox")


@pytest.mark.parametrize("name", DEBUGGING)
def test_debugging_is_for_sandbox_and_not_for_full(name: str) -> None:
    assert outcome(DEBUGGING[name], "sandbox") == 0
    check_refused(DEBUGGING[name], "full")


@pytest.mark.parametrize("variant", ["sandbox", "full"])
@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, variant: str) -> None:
    assert outcome(ALLOWED[name], None) == 0
    assert outcome(ALLOWED[name], variant) == 0


def test_clone3_is_unknown_so_that_libc_falls_back() -> None:
    check_refused(call("clone3", None, 0), "sandbox", errno.ENOSYS)


def test_a_number_without_a_name_is_unknown() -> None:
    assert outcome(lambda: raw(999), "sandbox") == errno.ENOSYS  # that real calls get it: the unit tests


# --- the i386 entry, from a 64-bit program ---


# push rbx; the C arguments to eax, ebx, ecx, edx; esi and edi to 0; int 0x80; pop rbx; ret
INT_0X80 = bytes.fromhex("53 89f8 89f3 87d1 31f6 31ff cd80 5b c3")


def call32(name: str, *args: int) -> Attempt:
    # libseccomp's own number for socket is a stand-in for both doors: here the direct one is meant.
    nr = 359 if name == "socket" else number(name, pyseccomp.Arch.X86)

    def attempt() -> int:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(INT_0X80)
        code = ctypes.c_char.from_buffer(page)
        entry = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(ctypes.addressof(code))
        answer: int = entry(nr, *[*args, 0, 0, 0][:3])
        if name == "clone" and answer == 0:
            os._exit(0)
        return max(-answer, 0)

    return attempt


REFUSED_32: dict[str, tuple[Attempt, int]] = {
    "TIOCSTI": (call32("ioctl", 0xFFFF_FFFF, 0x5412), errno.EPERM),
    "AF_VSOCK": (call32("socket", 40, 1, 0), errno.EPERM),
    "AF_NETLINK, sock_diag": (call32("socket", 16, 3, 4), errno.EPERM),
    "socketcall": (call32("socketcall", 1, 0), errno.ENOSYS),
    "unshare a user namespace": (call32("unshare", NEWUSER), errno.EPERM),
    "clone a user namespace": (call32("clone", NEWUSER | SIGCHLD), errno.EPERM),
    "clone3": (call32("clone3", 0, 0), errno.ENOSYS),
    "keyctl": (call32("keyctl", 0, 0xFFFF_FFFD, 0), errno.EPERM),
    "personality": (call32("personality", 0x40_0000), errno.EPERM),
    "modify_ldt": (call32("modify_ldt", 99, 0, 0), errno.EPERM),
}
ALLOWED_32: dict[str, Attempt] = {
    "getpid": call32("getpid"),
    "AF_UNIX": call32("socket", 1, 1, 0),
    "AF_NETLINK, route": call32("socket", 16, 3, 0),
    "clone like fork": call32("clone", SIGCHLD),
    "shmget through ipc": call32("ipc", 23, 0, 4096),
}


@pytest.fixture
def entry32() -> None:
    if MACHINE != "x86_64":
        pytest.skip("int 0x80 is a matter of x86_64")
    if outcome(call32("getpid"), None) == KILLED + signal.SIGSEGV:
        pytest.skip("this kernel has no IA32 emulation")


@pytest.mark.usefixtures("entry32")
@pytest.mark.parametrize("name", REFUSED_32)
def test_refused_through_the_i386_entry(name: str) -> None:
    attempt, expected = REFUSED_32[name]
    check_refused(attempt, "sandbox", expected)


@pytest.mark.usefixtures("entry32")
@pytest.mark.parametrize("name", ALLOWED_32)
def test_allowed_through_the_i386_entry(name: str) -> None:
    assert outcome(ALLOWED_32[name], "sandbox") == 0


# --- programs ---

PYTHON = """
import asyncio, concurrent.futures as f, multiprocessing as m, socket, subprocess, tempfile, threading
def double(n): return 2 * n
async def child():
    p = await asyncio.create_subprocess_exec("echo", "hi", stdout=subprocess.PIPE)
    return (await p.communicate())[0]
if __name__ == "__main__":
    assert m.get_context("fork").Pool(2).map(double, range(9))[8] == 16
    assert list(f.ThreadPoolExecutor(4).map(double, range(9)))[8] == 16
    assert asyncio.run(child()) == b"hi\\n"
    a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
    socket.create_server(("127.0.0.1", 0)).close()
    socket.if_nameindex(); socket.getaddrinfo("localhost", 80)
"""
SHELL = """
set -e
echo one two | tr a-z A-Z | grep -q TWO & wait $!
git init -q repo; cd repo; echo x > file; git add file
git -c user.name=n -c user.email=e@e commit -qm first; git gc -q; git status --short
tar cf - .git | tar tf - > list
"""
HELLO = """
#include <pthread.h>
void *f(void *x) { return x; }
int main() { pthread_t t; return pthread_create(&t, 0, f, 0); }
"""


@pytest.mark.parametrize("variant", ["sandbox", "full"])
@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["bash", "-c", SHELL], id="bash, git, tar"),
        pytest.param(["sh", "-c", "gcc -pthread -o hello -x c - && ./hello"], id="gcc"),
        pytest.param([sys.executable, "-c", PYTHON], id="python"),
        pytest.param([sys.executable, "-m", "pip", "--version"], id="pip"),
    ],
)
def test_programs_work(argv: list[str], variant: str, tmp_path: Path) -> None:
    needed = "gcc" if "gcc" in argv[-1] else argv[0]
    if not shutil.which(needed):
        pytest.skip(f"{needed} is not installed")
    program = load_filter(variant)
    done = subprocess.run(
        argv,
        input=HELLO,
        cwd=tmp_path,
        preexec_fn=lambda: install(program),  # one thread here
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
