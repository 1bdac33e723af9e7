"""System calls that open the kernel's larger attack surfaces, or belong to the machine and not to a sandbox."""

from __future__ import annotations

import os

from kit import STRONG, Control, Facts, Refused, attempt, buffer, call, read, words

FILTER = "seccomp"
NO_FILTER = "sandbox without seccomp"
FULL_NO_FILTER = "full without seccomp"
HOST_ONLY = "no capability on the host (and seccomp in sandbox, full)"
KEYCTL_SEARCH, KEYCTL_READ = 10, 11
SESSION_KEYRING = -3


@attempt(
    {"default": "ENOKEY", "sandbox": "EPERM", "full": "EPERM"},
    "default without keyring",
    "sandbox without seccomp, keyring",
    by="a new, empty session keyring (and seccomp in sandbox, full)",
)
def session_keyring(facts: Facts) -> str:
    """Read a key from the caller's session keyring."""
    key = call("keyctl", KEYCTL_SEARCH, SESSION_KEYRING, b"user", facts.key_name.encode(), 0)
    into = buffer(b"", 256)
    size = call("keyctl", KEYCTL_READ, key, into, 256, 0)
    return f"read {size} bytes"


@attempt(
    {"default": "EACCES|not listed", "sandbox": "not listed", "full": "not listed"},
    "none",
    by="a new session keyring: what isn't possessed isn't readable by its number (masked /proc/keys, seccomp)",
)
def key_by_number(facts: Facts) -> str:
    """Find the number of the caller's key in /proc/keys, and read it by that."""
    refusal: Exception = Refused("not listed")
    for line in read("/proc/keys").splitlines():
        if facts.key_name in line:
            try:
                return f"read {call('keyctl', KEYCTL_READ, int(line.split()[0], 16), buffer(b'', 256), 256, 0)} bytes"
            except OSError as error:
                refusal = error  # a key of an earlier session, not collected yet
    raise refusal


@attempt("EPERM", NO_FILTER, FULL_NO_FILTER, profiles=STRONG, by=FILTER)
def add_key(facts: Facts) -> str:
    """Add a key to the kernel's keyrings."""
    return f"key {call('add_key', b'user', b'hexe-escape', b'x', 1, SESSION_KEYRING)}"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED ENOKEY"), profiles=STRONG, by=FILTER)
def request_key(facts: Facts) -> str:
    """Make the kernel look for a key: it may start a helper on the host."""
    return f"key {call('request_key', b'user', b'hexe-no-such-key', None, 0)}"


@attempt("EPERM", Control("host-root"), by=HOST_ONLY, profiles=STRONG)
def bpf(facts: Facts) -> str:
    """Make a BPF map."""
    attributes = buffer(b"".join(n.to_bytes(4, "little") for n in (2, 4, 8, 1)), 128)
    os.close(call("bpf", 0, attributes, 128))
    return "a BPF map"


@attempt("EPERM", Control("host-root", "ESCAPED|REFUSED (ENOENT|EOPNOTSUPP)"), profiles=STRONG, by=FILTER)
def perf_event(facts: Facts) -> str:
    """Count events with perf_event_open(2)."""
    # A software event (the CPU clock) of this process, outside of the kernel: perf_event_attr's first three words.
    attributes = buffer((1).to_bytes(4, "little") + (128).to_bytes(4, "little") + bytes(32) + words(0x20 | 0x40), 128)
    os.close(call("perf_event_open", attributes, 0, -1, -1, 0))
    return "a counter"


@attempt("EPERM", Control(NO_FILTER, needs="zero /proc/sys/kernel/io_uring_disabled"), profiles=STRONG, by=FILTER)
def io_uring(facts: Facts) -> str:
    """Set up an io_uring, whose operations no filter sees."""
    os.close(call("io_uring_setup", 4, buffer(b"", 120)))
    return "a ring"


@attempt("EPERM", NO_FILTER, profiles=STRONG, by=FILTER)
def userfaultfd(facts: Facts) -> str:
    """Get a userfaultfd, the usual tool to win the kernel's races."""
    os.close(call("userfaultfd", 1))
    return "a descriptor"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED ENOSYS"), profiles=STRONG, by=FILTER)
def memfd_secret(facts: Facts) -> str:
    """Get memory that even the host's administrator can't read."""
    os.close(call("memfd_secret", 0))
    return "secret memory"


@attempt("EPERM", "host-root", by=HOST_ONLY)
def open_by_handle(facts: Facts) -> str:
    """Open a file by its handle, past every path (the Shocker escape)."""
    handle = buffer((128).to_bytes(4, "little"), 136)
    mount_id = buffer(b"", 4)
    call("name_to_handle_at", -100, f"{facts.readonly}/kept".encode(), handle, mount_id, 0)
    directory = os.open(facts.readonly, os.O_RDONLY)
    os.close(call("open_by_handle_at", directory, handle, os.O_RDONLY))
    return "opened by handle"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED ENOSYS"), profiles=STRONG, by=FILTER)
