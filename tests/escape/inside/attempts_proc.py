"""Reaching init, other processes and the kernel's settings through /proc, ptrace and signals."""

from __future__ import annotations

import errno
import mmap
import os
import stat

from kit import (
    FAKE_ROOT,
    STRONG,
    Control,
    Facts,
    Refused,
    address,
    attempt,
    buffer,
    call,
    found_secret,
    opened_for_writing,
    read,
    words,
)

UNDUMPABLE = "init is undumpable"
OPEN_INIT = Control("default without dumpable", needs="no yama")
PID_NAMESPACE = "the pid namespace: no number inside stands for it"
NO_TRACE = f"{PID_NAMESPACE}; a user namespace reaches no process of its parent's (seccomp in full)"
MINIMAL = "minimal"
TRACED = Control("none", needs="no yama")
MASKED = "a mask over it"
PTRACE_SEIZE = 0x4206  # attaches without stopping; the tracer's end detaches


@attempt("EACCES", Control("default without dumpable, wiping", needs="no yama"), by=f"{UNDUMPABLE}, and wiped")
def init_environ(facts: Facts) -> str:
    """Read the caller's variables from /proc/1/environ."""
    return found_secret(read("/proc/1/environ"), facts, "/proc/1/environ")


@attempt("only its label", "default without wiping", by="init overwrites its arguments")
def init_cmdline(facts: Facts) -> str:
    """Read hexe's own arguments from /proc/1/cmdline."""
    text = read("/proc/1/cmdline").strip("\0")
    if text == "hexe: init":
        raise Refused("only its label")
    return text.replace("\0", " ")[:80]


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_memory(facts: Facts) -> str:
    """Open init's memory, which held what the caller's held."""
    return f"descriptor {os.open('/proc/1/mem', os.O_RDWR)}"


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_root(facts: Facts) -> str:
    """Walk into /proc/1/root."""
    return " ".join(os.listdir("/proc/1/root/"))


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_cwd(facts: Facts) -> str:
    """Walk into /proc/1/cwd."""
    return " ".join(os.listdir("/proc/1/cwd/"))


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_descriptors(facts: Facts) -> str:
    """List init's descriptors: its sockets lead to the caller."""
    return " ".join(os.listdir("/proc/1/fd"))


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_executable(facts: Facts) -> str:
    """Open the interpreter that runs Hexe through /proc/1/exe."""
    return f"descriptor {os.open('/proc/1/exe', os.O_RDONLY)}"


@attempt("EACCES", OPEN_INIT, by=UNDUMPABLE)
def init_maps(facts: Facts) -> str:
    """Read init's memory map, for addresses to attack."""
    return read("/proc/1/maps")[:40]


@attempt("EPERM", OPEN_INIT, by=f"{UNDUMPABLE} (and seccomp in full)")
def init_ptrace(facts: Facts) -> str:
    """Attach to init with ptrace(2)."""
    call("ptrace", PTRACE_SEIZE, 1, 0, 0)
    return "init is traced"


@attempt("EPERM", OPEN_INIT, by=f"{UNDUMPABLE} (and seccomp in full)")
def init_process_vm_readv(facts: Facts) -> str:
    """Read init's memory with process_vm_readv(2)."""
    into = buffer(b"", 8)
    local = buffer(words(address(into), 8))
    try:
        places = read("/proc/1/maps").splitlines()
    except PermissionError:
        places = ["400000-"]
    for line in places:
        start = int(line.partition("-")[0], 16)
        try:
            call("process_vm_readv", 1, local, 1, buffer(words(start, 8)), 1, 0)
        except OSError as error:
            if error.errno == errno.EFAULT:
                continue
            raise
        return f"read {into.raw.hex()}"
    raise Refused("no readable address")


@attempt("EPERM", OPEN_INIT, by=f"{UNDUMPABLE} (and seccomp in full)")
def init_pidfd_getfd(facts: Facts) -> str:
    """Take init's sockets with pidfd_getfd(2)."""
    pidfd = call("pidfd_open", 1, 0)
    last: OSError | None = None
    for number in range(32):
        try:
            return f"init's descriptor {number} as {call('pidfd_getfd', pidfd, number, 0)}"
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            last = error
    raise last or Refused("init has no descriptor")


