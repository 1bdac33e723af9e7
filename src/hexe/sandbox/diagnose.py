"""From a refused system call to a message that names the cause and the remedy.

Pure, once given what lies around Hexe: ``around`` is read from the host where it isn't given.
"""

from __future__ import annotations

from errno import (
    E2BIG,
    EACCES,
    EAGAIN,
    EBUSY,
    EINVAL,
    ELOOP,
    EMFILE,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    EPERM,
    EROFS,
    EUSERS,
    errorcode,
)

from hexe.errors import HexeError, LaunchError
from hexe.sandbox import mount_operations as m
from hexe.sandbox import operations as o
from hexe.sandbox.requirements import APPARMOR_FIX
from hexe.sandbox.surroundings import Surroundings, look_around

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.sandbox.operations import Operation
    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program

CONTAINER_FIX = (
    "run Hexe on the host, or start the container with --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined (docker, podman)"
)
DOCTOR = "hexe doctor says what this host can enforce, and what to change"
_LIMITS = {
    EMFILE: "Hexe has too many open files: raise the limit (ulimit -n 1024)",
    ENFILE: "the system has too many open files: as root, sysctl -w fs.file-max=1000000",
    EAGAIN: "no more processes are allowed: raise the limit (ulimit -u), or pids.max of the cgroup, or end some",
    ENOMEM: "the kernel has no memory left, or the cgroup's memory limit is reached: free some",
}


def explain_clone(plan: Plan, error: OSError, facts: HostFacts, around: Surroundings | None = None) -> LaunchError:
    """Why the namespaces could not be created (clone(2), ERRORS; user_namespaces(7))."""
    errno = error.errno or 0
    hint = clone_hint(plan.namespaces.kinds, errno, facts, around or look_around())
    return LaunchError(plan.namespaces.describe(), _call_of(error), "", errno, hint=hint)


def _call_of(error: OSError) -> str:
    # "clone: ..." where a filter hides clone3 and clone was refused in its place.
    name, colon, _ = str(error.strerror).partition(":")
    return name if colon else "clone3"


def clone_hint(kinds: tuple[str, ...], errno: int, facts: HostFacts, around: Surroundings) -> str:
    """The cause and the remedy for a clone that made no namespaces. Pure."""
    if errno in (ENOSPC, EUSERS):
        return _limit_hint(kinds, around)
    if errno in (EPERM, EACCES):
        return _refusal_hint(facts, around)
    if errno in (EINVAL, ENOSYS):
        return (
            f"this kernel lacks one of the namespaces {', '.join(kinds)}: "
            "update it, or see which one hexe doctor calls missing"
        )
    return _LIMITS.get(errno, DOCTOR)


def _limit_hint(kinds: tuple[str, ...], around: Surroundings) -> str:
    limits = {kind: around.limits[kind] for kind in kinds if kind in around.limits}
    lowest = min(limits.values(), default=0)
    named = [kind for kind in limits if limits[kind] == lowest]
    commands = " ".join(f"user.max_{kind}_namespaces={max(15000, 2 * lowest)}" for kind in named)
    shown = ", ".join(f"user.max_{kind}_namespaces is {lowest}" for kind in named)
    # The count is kept per user, and again in every user namespace above: only 0 proves which one it was.
    cause = shown if lowest == 0 else f"they are used up ({shown}), or user namespaces are nested deeper than 32"
    return (
        f"no free namespaces: {cause}; as root: sysctl -w {commands} (where the limit was set: "
        "the host, or the container around this), or end what holds them (lsns lists it)"
    )


def _refusal_hint(facts: HostFacts, around: Surroundings) -> str:
    if facts.userns_clone == 0:
        return "kernel.unprivileged_userns_clone is 0; as root: sysctl -w kernel.unprivileged_userns_clone=1"
    if facts.apparmor_restricts:
        return APPARMOR_FIX
    if around.chrooted:
        return (
            "Hexe runs in a chroot, where the kernel allows no user namespaces: "
            "run it outside, or enter the directory with a tool that pivots (systemd-nspawn, bwrap)"
        )
    if around.unmapped_ids:
        return (
            f"the caller's ids {facts.uid}:{facts.gid} have no map in the user namespace around Hexe: "
            "map them there (for example unshare --map-current-user)"
        )
    return _container_hint(around, "refuses new namespaces")


