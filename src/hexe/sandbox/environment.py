"""The environment that the command gets. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy

ALLOWED = frozenset(
    [
        "PATH",
        "TERM",
        "COLORTERM",
        "LANG",
        "LANGUAGE",
        "TZ",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "EDITOR",
        "PAGER",
        "NO_COLOR",
    ],
)
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def command_environment(policy: Policy, facts: HostFacts, home: str) -> dict[str, str]:
    """What execve passes: the caller's or the allow-list, then --env and --pass-env in their order.

    ``home`` is the home inside, empty where the host's filesystem is kept.
    """
    caller = facts.environment
    if policy.clear_env:
        chosen: dict[str, str] = {}
    elif policy.environment == "inherit":
        chosen = dict(caller)
    else:
        chosen = {name: value for name, value in caller.items() if name in ALLOWED or name.startswith("LC_")}
        chosen.setdefault("PATH", DEFAULT_PATH)
    if not policy.clear_env and policy.user_namespace and policy.mount_namespace:
        name = identity_name(policy, facts)
        for variable in ("USER", "LOGNAME"):
            if variable in chosen or policy.environment == "allow-list":
                chosen[variable] = name
        chosen["HOME"] = home
        if "PWD" in chosen:
            del chosen["PWD"]  # the caller's may not exist inside; a shell sets its own
            chosen.pop("OLDPWD", None)
    for name, value in policy.set_env:
        if value is not None:
            chosen[name] = value
        elif name in caller:
            chosen[name] = caller[name]
    chosen["HEXE_ISOLATION"] = policy.profile
    return chosen


def identity_name(policy: Policy, facts: HostFacts) -> str:
    """The user name that belongs to the identity inside; the number itself when nobody has it."""
    if policy.identity == "caller":
        return facts.user
    if policy.identity == "root":
        return "root"
    return facts.names.get(policy.identity, policy.identity)
