"""What ``hexe doctor`` looks at, one check a subject: facts in, checks with their remedies out. Pure."""

from __future__ import annotations

from hexe.policy.profiles import PROFILES
from hexe.records import Record
from hexe.sandbox.diagnose import CONTAINER_FIX
from hexe.sandbox.file_rules import OLDEST_USABLE_ABI
from hexe.sandbox.requirements import APPARMOR_FIX, CONFIG, OLDEST_KERNEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy
    from hexe.sandbox.surroundings import Surroundings

OK, MISSING, LIMITED, INFO = "ok", "missing", "limited", "info"
MACHINES = ("x86_64", "aarch64")
NAMESPACES = {
    "user": "user_namespace",
    "pid": "pid_namespace",
    "mnt": "mount_namespace",
    "uts": "uts_namespace",
    "ipc": "ipc_namespace",
    "cgroup": "cgroup_namespace",
    "net": "",
}
LANDLOCK = (
    (2, "file rules"),
    (3, "truncation"),
    (5, "ioctl on devices"),
    (6, "scopes for abstract sockets and signals"),
)


class Check(Record):
    """One finding. ``key`` never changes, ``value`` is for people; ``affects`` are the profiles that need it.

    ``status``: ok; missing (a promise can't be kept, so these profiles don't start); limited
    (they start, with something weaker that the profile allows for); info.
    """

    key: str
    title: str
    status: str
    value: str
    fix: str = ""
    affects: tuple[str, ...] = ()


class Extras(Record):
    """What only doctor asks for. An empty error says that it works."""

    library: str = ""
    """libseccomp's version; empty when it isn't there."""
    library_error: str = ""
    library_fix: str = ""
    cached: bool = False
    """Both filters are in the cache, so that neither libseccomp nor pyseccomp is needed."""
    cache: str = ""
    cache_error: str = ""
    idmaps: tuple[tuple[str, str], ...] = ()
    """(directory, errno's name or empty) of a real idmapped mount, tried as root only."""
    pty_error: str = ""
    cgroups: str = ""
    stand_in_source: str = ""
    script: str = ""
    interpreter: str = ""


def run_checks(facts: HostFacts, around: Surroundings, extras: Extras) -> tuple[Check, ...]:
    """Every check, in the order in which they matter. ``facts`` are those of a policy that asks for everything."""
    checks = [_machine(facts), _kernel(facts)]
    checks += [_namespace(kind, field, facts, around) for kind, field in NAMESPACES.items()]
    checks += _user_namespace_switches(facts)
    checks += _place(facts, around)
    checks += [_seccomp(facts), _libseccomp(extras), _landlock(facts)]
    checks += _identity(facts, extras)
    checks += [_pty(extras), _cache(extras), _files(facts, extras)]
    checks.append(Check("cgroups", "control groups", INFO, extras.cgroups))
    return tuple(checks)


def needing(wanted: Callable[[Policy], object]) -> tuple[str, ...]:
    """The names of the profiles for which ``wanted`` is true."""
    return tuple(name for name, policy in PROFILES.items() if wanted(policy))


def _machine(facts: HostFacts) -> Check:
    if facts.machine in MACHINES:
        return Check("machine", "machine", OK, facts.machine)
    fix = f"use one of {', '.join(MACHINES)}"
    return Check("machine", "machine", MISSING, f"{facts.machine}: unknown to Hexe", fix, tuple(PROFILES))


def _kernel(facts: HostFacts) -> Check:
    version = ".".join(str(part) for part in facts.kernel)
    if facts.kernel >= OLDEST_KERNEL:
        return Check("kernel", "kernel", OK, f"Linux {version}")
    oldest = ".".join(str(part) for part in OLDEST_KERNEL)
    affects = needing(lambda policy: policy.mount_namespace)
    return Check("kernel", "kernel", MISSING, f"Linux {version}: {oldest} is needed", "update the kernel", affects)


