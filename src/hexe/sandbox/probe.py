"""Probing: read the host and the caller once, into HostFacts. The only part of planning that does I/O."""

from __future__ import annotations

import os
import stat
from errno import ENOSYS, EOPNOTSUPP, errorcode

import hexe
from hexe.linux import constants as c
from hexe.linux.files import read_bytes, status_field
from hexe.linux.syscalls import MACHINE, syscall
from hexe.policy.host import NOBODY, Entry, HostFacts, Stream
from hexe.policy.model import normalize
from hexe.records import Record
from hexe.sandbox.filesystem import PROC_MASKED, PROC_READ_ONLY, covers
from hexe.sandbox.filters import cache_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.model import Policy

_NEEDED_CAPABILITIES = (1 << 21) | (1 << 7) | (1 << 6)  # SYS_ADMIN, SETUID, SETGID


class Caller(Record):
    """Who asks: ids, name, environment, working directory, and its own home if that lies under /home (else empty)."""

    uid: int
    gid: int
    user: str
    home: str
    cwd: str
    environment: dict[str, str]


def find_caller() -> Caller:
    """The caller of this process."""
    uid, environment = os.getuid(), dict(os.environ)
    user, home = find_home(uid, environment)
    return Caller(uid, os.getgid(), user, home, current_directory(), environment)


def probe(policy: Policy, caller: Caller) -> HostFacts:
    """The facts that this policy's plan depends on."""
    uid, home = caller.uid, caller.home
    entries: dict[str, Entry] = {}
    if policy.mount_namespace:
        for path in policy.read_only:
            entries[path] = look_at(path, follow=False)
        for mount in policy.mounts:
            if mount.source:
                entries[mount.source] = look_at(mount.source, follow=True)
        if home:
            entries.setdefault(home, look_at(home, follow=True))
    effective = effective_capabilities()
    host_root = uid == 0 and is_initial_user_namespace()
    return HostFacts(
        kernel=kernel_version(),
        machine=MACHINE,
        uid=uid,
        gid=caller.gid,
        user=caller.user,
        home=home,
        home_real=os.path.realpath(home) if home else "",
        cwd=caller.cwd,
        host_root=host_root,
        capable=effective & _NEEDED_CAPABILITIES == _NEEDED_CAPABILITIES,
        root_stand_in=stand_in_for_root() if host_root else uid,
        environment=caller.environment,
        entries=entries,
        resolv_conf=resolv_conf_target(),
        namespaces=frozenset(os.listdir("/proc/self/ns")),
        max_user_namespaces=read_number("/proc/sys/user/max_user_namespaces", 1),
        userns_clone=read_number("/proc/sys/kernel/unprivileged_userns_clone", -1),
        apparmor_restricts=apparmor_restricts(),
        landlock_abi=landlock_abi() if policy.landlock else 0,
        seccomp=os.path.exists("/proc/sys/kernel/seccomp"),
        proc_entries=proc_entries() if policy.mask_proc else frozenset(),
        last_capability=read_number("/proc/sys/kernel/cap_last_cap", 40),
        streams=(look_at_stream(0), look_at_stream(1), look_at_stream(2)),
        protected=protected_paths() if policy.mount_namespace else (),
        names=names_for(policy),
        own_filters=int(status_field(b"Seccomp_filters") or 0) if policy.seccomp else 0,
    )


def find_home(uid: int, environment: dict[str, str]) -> tuple[str, str]:
    """The caller's name, and its own home if that lies under /home: $HOME first, then the user database."""
    user, recorded = name_and_home(uid)
    for candidate in (environment.get("HOME", ""), recorded):
        home = normalize(candidate) if candidate.startswith("/") else ""
        if not home.startswith("/home/"):
            continue
        try:
            found = os.stat(home)
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
            return user, home
    return user, ""


def name_and_home(uid: int) -> tuple[str, str]:
    """The user database's name and home of a uid: /etc/passwd first, since a name service takes 0.2 ms and more."""
    wanted = str(uid)
    for line in read_text("/etc/passwd").split("\n"):
        fields = line.split(":")
        if len(fields) == 7 and fields[2] == wanted:
            return fields[0], fields[5]
    import pwd

    try:
        entry = pwd.getpwuid(uid)
        return entry.pw_name, entry.pw_dir
    except KeyError:
        return wanted, ""


