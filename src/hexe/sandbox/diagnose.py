"""From a refused system call to a message that names the cause and the remedy. Pure."""

from __future__ import annotations

from errno import (
    EACCES,
    EBUSY,
    EINVAL,
    ELOOP,
    ENOENT,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    EPERM,
    EROFS,
    EUSERS,
    EXDEV,
)

from hexe.errors import LaunchError
from hexe.sandbox import mount_operations as m
from hexe.sandbox import operations as o
from hexe.sandbox.requirements import APPARMOR_FIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.sandbox.operations import Operation
    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program

CONTAINER = (
    "is this a container? Its seccomp filter or its masked /proc may refuse nested sandboxes: "
    "run Hexe on the host, or start the container with --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined (docker, podman)"
)
DOCTOR = "hexe doctor says what this host can enforce, and what to change"


def explain_clone(plan: Plan, errno: int, facts: HostFacts) -> LaunchError:
    """Why the namespaces could not be created (clone(2), ERRORS; user_namespaces(7))."""
    if errno == ENOSPC:
        hint = (
            f"no free namespaces: user.max_user_namespaces is {facts.max_user_namespaces}, or a limit above it is "
            "reached; "
            "as root: sysctl -w user.max_user_namespaces=15000 (likewise user.max_net_namespaces and the others)"
        )
    elif errno == EUSERS:
        hint = "user namespaces are nested too deep (32 at most), or their number is used up"
    elif errno == EPERM and facts.userns_clone == 0:
        hint = "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    elif errno in (EPERM, EACCES) and facts.apparmor_restricts:
        hint = APPARMOR_FIX
    elif errno == EPERM:
        hint = CONTAINER
    elif errno in (EINVAL, ENOSYS):
        hint = f"this kernel lacks one of the namespaces {', '.join(plan.namespaces.kinds)}, or clone3 (Linux 5.3)"
    else:
        hint = DOCTOR
    return LaunchError(plan.namespaces.describe(), "clone3", "", errno, hint=hint)


def explain_step(plan: Plan, program: Program, stage: str, index: int, errno: int, facts: HostFacts) -> LaunchError:
    """Which operation a failed step belongs to, as an error with a remedy."""
    step = program.stages[stage][index]
    operation = plan.stage(stage)[step.operation]
    hint = _hint(operation, step.name, errno, facts)
    return LaunchError(operation.describe(), step.name, step.about, errno, hint=hint)


def _hint(operation: Operation, syscall: str, errno: int, facts: HostFacts) -> str:
    if errno == ENOSYS:
        return f"this kernel, or a seccomp filter around it, has no {syscall}; {DOCTOR}"
    if isinstance(operation, (m.CloneTree, m.BindMount)):
        return _bind_hint(operation, syscall, errno)
    if isinstance(operation, m.MountTmpfs) and syscall in ("mkdirat", "openat2", "mknodat"):
        return _target_hint(operation.target, errno)
    if isinstance(operation, m.MountProc) and errno == EPERM:
        return "the host's own /proc is over-mounted in places, so the kernel refuses a new one; " + CONTAINER
    if isinstance(operation, o.ChangeDirectory):
        if errno in (ENOENT, ENOTDIR):
            return f"{operation.path} is not visible inside: show it with --bind or --ro-bind, or choose another --cwd"
        return f"choose a --cwd that the caller may enter, instead of {operation.path}"
    if isinstance(operation, o.WriteIdMaps):
        if facts.host_root:
            return f"root needs CAP_SETUID and CAP_SETGID to map the sandbox to uid {facts.root_stand_in}; " + CONTAINER
        return APPARMOR_FIX if facts.apparmor_restricts else CONTAINER
    if isinstance(operation, m.PivotRoot) and errno == EINVAL:
        return "the root of this system is an initramfs, which can't be pivoted away from: switch_root to a real one"
    if isinstance(operation, o.OpenTerminal):
        return "run with --no-tty, or check that the host has pseudo-terminals left (kernel.pty.max)"
    if errno in (EPERM, EACCES):
        return APPARMOR_FIX if facts.apparmor_restricts else CONTAINER
    if errno == ENOSPC:
        return "a limit of the kernel or of memory is reached: fs.mount-max, user.max_mnt_namespaces, free memory"
    return DOCTOR


def _bind_hint(operation: m.CloneTree | m.BindMount, syscall: str, errno: int) -> str:
    if isinstance(operation, m.CloneTree) and operation.idmap and errno == EINVAL and syscall == "mount_setattr":
        return (
            f"the filesystem of {operation.source} (or one mounted below it) has no idmapped mounts, so root's files "
            "can't be shown to an unprivileged sandbox: use --ro-bind, copy the files to ext4, xfs or btrfs, "
            "or run Hexe as the files' owner"
        )
    if errno == EXDEV:
        return (
            f"{operation.source} passes through a symbolic link that leads out of {operation.beneath}, "
            "where code inside may have planted it: bind the link's target by its real path"
        )
    if syscall == "open_tree":
        if errno == ENOENT:
            return f"{operation.source} vanished, or isn't there"
        if errno == EACCES:
            return f"the caller may not reach {operation.source}: check the permissions of the directories above it"
        return CONTAINER
    target = operation.target if isinstance(operation, m.BindMount) else operation.source
    return _target_hint(target, errno)


def _target_hint(target: str, errno: int) -> str:
    if errno == EROFS:
        return f"{target} doesn't exist in a directory that is read-only inside: mount onto a path that exists"
    if errno == ELOOP:
        return f"{target} passes through too many symbolic links"
    if errno in (ENOENT, ENOTDIR, EBUSY):
        return (
            f"{target} passes through a file, or a symbolic link that leads nowhere inside the sandbox "
            "(code in an earlier sandbox may have planted it): remove it, or choose another target"
        )
    if errno == EACCES:
        return f"the caller may not create {target}: make it first, or choose another target"
    return DOCTOR