def _container_hint(around: Surroundings, what: str) -> str:
    """Who may have refused: the likeliest first, the remedy behind it."""
    where = f"a container ({around.container})" if around.container else "a container, or a systemd unit"
    if around.seccomp_mode == 2 and around.inside_hexe not in ("", "none", "minimal"):
        return (
            f"Hexe runs inside a sandbox of Hexe (profile {around.inside_hexe}), whose seccomp filter {what}: "
            "start this one outside, or the outer one with --isolation default"
        )
    if around.seccomp_mode == 2:
        return (
            f"a seccomp filter around Hexe {what}: this is {where}; {CONTAINER_FIX}; "
            "for a systemd unit: RestrictNamespaces=no, and no SystemCallFilter= that refuses @mount"
        )
    if around.container:
        return f"this is {where}, which {what}: {CONTAINER_FIX}"
    return f"a security module, or a chroot, {what} (see the kernel's log: dmesg, journalctl -k); {DOCTOR}"


def explain_lost_init(status: int) -> HexeError:
    """The sandbox's first process ended before the command had started, and could say nothing. ``status`` is wait's."""
    number, code = status & 0x7F, status >> 8
    how = f"was killed by signal {number}" if number else f"ended with status {code}"
    return HexeError(
        f"the sandbox's first process {how} before the command was started: nothing of it has run",
        hint="if nobody killed it, memory ran out: see the kernel's log (dmesg, journalctl -k) for the OOM killer",
    )


def explain_init(text: str) -> HexeError:
    """A Python error of the sandbox's first process, or of the command's before its exec, that it could still send.

    ``text`` has the exception's words, and in them ``[Errno N]`` where the kernel refused something.
    """
    digits = text.partition("[Errno ")[2].partition("]")[0]
    errno = int(digits) if digits.isdigit() else 0
    if errno in _LIMITS:
        hint = _LIMITS[errno]
    elif errno in (EPERM, EACCES, ENOSYS):
        hint = _container_hint(look_around(), "refuses that call")
    else:
        hint = "nothing was run; please report this as a bug, with the output of hexe doctor --json"
    label = f" ({errorcode[errno]})" if errno in errorcode else ""
    return HexeError(f"the sandbox's init failed: {text}{label}", hint=hint)


def explain_idmap(operation: m.CloneTree, error: OSError, facts: HostFacts) -> LaunchError:
    """Why no user namespace for an idmapped mount could be made."""
    errno = error.errno or 0
    hint = clone_hint(("user",), errno, facts, look_around())
    return LaunchError(operation.describe(), _call_of(error), str(error.filename or operation.source), errno, hint=hint)


def explain_step(
    plan: Plan,
    program: Program,
    stage: str,
    index: int,
    errno: int,
    facts: HostFacts,
    around: Surroundings | None = None,
) -> LaunchError:
    """Which operation a failed step belongs to, as an error with a remedy."""
    step = program.stages[stage][index]
    operation = plan.stage(stage)[step.operation]
    hint = _hint(operation, step.name, errno, facts, around or look_around())
    return LaunchError(operation.describe(), step.name, step.about, errno, hint=hint)


def _hint(operation: Operation, syscall: str, errno: int, facts: HostFacts, around: Surroundings) -> str:
    if errno == ENOSYS:
        if around.seccomp_mode == 2:
            return _container_hint(around, f"hides {syscall}")
        return f"this kernel has no {syscall}: Linux 5.12 or newer is needed; {DOCTOR}"
    if errno in _LIMITS:
        return _LIMITS[errno]
    if isinstance(operation, m.MountProc) and errno in (EPERM, EACCES):
        return _proc_hint(facts, around)
    if isinstance(operation, (m.CloneTree, m.BindMount)):
        return _bind_hint(operation, syscall, errno, facts, around)
    if isinstance(operation, m.MountTmpfs) and syscall in ("mkdirat", "openat2", "mknodat"):
        return _target_hint(operation.target, errno)
    if isinstance(operation, o.ChangeDirectory):
        if errno == ENOTDIR:
            return f"{operation.path} is no directory: choose another --cwd"
        if errno == ENOENT:
            return f"{operation.path} is not visible inside: show it with --bind or --ro-bind, or choose another --cwd"
        return f"choose a --cwd that the caller may enter, instead of {operation.path}"
    if isinstance(operation, o.WriteIdMaps) and facts.host_root and not facts.apparmor_restricts:
        return (
            f"root needs CAP_SETUID and CAP_SETGID to map the sandbox to uid {facts.root_stand_in}; "
            + _container_hint(around, "takes capabilities away")
        )
    if isinstance(operation, m.PivotRoot) and errno == EINVAL:
        return (
            "the root of this system can't be pivoted away from: an initramfs (switch_root to a real one), "
            "or a chroot (run Hexe outside of it)"
        )
    if isinstance(operation, m.MountDev) and errno == ENOENT:
        return "the host's own /dev lacks one of the devices: mount a devtmpfs there, or make it with mknod"
    if isinstance(operation, o.OpenTerminal):
        return "run with --no-tty, or check that the host has pseudo-terminals left (kernel.pty.max)"
    if isinstance(operation, o.InstallSeccomp) and errno == EINVAL:
        return "this kernel has no seccomp filters: use one built with CONFIG_SECCOMP_FILTER=y"
    if isinstance(operation, o.RestrictFiles) and errno == E2BIG:
        return "16 Landlock domains are nested already, which is the kernel's limit: run Hexe outside of some"
    if errno in (EPERM, EACCES):
        if facts.apparmor_restricts:
            return APPARMOR_FIX
        return _container_hint(around, f"refuses {syscall}")
    if errno == ENOSPC:
        return "a limit of the kernel or of memory is reached: fs.mount-max, user.max_mnt_namespaces, free memory"
    if errno == ENODEV:
        return f"this kernel lacks a filesystem that the sandbox needs (tmpfs, proc, devpts); {DOCTOR}"
    return DOCTOR


