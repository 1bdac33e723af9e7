"""The six profiles: named policies. What a profile says here is what the kernel enforces, or nothing starts."""

from __future__ import annotations

from hexe.errors import UsageError
from hexe.policy.model import Policy

SYSTEM = ("/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/etc")
SOFTWARE = ("/nix", "/pkg", "/opt", "/run/current-system")

_NONE = Policy("none")
_MINIMAL = Policy("minimal", user_namespace=True, identity="nobody", drop_privileges=True)
_BALANCED = Policy(
    "balanced",
    user_namespace=True,
    pid_namespace=True,
    mount_namespace=True,
    drop_privileges=True,
    read_only=SYSTEM + SOFTWARE,
)
_SANDBOX = _BALANCED.replace(
    profile="sandbox",
    uts_namespace=True,
    ipc_namespace=True,
    cgroup_namespace=True,
    hostname="hexe",
    seccomp="sandbox",
    landlock=True,
    mask_proc=True,
    environment="allow-list",
)
_FULL = _SANDBOX.replace(profile="full", network="none", seccomp="full", read_only=SYSTEM)

PROFILES: dict[str, Policy] = {
    "none": _NONE,
    "minimal": _MINIMAL,
    "default": _BALANCED.replace(profile="default"),
    "balanced": _BALANCED,
    "sandbox": _SANDBOX,
    "full": _FULL,
}

SUMMARIES: dict[str, str] = {
    "none": "no isolation: the command as it is, with Hexe's signals, terminal, timeout and report",
    "minimal": "nobody's identity and no privileges, on the host's own filesystem",
    "default": "its own root, processes and identity; the caller's environment and network",
    "balanced": "the same as default",
    "sandbox": "default plus seccomp, Landlock, own IPC, hostname and a clean environment",
    "full": "sandbox without a network and without /opt, /nix, /pkg",
}


def find_profile(name: str) -> Policy:
    """The profile of that name. An unknown one is a UsageError: it never falls back to a weaker one."""
    try:
        return PROFILES[name]
    except KeyError:
        from hexe.policy.suggest import did_you_mean

        raise UsageError(
            f"unknown profile {name!r}" + did_you_mean(name, tuple(PROFILES)),
            hint=f"the profiles are {', '.join(PROFILES)} (hexe profiles shows what each one does)",
        ) from None