@attempt("ESRCH", MINIMAL, by=PID_NAMESPACE)
def signal_host_process(facts: Facts) -> str:
    """Send a signal to a process of the host."""
    os.kill(facts.victim, 0)
    return "it can be signalled"


@attempt("ESRCH", MINIMAL, by=PID_NAMESPACE)
def pidfd_of_host_process(facts: Facts) -> str:
    """Get a pidfd of a process of the host."""
    return f"pidfd {call('pidfd_open', facts.victim, 0)}"


@attempt("ESRCH", MINIMAL, by=PID_NAMESPACE)
def signal_other_sandbox(facts: Facts) -> str:
    """Send a signal to a process in another sandbox of the same caller."""
    os.kill(facts.neighbour, 0)
    return "it can be signalled"


@attempt("ENOENT", MINIMAL, by=PID_NAMESPACE)
def look_into_other_sandbox(facts: Facts) -> str:
    """Read the command line of a process in another sandbox."""
    return read(f"/proc/{facts.neighbour}/cmdline").replace("\0", " ")


@attempt({"default": "ESRCH", "sandbox": "ESRCH", "full": "EPERM"}, TRACED, by=NO_TRACE)
def ptrace_host_process(facts: Facts) -> str:
    """Attach to a process of the host with ptrace(2)."""
    call("ptrace", PTRACE_SEIZE, facts.victim, 0, 0)
    return "it was traced"


@attempt({"default": "ESRCH", "sandbox": "ESRCH", "full": "EPERM"}, TRACED, by=NO_TRACE)
def read_host_process_memory(facts: Facts) -> str:
    """Read the memory of a process of the host with process_vm_readv(2)."""
    into = buffer(b"", 256)
    remote = buffer(words(facts.victim_at, len(facts.secret)))
    call("process_vm_readv", facts.victim, buffer(words(address(into), len(facts.secret))), 1, remote, 1, 0)
    return found_secret(into.raw.decode("latin-1"), facts, "its memory")


@attempt("ENOENT", TRACED, by=PID_NAMESPACE)
def environ_of_host_process(facts: Facts) -> str:
    """Read the variables of a process of the host from /proc/PID/environ."""
    return found_secret(read(f"/proc/{facts.victim}/environ"), facts, "its environment")


@attempt("ENOENT", TRACED, by=PID_NAMESPACE)
def root_of_host_process(facts: Facts) -> str:
    """Walk to the host's root through /proc/PID/root of a host process."""
    return " ".join(os.listdir(f"/proc/{facts.victim}/root/")[:4])


@attempt("nothing of it in any environ", TRACED, by=PID_NAMESPACE)
def environ_of_anyone(facts: Facts) -> str:
    """Look for the secret in every /proc/PID/environ but one's own."""
    seen = ""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in (os.getpid(), os.getppid()):
            try:
                seen += read(f"/proc/{name}/environ")
            except OSError:
                continue
    return found_secret(seen, facts, "any environ")


@attempt("nothing of it in environ", "default", profiles=STRONG, by="the environment is an allow-list")
def environment_secret(facts: Facts) -> str:
    """Find the caller's secret variable in one's own environment."""
    return found_secret(repr(os.environ), facts, "environ")


# -- the kernel's settings --------------------------------------------------------------------------------------------


@attempt({"default": "EACCES", "sandbox": "EROFS|EACCES", "full": "EROFS|EACCES"}, "host-root", by="no host root; ro")
def core_pattern(facts: Facts) -> str:
    """Open core_pattern for writing: its program would run on the host as root."""
    return opened_for_writing("/proc/sys/kernel/core_pattern")


@attempt(
    {"default": "EACCES|ENOENT", "sandbox": "EROFS|EACCES|ENOENT", "full": "EROFS|EACCES|ENOENT"},
    Control("host-root", needs="file /proc/sys/kernel/modprobe"),
    by="no host root; /proc/sys is read-only",
)
def modprobe_path(facts: Facts) -> str:
    """Open the path of modprobe for writing: the kernel starts it as root."""
    return opened_for_writing("/proc/sys/kernel/modprobe")


@attempt(
    "EROFS|EACCES|ENOENT",
    Control("host-root", needs="file /proc/sysrq-trigger"),
    by="no host root; read-only in sandbox, full",
)
def sysrq_trigger(facts: Facts) -> str:
    """Open sysrq-trigger for writing: it reboots or crashes the machine."""
    return opened_for_writing("/proc/sysrq-trigger")