def _proc_hint(facts: HostFacts, around: Surroundings) -> str:
    if facts.apparmor_restricts:
        return APPARMOR_FIX
    remedy = f"{CONTAINER_FIX}, or choose --isolation minimal knowing that it keeps the host's filesystem"
    if around.proc_covered:
        shown = ", ".join(around.proc_covered[:4]) + (" and others" if len(around.proc_covered) > 4 else "")
        return (
            f"the /proc around Hexe is over-mounted at {shown} (a container does that), "
            f"so the kernel refuses a new one: umount what lies over it, or {remedy}"
        )
    if not around.proc_mounted:
        return (
            f"no /proc is mounted around Hexe, so the kernel refuses a new one: mount -t proc proc /proc, or {remedy}"
        )
    return (
        "the kernel refuses a new /proc where none is fully visible: "
        f"is the one around Hexe read-only or another one's? {remedy}"
    )


def _bind_hint(
    operation: m.CloneTree | m.BindMount, syscall: str, errno: int, facts: HostFacts, around: Surroundings
) -> str:
    if isinstance(operation, m.CloneTree) and operation.idmap and syscall == "mount_setattr" and errno == EINVAL:
        return (
            f"the filesystem of {operation.source} (or one mounted below it) has no idmapped mounts, so root's files "
            "can't be shown to an unprivileged sandbox: use --ro-bind, copy the files to ext4, xfs or btrfs, "
            "or run Hexe as the files' owner"
        )
    if isinstance(operation, m.CloneTree) and operation.idmap and syscall == "mount_setattr" and errno == EPERM:
        return (
            f"only the machine's own root may map the owners of {operation.source}, or it is mapped already "
            "(inside a container?): use --ro-bind, or run Hexe as an ordinary user"
        )
    if syscall == "open_tree":
        if errno == ENOENT:
            return f"{operation.source} vanished, or isn't there"
        if errno == EACCES:
            return f"the caller may not reach {operation.source}: check the permissions of the directories above it"
        if errno == EINVAL:
            return f"{operation.source} lies on a mount that may not be shown again (unbindable): bind another path"
        return APPARMOR_FIX if facts.apparmor_restricts else _container_hint(around, f"refuses {syscall}")
    if errno == EPERM:
        return APPARMOR_FIX if facts.apparmor_restricts else _container_hint(around, f"refuses {syscall}")
    target = operation.target if isinstance(operation, m.BindMount) else operation.source
    on_directory = isinstance(operation, m.BindMount) and not operation.is_directory and syscall == "move_mount"
    if on_directory and errno == EINVAL:
        return f"{target} is a directory inside, and {operation.source}, a file, can't be mounted on that: name a file"
    return _target_hint(target, errno)


def _target_hint(target: str, errno: int) -> str:
    if errno == EROFS:
        return f"{target} doesn't exist in a directory that is read-only inside: mount onto a path that exists"
    if errno == ELOOP:
        return (
            f"{target} passes through a symbolic link, which code in an earlier sandbox may have planted: "
            "name the place that it leads to, or remove the link"
        )
    if errno == ENOSPC:
        return f"the filesystem that holds {target} is full: free some space or inodes (df, df -i), or mount elsewhere"
    if errno in (ENOENT, ENOTDIR, EBUSY):
        return f"{target} passes through a file, or is one where a directory is bound: choose another target"
    if errno == EACCES:
        return f"the caller may not create {target}: make it first, or choose another target"
    return DOCTOR
