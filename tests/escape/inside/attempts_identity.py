"""Gaining ids or capabilities: setuid files, file capabilities, exec as a fake root, capset, ambient ones."""

from __future__ import annotations

import os

from kit import FAKE_ROOT, Control, Facts, Refused, attempt, buffer, call, capability_line, read

CAPABILITIES_KEPT = "default without capabilities"
PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_SET_MM, PR_SET_NO_NEW_PRIVS = 28, 47, 35, 38
ANOTHER = 4242


def output_of(*argv: str) -> str:
    """The output of a program that is started here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writing, 1)
            os.execv(argv[0], argv)
        finally:
            os._exit(126)
    os.close(writing)
    text = b""
    while part := os.read(reading, 4096):
        text += part
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if status:
        raise Refused(f"not started: status {status}")
    return text.decode()


@attempt("the uid stays", Control("host", needs="root"), by="no_new_privs, nosuid on every bind, and ids without a map")
def setuid_binary(facts: Facts) -> str:
    """Start a setuid program of another user that lies in a bind."""
    uid = int(output_of(f"{facts.readonly}/id-setuid", "-u"))
    if uid == os.getuid():
        raise Refused("the uid stays")
    return f"uid {uid}"


@attempt(
    "no capabilities", Control("host", needs="root"), by="no_new_privs, nosuid on every bind, an empty bounding set"
)
def file_capabilities(facts: Facts) -> str:
    """Start a program with file capabilities that lies in a bind."""
    for line in output_of(f"{facts.readonly}/cat-capable", "/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            if effective:
                return f"CapEff {effective:x}"
            raise Refused("no capabilities")
    raise AssertionError("no CapEff")


@attempt(
    "no capabilities",
    "sandbox+root without capabilities",
    "full+root without capabilities",
    profiles=FAKE_ROOT,
    by="an empty bounding set, securebits locked at NOROOT",
)
def exec_as_fake_root(facts: Facts) -> str:
    """As uid 0 inside, start a program: exec gives root its capabilities back."""
    for line in output_of("/bin/cat", "/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            if effective:
                return f"CapEff {effective:x}"
            raise Refused("no capabilities")
    raise AssertionError("no CapEff")


def capset(permitted: int, inheritable: int = 0) -> None:
    """capset(2) of the lower 32 capabilities."""
    header = buffer((0x20080522).to_bytes(4, "little") + bytes(4))
    data = b"".join(value.to_bytes(4, "little") for value in (permitted, permitted, inheritable)) + bytes(12)
    call("capset", header, buffer(data))


@attempt("EPERM", CAPABILITIES_KEPT, by="a permitted set never grows without exec")
def capset_all(facts: Facts) -> str:
    """Ask for CAP_SYS_ADMIN with capset(2)."""
    capset(1 << 21)
    return f"CapEff {capability_line('CapEff'):x}"


@attempt("EPERM", CAPABILITIES_KEPT, by="nothing permitted to raise, and the securebits forbid it")
def ambient_capability(facts: Facts) -> str:
    """Raise an ambient capability, which every exec keeps."""
    if capability_line("CapEff"):
        capset(1 << 21, 1 << 21)
    call("prctl", PR_CAP_AMBIENT, 2, 21, 0, 0)
    return f"CapAmb {capability_line('CapAmb'):x}"


@attempt("EPERM", CAPABILITIES_KEPT, by="no CAP_SETPCAP, and the bits are locked")
def clear_securebits(facts: Facts) -> str:
    """Take the securebits off, so that uid 0 means something again."""
    call("prctl", PR_SET_SECUREBITS, 0, 0, 0, 0)
    return "the securebits are clear"


@attempt(
    "EINVAL", Control("default without no-new-privs", "REFUSED it was never set"), by="the kernel: it can't be unset"
)
def clear_no_new_privs(facts: Facts) -> str:
    """Take no_new_privs off."""
    if capability_line("NoNewPrivs") == 0:
        raise Refused("it was never set")
    call("prctl", PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
    return "no_new_privs is off"


@attempt("EINVAL|EPERM", "host-root", by="only one id has a map")
def become_another_user(facts: Facts) -> str:
    """setresuid to another user's id."""
    os.setresuid(ANOTHER, ANOTHER, ANOTHER)
    return f"uid {os.getuid()}"


@attempt("EINVAL|EPERM", "host-root", by="only one id has a map")
def become_another_group(facts: Facts) -> str:
    """setresgid to another group's id."""
    os.setresgid(ANOTHER, ANOTHER, ANOTHER)
    return f"gid {os.getgid()}"


@attempt("EPERM", "host-root", by="no CAP_SETGID, and setgroups is denied to an ordinary user's namespace")
def join_groups(facts: Facts) -> str:
    """Join supplementary groups."""
    os.setgroups([ANOTHER])
    return f"groups {os.getgroups()}"


@attempt("EINVAL|EPERM", "host-root", by="only one id has a map", profiles=FAKE_ROOT)
def fake_root_becomes_another_user(facts: Facts) -> str:
    """As uid 0 inside, setresuid to another user's id."""
    os.setresuid(ANOTHER, ANOTHER, ANOTHER)
    return f"uid {os.getuid()}"


@attempt("EPERM", Control("host-root", needs="capability 24 CAP_SYS_RESOURCE"), by="no CAP_SYS_RESOURCE on the host")
def move_own_memory_map(facts: Facts) -> str:
    """Change what /proc/self/exe and cmdline claim, with PR_SET_MM."""
    fields = read("/proc/self/stat").rpartition(")")[2].split()
    start_of_arguments = 8
    call("prctl", PR_SET_MM, start_of_arguments, int(fields[48 - 3]), 0, 0)
    return "the memory map's fields can be set"