@attempt(
    "EACCES",
    "full+root without masks, capabilities",
    Control("full+root without capabilities", "REFUSED EROFS"),
    profiles=("full+root",),
    by="no CAP_NET_ADMIN; /proc/sys is read-only, whatever the uid inside",
)
def network_setting_as_root(facts: Facts) -> str:
    """As uid 0 inside, open a setting of the own network namespace for writing: it belongs to that uid."""
    return opened_for_writing("/proc/sys/net/ipv4/ip_forward")


@attempt("EROFS|EACCES", "host-root", profiles=FAKE_ROOT, by="no host root; /proc/sys is read-only")
def core_pattern_as_root(facts: Facts) -> str:
    """As uid 0 inside, open core_pattern for writing."""
    return opened_for_writing("/proc/sys/kernel/core_pattern")


@attempt("EROFS|EACCES", "host-root", profiles=STRONG, by="no host root; /proc/irq is read-only")
def interrupt_affinity(facts: Facts) -> str:
    """Open /proc/irq's default affinity for writing."""
    return opened_for_writing("/proc/irq/default_smp_affinity")


def unmasked(path: str) -> str:
    """Open a file of /proc and see whether it is the kernel's or the mask."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISCHR(os.fstat(fd).st_mode):
        raise Refused("masked")
    return f"{path} is open"


@attempt("masked", "default", profiles=STRONG, by=MASKED)
def kallsyms(facts: Facts) -> str:
    """Read the kernel's symbols from /proc/kallsyms."""
    return unmasked("/proc/kallsyms")


@attempt("masked", "default", profiles=STRONG, by=MASKED)
def proc_keys(facts: Facts) -> str:
    """Read /proc/keys: keys aren't namespaced."""
    return unmasked("/proc/keys")


@attempt("masked", "default", profiles=STRONG, by=MASKED)
def interrupts(facts: Facts) -> str:
    """Read /proc/interrupts: the timing of other users' keystrokes."""
    return unmasked("/proc/interrupts")


@attempt("masked|ENOENT", Control("host-root", needs="file /proc/timer_list"), profiles=STRONG, by=MASKED)
def timer_list(facts: Facts) -> str:
    """Open /proc/timer_list: kernel addresses and other processes' names."""
    return unmasked("/proc/timer_list")


@attempt("masked|ENOENT", Control("host-root", needs="file /proc/kcore"), profiles=STRONG, by=MASKED)
def kcore(facts: Facts) -> str:
    """Open the kernel's memory, /proc/kcore."""
    return unmasked("/proc/kcore")


@attempt("masked|ENOENT", Control("host-root", needs="file /proc/kmsg"), profiles=STRONG, by=MASKED)
def kmsg(facts: Facts) -> str:
    """Open the kernel's log, /proc/kmsg."""
    return unmasked("/proc/kmsg")


# -- one's own /proc --------------------------------------------------------------------------------------------------


@attempt(
    "only a private copy changed",
    "sandbox without read-only, landlock",
    by="the mapping of a read-only file is private",
)
def own_memory_into_read_only_file(facts: Facts) -> str:
    """Write through /proc/self/mem into a mapping of a read-only file (as Dirty COW did)."""
    path = f"{facts.readonly}/kept"
    try:
        fd = os.open(path, os.O_RDWR)
        access, how = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED
    except OSError:
        fd = os.open(path, os.O_RDONLY)
        access, how = mmap.PROT_READ, mmap.MAP_PRIVATE
    before = read(path)
    area = mmap.mmap(fd, len(before), how, access)
    start = next(line for line in read("/proc/self/maps").splitlines() if line.endswith(path)).partition("-")[0]
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(int(start, 16))
        memory.write(b"changed")
    after = read(path)
    if area[:7] != b"changed":
        raise AssertionError("the write to /proc/self/mem changed nothing at all")
    if after == before:
        raise Refused("only a private copy changed")
    os.pwrite(fd, before.encode(), 0)
    return f"{path} was changed"


@attempt("EACCES", Control("host-root", "REFUSED ETXTBSY"), by="/usr is read-only, and not the caller's")
def own_executable(facts: Facts) -> str:
    """Open the running interpreter, /proc/self/exe, for writing."""
    return opened_for_writing("/proc/self/exe")
