"""``hexe profiles``: what each profile switches on, as a table or as JSON."""

from __future__ import annotations

import sys

from hexe.cli.options import Option, help_text, parse
from hexe.errors import UsageError
from hexe.policy.profiles import PROFILES, SUMMARIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.model import Policy

OPTIONS = (Option("--json", "", "machine-readable"), Option("--help", "", "this text"))
ABOUT = "The profiles, and what each one switches on."


def main(arguments: list[str]) -> int:
    """Print the table."""
    parsed = parse(["--help" if word == "-h" else word for word in arguments], OPTIONS, "profiles")
    if parsed.has("--help"):
        sys.stdout.write(help_text("profiles", "[--json]", ABOUT, OPTIONS))
        return 0
    if parsed.command:
        raise UsageError(f"hexe profiles takes no argument: {parsed.command[0]}", hint="hexe profiles [--json]")
    if parsed.has("--json"):
        import json

        sys.stdout.write(json.dumps({name: as_json(policy) for name, policy in PROFILES.items()}, indent=2) + "\n")
        return 0
    print_table()
    return 0


def features(policy: Policy) -> dict[str, str]:
    """What a profile switches on, a line a feature; empty where it doesn't."""

    def yes(on: object) -> str:
        return "yes" if on else ""

    return {
        "user namespace": yes(policy.user_namespace),
        "pid namespace": yes(policy.pid_namespace),
        "mount namespace, root of its own": yes(policy.mount_namespace),
        "uts namespace, hostname hexe": yes(policy.uts_namespace),
        "ipc namespace": yes(policy.ipc_namespace),
        "cgroup namespace, where the kernel has it": yes(policy.cgroup_namespace),
        "network": "loopback" if policy.network == "none" else "host's",
        "identity inside": {"nobody": "nobody"}.get(policy.identity, "caller"),
        "no_new_privs, no capabilities": yes(policy.drop_privileges),
        "seccomp filter": yes(policy.seccomp) and ("yes, no ptrace" if policy.seccomp == "full" else "yes"),
        "Landlock, where the kernel has it": yes(policy.landlock),
        "/proc/sys read-only, /proc secrets masked": yes(policy.mask_proc),
        "environment": "caller's" if policy.environment == "inherit" else "allow-list",
        "/bin /usr /lib /etc": "read-only" if policy.read_only else "host's",
        "/opt /nix /pkg": ("read-only" if "/opt" in policy.read_only else "") if policy.read_only else "host's",
        "home": "writable" if policy.mount_namespace else "host's",
        "/tmp": "private" if policy.mount_namespace else "host's",
    }


def as_json(policy: Policy) -> dict[str, object]:
    """A profile as plain data: every field of its policy."""
    fields = policy.as_dict()
    fields["summary"] = SUMMARIES[policy.profile]
    return fields


def print_table() -> None:
    """The table, as wide as it needs to be; rich draws it."""
    from rich.console import Console
    from rich.table import Table

    rows = {name: features(policy) for name, policy in PROFILES.items()}
    table = Table(title=None, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in PROFILES:
        table.add_column(name, justify="center", no_wrap=True)
    for feature in rows["none"]:
        table.add_row(feature, *(rows[name][feature] for name in PROFILES))
    console = Console(highlight=False)
    needed = console.measure(table).minimum if console.is_terminal else 140
    Console(highlight=False, width=max(console.width, needed, 140) if not console.is_terminal else None).print(table)
    for name, summary in SUMMARIES.items():
        sys.stdout.write(f"{name.rjust(9)}: {summary}\n")