def _namespace(kind: str, field: str, facts: HostFacts, around: Surroundings) -> Check:
    affects = needing(lambda policy: getattr(policy, field) if field else policy.network == "none")
    key, title = f"namespace.{kind}", f"{kind} namespaces"
    if kind not in facts.namespaces:
        fix = f"use a kernel built with CONFIG_{CONFIG[kind]}=y"
        status = LIMITED if kind == "cgroup" else MISSING
        return Check(key, title, status, "this kernel has none", fix, affects)
    limit = around.limits.get(kind, -1)
    if limit == 0:
        fix = f"as root: sysctl -w user.max_{kind}_namespaces=15000 (and in /etc/sysctl.d/ to keep it)"
        return Check(key, title, MISSING, f"user.max_{kind}_namespaces is 0", fix, affects)
    return Check(key, title, OK, f"up to {limit}" if limit > 0 else "in this kernel")


def _user_namespace_switches(facts: HostFacts) -> list[Check]:
    affects = needing(lambda policy: policy.user_namespace)
    checks = []
    title = "unprivileged user namespaces"
    if facts.userns_clone == 0 and not facts.capable:
        fix = "as root: sysctl -w kernel.unprivileged_userns_clone=1 (and in /etc/sysctl.d/ to keep it)"
        value = "kernel.unprivileged_userns_clone is 0"
        checks.append(Check("userns_clone", title, MISSING, value, fix, affects))
    else:
        value = "this kernel has no switch against them" if facts.userns_clone < 0 else "allowed"
        checks.append(Check("userns_clone", title, OK, value))
    if facts.apparmor_restricts and not facts.capable:
        value = "kernel.apparmor_restrict_unprivileged_userns is 1, and Hexe has no AppArmor profile"
        checks.append(Check("apparmor", "AppArmor", MISSING, value, APPARMOR_FIX, affects))
    else:
        value = "restricts others, not root" if facts.apparmor_restricts else "no restriction for Hexe"
        checks.append(Check("apparmor", "AppArmor", OK, value))
    return checks


def _place(facts: HostFacts, around: Surroundings) -> list[Check]:
    """Where Hexe itself runs: container, chroot, filters, /proc."""
    isolating = needing(lambda policy: policy.user_namespace)
    rooted = needing(lambda policy: policy.mount_namespace)
    checks = [Check("container", "container", INFO, around.container or "no sign of one")]
    value = {0: "none", 1: "strict mode"}.get(around.seccomp_mode, f"{facts.own_filters or 'some'} around Hexe")
    if around.inside_hexe and around.seccomp_mode == 2:
        value += f": Hexe runs inside its own profile {around.inside_hexe}"
    checks.append(Check("caller_filters", "seccomp filters of the caller", INFO, value))
    if around.chrooted:
        fix = "run Hexe outside of the chroot, or enter it with a tool that pivots (systemd-nspawn, bwrap)"
        checks.append(Check("chroot", "root directory", MISSING, "a chroot: no user namespaces", fix, isolating))
    else:
        checks.append(Check("chroot", "root directory", OK, "no chroot"))
    if around.unmapped_ids:
        value, fix = "not mapped in the user namespace around Hexe", "map them (unshare --map-current-user)"
        checks.append(Check("caller_ids", "ids of the caller", MISSING, value, fix, isolating))
    elif facts.host_root and not facts.capable:
        value = "root without CAP_SYS_ADMIN, CAP_SETUID or CAP_SETGID"
        fix = "run Hexe as an ordinary user, or give the container those capabilities"
        checks.append(Check("caller_ids", "ids of the caller", MISSING, value, fix, isolating))
    else:
        checks.append(Check("caller_ids", "ids of the caller", OK, f"{facts.uid}:{facts.gid} ({facts.user})"))
    if around.proc_covered or not around.proc_mounted:
        value = "over-mounted at " + ", ".join(around.proc_covered) if around.proc_mounted else "not mounted"
        fix = f"umount what lies over it, or {CONTAINER_FIX}" if around.proc_mounted else "mount -t proc proc /proc"
        checks.append(Check("proc", "/proc of the host", MISSING, value, fix, rooted))
    else:
        checks.append(Check("proc", "/proc of the host", OK, "fully visible"))
    return checks


def _seccomp(facts: HostFacts) -> Check:
    if facts.seccomp:
        return Check("seccomp", "seccomp filters", OK, "in this kernel")
    fix = "use a kernel built with CONFIG_SECCOMP_FILTER=y"
    affects = needing(lambda policy: policy.seccomp)
    return Check("seccomp", "seccomp filters", MISSING, "this kernel has none", fix, affects)


