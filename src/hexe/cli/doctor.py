"""``hexe doctor``: what this host can enforce, what it can't, and for each "can't" the exact fix."""

from __future__ import annotations

import sys

from hexe.cli.options import Option, help_text, parse
from hexe.errors import HexeError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.doctor import Diagnosis

OPTIONS = (
    Option("--json", "", "machine-readable"),
    Option("--apparmor", "", "print the AppArmor profile that allows Hexe user namespaces on Ubuntu 24.04 and newer"),
    Option("--help", "", "this text"),
)
ABOUT = (
    "What this host can enforce, what it can't, and how to fix that. Every profile is really launched once.\n"
    "Exit status: 0 when each profile can be enforced, 1 otherwise."
)
MARKS = {"ok": "[green]ok[/]", "missing": "[bold red]missing[/]", "limited": "[yellow]limited[/]", "info": "info"}
SPECIAL = frozenset('*?[]{}^"\\@')  # what AppArmor's patterns and variables mean something by: apparmor.d(5)


def main(arguments: list[str]) -> int:
    """Print the diagnosis."""
    parsed = parse(["--help" if word == "-h" else word for word in arguments], OPTIONS, "doctor")
    if parsed.has("--help"):
        sys.stdout.write(help_text("doctor", "[--json] [--apparmor]", ABOUT, OPTIONS))
        return 0
    if parsed.command:
        raise UsageError(
            f"hexe doctor takes no argument: {parsed.command[0]}", hint="hexe doctor [--json] [--apparmor]"
        )
    if parsed.has("--apparmor"):
        from hexe.sandbox.doctor import hexe_script

        sys.stdout.write(apparmor_profile(hexe_script()))
        return 0
    from hexe.sandbox.doctor import as_data, examine

    diagnosis = examine()
    if parsed.has("--json"):
        import json

        sys.stdout.write(json.dumps(as_data(diagnosis), indent=2) + "\n")
    else:
        print_diagnosis(diagnosis)
    return 0 if diagnosis.healthy else 1


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Two tables, profiles first, then every fix once."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    profiles = Table(header_style="bold", title="profiles, each launched once", title_justify="left")
    profiles.add_column("profile", no_wrap=True)
    profiles.add_column("", no_wrap=True)
    profiles.add_column("what came of it")
    for launch in diagnosis.launches:
        mark = "[green]enforced[/]" if launch.enforced else "[bold red]can't be enforced[/]"
        words = [problem for problem, _ in launch.problems] or list(launch.notes) or ["every promise is kept"]
        profiles.add_row(launch.profile, mark, escape("\n".join(words)))
    console.print(profiles)
    checks = Table(header_style="bold", title="this host", title_justify="left")
    checks.add_column("", no_wrap=True)
    checks.add_column("subject", no_wrap=True)
    checks.add_column("what was found")
    for check in diagnosis.checks:
        checks.add_row(MARKS[check.status], check.title, escape(check.value))
    console.print(checks)
    fixes = fixes_of(diagnosis)
    if fixes:
        sys.stdout.write("\nfixes:\n")
    for fix, subjects in fixes.items():
        # Not through rich: a command that is wrapped can't be copied.
        sys.stdout.write(f"  {', '.join(subjects)}:\n    {fix}\n")
    if not diagnosis.healthy:
        sys.stdout.write("\nWhat can't be enforced is never weakened: hexe run refuses it with status 125.\n")


def fixes_of(diagnosis: Diagnosis) -> dict[str, list[str]]:
    """Every fix once, with what it is for: the checks' first, then what only the launches found."""
    fixes: dict[str, list[str]] = {}
    for check in diagnosis.checks:
        if check.fix:
            fixes.setdefault(check.fix, []).append(check.title)
    for launch in diagnosis.launches:
        for _, fix in launch.problems:
            if fix:
                fixes.setdefault(fix, []).append(f"profile {launch.profile}")
    return fixes


def apparmor_profile(script: str) -> str:
    """The profile that gives this script, by its real path, user namespaces again, and confines it in nothing.

    On Ubuntu 24.04 and newer a program without such a profile gets a user namespace
    without capabilities in it. ``unconfined`` here leaves all the rest as it was.
    """
    if not script:
        raise HexeError(
            "AppArmor grants permissions by a program's path, and hexe wasn't started by its script",
            hint="run the installed hexe: $(command -v hexe) doctor --apparmor",
        )
    if "\n" in script:
        raise HexeError("the path of hexe has a line break in it", hint="install it elsewhere")
    escaped = "".join("\\" + character if character in SPECIAL else character for character in script)
    return f"""\
# AppArmor profile for Hexe, from: hexe doctor --apparmor
# Install it as root:
#   hexe doctor --apparmor > /etc/apparmor.d/hexe && apparmor_parser -r /etc/apparmor.d/hexe
# It allows user namespaces to whoever runs this file. If an ordinary user may write the file,
# that user decides what runs with this permission: install hexe system-wide to avoid that.
abi <abi/4.0>,

profile hexe "{escaped}" flags=(unconfined) {{
  userns,
}}
"""