def fanotify(facts: Facts) -> str:
    """Watch the file system with fanotify(7)."""
    os.close(call("fanotify_init", 0x200, 0))  # FAN_REPORT_FID: the kind that needs no capability
    return "a notification group"


@attempt("EPERM", Control(NO_FILTER, "ESCAPED|REFUSED ENOSYS"), profiles=STRONG, by=FILTER)
def quotactl(facts: Facts) -> str:
    """Administer quotas (here: write them to disk)."""
    call("quotactl", 0x800001 << 8, None, 0, None)
    return "quotas were synced"


@attempt("EPERM", NO_FILTER, profiles=STRONG, by=FILTER, machine="x86_64")
def modify_ldt(facts: Facts) -> str:
    """Read one's segment descriptors with modify_ldt(2)."""
    return f"{call('modify_ldt', 0, buffer(b'', 64), 64)} bytes"


@attempt("EPERM", NO_FILTER, profiles=STRONG, by=FILTER)
def personality(facts: Facts) -> str:
    """Switch READ_IMPLIES_EXEC on."""
    call("personality", 0x0400000)
    return "read implies execute"


@attempt("EPERM", NO_FILTER, profiles=STRONG, by=FILTER)
def adjtimex(facts: Facts) -> str:
    """Ask for the state of the clock (the same call sets it)."""
    return f"state {call('adjtimex', buffer(b'', 256))}"


@attempt("EPERM", "host-root", by=HOST_ONLY)
def set_clock(facts: Facts) -> str:
    """Set the machine's clock (here: only its time zone, to none)."""
    call("settimeofday", None, buffer(bytes(8)))
    return "the clock is settable"


@attempt("EPERM", Control("host-root", "REFUSED EINVAL"), by=HOST_ONLY)
def reboot(facts: Facts) -> str:
    """Reboot (here: with wrong magic numbers)."""
    call("reboot", 1, 2, 3, None)
    return "going down"


@attempt("EPERM", Control("host-root", "REFUSED (EINVAL|ENOSYS)"), profiles=STRONG, by=HOST_ONLY)
def kexec(facts: Facts) -> str:
    """Load another kernel (here: with impossible flags)."""
    call("kexec_load", 0, 0, None, 0xFFFF)
    return "loaded"


@attempt("EPERM", Control("host-root", "REFUSED (ENOEXEC|ENOSYS|EFAULT)"), profiles=STRONG, by=HOST_ONLY)
def load_module(facts: Facts) -> str:
    """Load a kernel module (here: an empty one)."""
    call("init_module", None, 0, b"")
    return "loaded"


@attempt("EPERM", Control("host-root", "REFUSED (ENOENT|ENOSYS)"), profiles=STRONG, by=HOST_ONLY)
def unload_module(facts: Facts) -> str:
    """Unload a kernel module (one that doesn't exist)."""
    call("delete_module", b"hexe_no_such_module", os.O_NONBLOCK)
    return "unloaded"


@attempt("EPERM", Control("host-root", "REFUSED ENOENT"), by=HOST_ONLY)
def swapon(facts: Facts) -> str:
    """Give the kernel memory pages from a file (one that doesn't exist)."""
    call("swapon", b"/hexe-no-such-file", 0)
    return "swapping"


@attempt("EPERM", Control("host-root", "REFUSED (ENOENT|ENOSYS)"), by=HOST_ONLY, profiles=STRONG)
def process_accounting(facts: Facts) -> str:
    """Write process accounting into a file (one that doesn't exist)."""
    call("acct", b"/hexe-no-such-file")
    return "accounting"


@attempt("EPERM", "host-root", profiles=STRONG, by=HOST_ONLY)
def kernel_log(facts: Facts) -> str:
    """Read the kernel's log with syslog(2)."""
    return f"{call('syslog', 3, buffer(b'', 4096), 4096)} bytes"


@attempt("EPERM", Control("host-root", "ESCAPED|REFUSED ENOSYS"), profiles=STRONG, by=HOST_ONLY, machine="x86_64")
def raw_ports(facts: Facts) -> str:
    """Get raw access to I/O ports."""
    call("iopl", 3)
    return "I/O ports"


@attempt("EPERM", "sandbox without seccomp, capabilities, landlock", profiles=STRONG, by="no CAP_SYS_ADMIN; seccomp")
def set_host_name(facts: Facts) -> str:
    """Change the sandbox's label, its host name."""
    call("sethostname", b"other", 5)
    return os.uname().nodename