def _libseccomp(extras: Extras) -> Check:
    affects = needing(lambda policy: policy.seccomp)
    if not extras.library_error:
        return Check("libseccomp", "libseccomp", OK, f"{extras.library} through pyseccomp")
    if extras.cached:
        value = f"{extras.library_error}; the filters come from the cache, until that is emptied"
        return Check("libseccomp", "libseccomp", LIMITED, value, extras.library_fix, affects)
    return Check("libseccomp", "libseccomp", MISSING, extras.library_error, extras.library_fix, affects)


def _landlock(facts: HostFacts) -> Check:
    affects = needing(lambda policy: policy.landlock)
    abi = facts.landlock_abi
    gives = [what for since, what in LANDLOCK if abi >= since]
    lacks = [what for since, what in LANDLOCK if abi < since]
    if abi < 0:
        value = "can't be asked: landlock_create_ruleset is refused by a seccomp filter around Hexe"
        fix = "allow landlock_* in that filter (a container's?)"
        return Check("landlock", "Landlock", MISSING, value, fix, affects)
    if abi == 0:
        fix = "Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK=y, and landlock first in the boot parameter lsm="
        return Check("landlock", "Landlock", LIMITED, "none: the mounts alone guard the files", fix, affects)
    if abi < OLDEST_USABLE_ABI:
        value = f"ABI {abi}: forbids every rename between directories, so it isn't used"
        return Check("landlock", "Landlock", LIMITED, value, "update the kernel to 5.19 or newer", affects)
    value = f"ABI {abi}: {', '.join(gives)}"
    if lacks:
        value += f"; without {', '.join(lacks)}"
        fix = "update the kernel to 6.12 or newer for all of it"
        return Check("landlock", "Landlock", LIMITED, value, fix, affects)
    return Check("landlock", "Landlock", OK, value)


def _identity(facts: HostFacts, extras: Extras) -> list[Check]:
    """For root: who it is inside, and whether its files can be shown there."""
    if not facts.host_root:
        value = "not needed: the sandbox runs with the caller's own ids"
        return [Check("stand_in", "stand-in for root", OK, value), Check("idmap", "idmapped mounts", OK, "not needed")]
    stand_in = Check("stand_in", "stand-in for root", OK, f"host uid {facts.root_stand_in} {extras.stand_in_source}")
    refused = [f"{path} ({error})" for path, error in extras.idmaps if error]
    if refused:
        value = f"refused on {', '.join(refused)}: a writable --bind of root's files there is an error"
        fix = "use --ro-bind there, or keep the files on ext4, xfs, btrfs or (Linux 6.3) tmpfs"
        rooted = needing(lambda policy: policy.mount_namespace)
        return [stand_in, Check("idmap", "idmapped mounts", LIMITED, value, fix, rooted)]
    return [stand_in, Check("idmap", "idmapped mounts", OK, "on " + ", ".join(path for path, _ in extras.idmaps))]


def _pty(extras: Extras) -> Check:
    if not extras.pty_error:
        return Check("pty", "terminals", OK, "one could be opened")
    fix = "mount devpts at /dev/pts, or as root: sysctl -w kernel.pty.max=4096; hexe run --no-tty needs none"
    return Check("pty", "terminals", LIMITED, extras.pty_error, fix)


def _cache(extras: Extras) -> Check:
    title = "cache of the seccomp filters"
    if not extras.cache_error:
        return Check("filter_cache", title, OK, extras.cache + ("" if extras.cached else " (empty so far)"))
    value = f"{extras.cache or 'no safe place'}: {extras.cache_error}; each launch builds the filter again (50 ms)"
    fix = "set XDG_RUNTIME_DIR to a directory of your own (mode 700), outside of home"
    return Check("filter_cache", title, LIMITED, value, fix)


def _files(facts: HostFacts, extras: Extras) -> Check:
    value = f"{extras.script} by {extras.interpreter}; read-only inside: {', '.join(facts.protected)}"
    return Check("files", "Hexe's own files", INFO, value)
