"""What a policy needs of a host and of itself: every problem with its remedy. Pure."""

from __future__ import annotations

from hexe.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy

OLDEST_KERNEL = (5, 12)
APPARMOR_FIX = (
    "install the AppArmor profile that `hexe doctor --apparmor` prints "
    "(as root: hexe doctor --apparmor > /etc/apparmor.d/hexe && apparmor_parser -r /etc/apparmor.d/hexe), "
    "or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
)


def usage_problems(policy: Policy) -> None:
    """Raise UsageError for an option that the profile gives no meaning: it would be silently ignored."""
    profile = policy.profile
    stronger = "choose --isolation default, sandbox or full"
    if not policy.mount_namespace:
        for given, option in (
            (policy.mounts, "--bind, --ro-bind and --tmpfs"),
            (policy.home != "rw", "--home"),
        ):
            if given:
                raise UsageError(f"{option}: profile {profile} keeps the host's filesystem as it is", hint=stronger)
    if not policy.uts_namespace and policy.hostname:
        raise UsageError(
            f"--hostname: profile {profile} shares the host's name", hint="choose --isolation sandbox or full"
        )
    if not policy.user_namespace and (policy.identity != "caller" or policy.group):
        raise UsageError(f"--uid and --gid: profile {profile} has no user namespace", hint=stronger)


def broken_promises(policy: Policy, facts: HostFacts, streams: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Every (problem, fix) for which this host can't keep the policy's promises."""
    return tuple(
        _kernel(policy, facts)
        + _user_namespaces(policy, facts)
        + _sources(policy, facts)
        + _streams(policy, facts, streams)
    )


def _kernel(policy: Policy, facts: HostFacts) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    version = ".".join(str(part) for part in facts.kernel)
    if policy.mount_namespace and facts.kernel < OLDEST_KERNEL:
        problems.append(
            (
                f"profile {policy.profile} needs Linux 5.12 or newer (mount_setattr); this is {version}",
                "update the kernel, or choose --isolation minimal knowing that it keeps the host's filesystem",
            )
        )
    wanted = (
        ("pid", policy.pid_namespace),
        ("mnt", policy.mount_namespace),
        ("uts", policy.uts_namespace),
        ("ipc", policy.ipc_namespace),
        ("net", policy.network == "none"),
    )
    for kind, needed in wanted:
        if needed and kind not in facts.namespaces:
            problems.append(
                (
                    f"profile {policy.profile} needs {kind} namespaces, which this kernel doesn't have",
                    f"use a kernel built with CONFIG_{CONFIG[kind]}=y",
                )
            )
    if policy.seccomp and not facts.seccomp:
        problems.append(
            (
                f"profile {policy.profile} needs seccomp filters, which this kernel doesn't have",
                "use a kernel built with CONFIG_SECCOMP_FILTER=y",
            )
        )
    if policy.landlock and facts.landlock_abi < 0:
        from errno import errorcode

        number = -facts.landlock_abi
        problems.append(
            (
                f"profile {policy.profile} uses Landlock where the kernel has it, but that can't be asked: "
                f"landlock_create_ruleset: {errorcode.get(number, number)}",
                "a seccomp filter around Hexe (a container's?) refuses the call: allow it there, "
                "or let it answer ENOSYS if there is no Landlock",
            )
        )
    return problems


CONFIG = {
    "user": "USER_NS",
    "pid": "PID_NS",
    "mnt": "NAMESPACES",
    "uts": "UTS_NS",
    "ipc": "IPC_NS",
    "net": "NET_NS",
    "cgroup": "CGROUPS",
}
"""The kernel's build option for each kind of namespace."""


def _user_namespaces(policy: Policy, facts: HostFacts) -> list[tuple[str, str]]:
    if not policy.user_namespace:
        return []
    profile = policy.profile
    if "user" not in facts.namespaces:
        return [
            (
                f"profile {profile} needs user namespaces, which this kernel doesn't have",
                "use a kernel built with CONFIG_USER_NS=y",
            )
        ]
    problems: list[tuple[str, str]] = []
    if facts.max_user_namespaces == 0:
        problems.append(
            (
                f"profile {profile} needs user namespaces, but user.max_user_namespaces is 0",
                "as root: sysctl -w user.max_user_namespaces=15000 (and in /etc/sysctl.d/ to keep it)",
            )
        )
    if facts.userns_clone == 0 and not facts.capable:
        problems.append(
            (
                f"profile {profile} needs user namespaces, but kernel.unprivileged_userns_clone is 0",
                "as root: sysctl -w kernel.unprivileged_userns_clone=1 (and in /etc/sysctl.d/ to keep it)",
            )
        )
    if facts.apparmor_restricts and not facts.capable:
        problems.append(
            (
                f"profile {profile} needs user namespaces, but AppArmor takes their capabilities away "
                "(kernel.apparmor_restrict_unprivileged_userns is 1 and Hexe has no AppArmor profile)",
                APPARMOR_FIX,
            )
        )
    if facts.host_root and not facts.capable:
        problems.append(
            (
                "the caller is root without CAP_SYS_ADMIN, CAP_SETUID or CAP_SETGID (inside a container?), "
                "so it can't hand the sandbox an unprivileged identity",
                "run Hexe as an ordinary user, or give the container those capabilities",
            )
        )
    return problems


def _sources(policy: Policy, facts: HostFacts) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    for mount in policy.mounts:
        entry = facts.entries.get(mount.source)
        if mount.kind == "tmpfs" or entry is None:
            continue
        if entry.error:
            problems.append(
                (f"--{mount.kind} {mount.source}: {entry.error}", "bind a path that you may look at yourself")
            )
        elif entry.kind == "missing":
            problems.append(
                (
                    f"--{mount.kind} {mount.source}: ENOENT: there is no such path",
                    f"the nearest existing parent is {entry.nearest}; create the rest, or bind that",
                )
            )
    return problems


def _streams(policy: Policy, facts: HostFacts, streams: tuple[str, ...]) -> list[tuple[str, str]]:
    problems: list[tuple[str, str]] = []
    names = ("standard input", "standard output", "standard error")
    for name, stream, becomes in zip(names, facts.streams, streams):
        if policy.mount_namespace and stream.kind == "dir" and becomes == "pass":
            problems.append(
                (
                    f"{name} is a directory: code inside could walk from it over the host's files",
                    "redirect it from or to a file, or bind the directory with --ro-bind",
                )
            )
    return problems