def current_directory() -> str:
    """The working directory; / when it was deleted or may not be named."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def look_at(path: str, *, follow: bool) -> Entry:
    """What a path of the host is."""
    try:
        found = os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        parent = path
        while parent != "/" and not os.path.exists(parent):
            parent = os.path.dirname(parent)
        return Entry("missing", nearest=parent)
    except OSError as error:
        return Entry("missing", error=errorcode.get(error.errno or 0, str(error.errno)))
    if stat.S_ISLNK(found.st_mode):
        return Entry("link", link=os.readlink(path))
    real = os.path.realpath(path) if follow else ""
    return Entry("dir" if stat.S_ISDIR(found.st_mode) else "file", uid=found.st_uid, gid=found.st_gid, real=real)


def look_at_stream(fd: int) -> Stream:
    """What a standard descriptor is, and what may be done with it."""
    import fcntl

    try:
        mode = os.fstat(fd).st_mode
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return Stream("closed", False, False)
    access = flags & os.O_ACCMODE
    path = ""
    if stat.S_ISREG(mode):
        # A memfd lies on a mount of the kernel's own, where Landlock has no say.
        path = os.readlink(f"/proc/self/fd/{fd}")
        kind = "memory" if path.startswith("/memfd:") else "file"
    elif stat.S_ISDIR(mode):
        kind = "dir"
    elif stat.S_ISBLK(mode):
        kind = "block"
    elif stat.S_ISFIFO(mode):
        # A pipe has no path; a FIFO of the file system can be opened again.
        kind = "other" if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") else "fifo"
    elif stat.S_ISCHR(mode) and os.isatty(fd):
        kind = "tty"
    elif stat.S_ISCHR(mode):
        # /dev/null and its kind (null 3, zero 5, full 7, random 8, urandom 9) hold nothing; other devices might.
        device = os.fstat(fd).st_rdev
        kind = "null" if os.major(device) == 1 and os.minor(device) in (3, 5, 7, 8, 9) else "device"
    else:
        kind = "other"
    readable, writable = access != os.O_WRONLY, access != os.O_RDONLY
    return Stream(kind, readable, writable, bool(flags & os.O_APPEND), path)


def kernel_version() -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    parts = os.uname().release.split(".")
    digits = ["".join(character for character in part if character.isdigit()) for part in parts[:2]]
    return int(digits[0] or 0), int(digits[1] or 0) if len(digits) > 1 else 0


def read_number(path: str, otherwise: int) -> int:
    """The number in a file of /proc/sys; ``otherwise`` when the kernel has no such file."""
    try:
        return int(read_bytes(path).split()[0])
    except (OSError, ValueError, IndexError):
        return otherwise


def read_text(path: str) -> str:
    """A small file's text, empty when it can't be read."""
    try:
        return read_bytes(path).decode("utf-8", "replace")
    except OSError:
        return ""


def effective_capabilities() -> int:
    """The caller's effective set, from /proc/self/status."""
    return int(status_field(b"CapEff") or b"0", 16)


def is_initial_user_namespace() -> bool:
    """Whether uid 0 here is the machine's root: an identity map over all ids (user_namespaces(7))."""
    return read_text("/proc/self/uid_map").split() == ["0", "0", "4294967295"]


def stand_in_for_root() -> int:
    """The host id that runs root's sandboxes: the first of root's range in /etc/subuid, else nobody."""
    for line in read_text("/etc/subuid").splitlines():
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name in ("root", "0") and start.isdigit() and count.isdigit() and int(start) > 0 and int(count) > 0:
            return int(start)
    return NOBODY


def resolv_conf_target() -> str:
    """Where /etc/resolv.conf leads when it is a link out of /etc; else empty."""
    try:
        if not stat.S_ISLNK(os.lstat("/etc/resolv.conf").st_mode):
            return ""
    except OSError:
        return ""
    target = os.path.realpath("/etc/resolv.conf")
    return "" if covers("/etc", target) or covers("/usr", target) or not os.path.isfile(target) else target


def apparmor_restricts() -> bool:
    """Ubuntu 24.04's switch is on, and Hexe runs without an AppArmor profile that allows user namespaces.

    ``unprivileged_userns`` is the profile that AppArmor puts such a process into: it has lost its capabilities.
    """
    if read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) != 1:
        return False
    label = read_text("/proc/self/attr/apparmor/current") or read_text("/proc/self/attr/current")
    return label.startswith(("unconfined", "unprivileged_userns"))


def landlock_abi() -> int:
    """The kernel's Landlock ABI version; 0 when it has none or it is switched off (landlock_create_ruleset(2)).

    Any other refusal comes from somebody in between, and is no proof that the kernel has none: minus its errno.
    """
    try:
        return syscall("landlock_create_ruleset", 0, 0, c.LANDLOCK_CREATE_RULESET_VERSION)
    except OSError as error:
        number = error.errno or 0
        return 0 if number in (ENOSYS, EOPNOTSUPP) else -number


def proc_entries() -> frozenset[str]:
    """Which of the paths to mask or protect this kernel's /proc has; a directory also with a slash at its end."""
    found = set()
    for path in PROC_READ_ONLY + PROC_MASKED:
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        found.add(path)
        if stat.S_ISDIR(mode):
            found.add(path + "/")
    return frozenset(found)


def protected_paths() -> tuple[str, ...]:
    """Hexe's own files that code inside must not change: the package, its interpreter, the filter cache."""
    import sys

    paths = [os.path.dirname(os.path.abspath(hexe.__file__))]
    paths += [prefix for prefix in (sys.prefix, sys.base_prefix) if not covers("/usr", prefix)]
    cache = cache_directory()
    if cache and not os.path.isdir(cache):
        # Only what exists can be covered. Left for later, the first sandbox that sees its parent, writable, would
        # make it, and choose the next one's filters.
        try:
            os.mkdir(cache, 0o700)
        except OSError:
            pass  # then code inside, with no more rights than the caller, can't make it either
    if os.path.isdir(cache):
        paths.append(cache)
    real = [os.path.realpath(path) for path in paths]
    unique = sorted(set(real))
    return tuple(path for path in unique if not any(other != path and covers(other, path) for other in unique))


def names_for(policy: Policy) -> dict[str, str]:
    """User names of the numeric identity that the policy asks for."""
    if not policy.identity.isdigit():
        return {}
    import pwd

    try:
        return {policy.identity: pwd.getpwuid(int(policy.identity)).pw_name}
    except KeyError:
        return {}
