"""The options of ``hexe run`` and ``hexe explain``: one table, a parser and the Policy that they make.

Written out because importing argparse takes 6 ms, more than a whole launch.
"""

from __future__ import annotations

from hexe.errors import UsageError
from hexe.policy.profiles import find_profile
from hexe.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.model import Policy


class Option(Record):
    """One option: its value's name (empty for a switch), and what help says."""

    name: str
    value: str
    help: str


RUN_OPTIONS = (
    Option("--isolation", "PROFILE", "none, minimal, default, balanced, sandbox or full (default: sandbox)"),
    Option("--bind", "SRC[:DST]", "show SRC inside at DST, writable; may be given again, a later one wins"),
    Option("--ro-bind", "SRC[:DST]", "show SRC inside at DST, read-only"),
    Option("--tmpfs", "DST", "an empty directory in memory at DST"),
    Option("--env", "NAME=VALUE", "set a variable"),
    Option("--pass-env", "NAME", "pass the caller's variable NAME on"),
    Option("--clear-env", "", "start from an empty environment"),
    Option("--cwd", "DIR", "start in DIR, as seen inside"),
    Option("--home", "rw|ro|private", "the caller's home: writable, read-only, or an empty one"),
    Option("--hostname", "NAME", "the host name inside (default: hexe)"),
    Option("--uid", "N|keep|root", "the user id inside; root is without any privilege"),
    Option("--gid", "N|keep|root", "the group id inside"),
    Option("--timeout", "TIME", "kill everything after TIME: 30s, 5m, 500ms"),
    Option("--tty", "", "give the command a terminal of its own even without one here"),
    Option("--no-tty", "", "never give it one"),
    Option("--report", "FILE", "write a JSON report of the run; - is standard error"),
    Option("--verbose", "", "say what is done, on standard error"),
)
EXPLAIN_OPTIONS = (
    *RUN_OPTIONS,
    Option("--syscalls", "", "show the system calls of the program"),
    Option("--json", "", "machine-readable"),
)


class Parsed(Record):
    """Options in the order given, and the command behind them."""

    given: tuple[tuple[str, str], ...]
    command: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether a switch was given."""
        return any(option == name for option, _ in self.given)

    def last(self, name: str, otherwise: str = "") -> str:
        """The value of the last occurrence of an option."""
        found = otherwise
        for option, value in self.given:
            if option == name:
                found = value
        return found


def parse(arguments: list[str], table: tuple[Option, ...], command: str) -> Parsed:
    """Split arguments into options and the command: everything before ``--``, or before the first word, is ours.

    Raises UsageError with a suggestion for an unknown option, a missing or an unwanted value.
    """
    options = {option.name: option for option in table}
    given: list[tuple[str, str]] = []
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--":
            index += 1
            break
        if not word.startswith("-") or word == "-":
            break
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None:
            from hexe.policy.suggest import did_you_mean

            suggestion = did_you_mean(name, tuple(options))
            raise UsageError(
                f"unknown option {name}{suggestion}",
                hint=f"hexe {command} --help lists the options; put -- before a command that begins with a dash",
            )
        if option.value and not equals:
            index += 1
            if index == len(arguments):
                raise UsageError(f"{name} needs a value", hint=f"{name} {option.value}")
            value = arguments[index]
        elif equals and not option.value:
            raise UsageError(f"{name} takes no value", hint=f"write just {name}")
        given.append((name, value))
        index += 1
    return Parsed(tuple(given), tuple(arguments[index:]))


def build_policy(parsed: Parsed, cwd: str, home: str) -> Policy:
    """The Policy of a profile and the options that change it. Raises UsageError for a value that can't be meant.

    ``home`` is the home inside, for a leading ``~`` that the shell left alone.
    """
    if any(name != "--isolation" for name, _ in parsed.given):
        return _changed_policy(parsed, cwd, home)
    return find_profile(parsed.last("--isolation", "sandbox"))


def _changed_policy(parsed: Parsed, cwd: str, home: str) -> Policy:
    from hexe.policy import values
    from hexe.policy.model import Mount

    policy = find_profile(parsed.last("--isolation", "sandbox"))
    mounts: list[Mount] = []
    variables: list[tuple[str, str | None]] = []
    changes: dict[str, object] = {}
    for name, value in parsed.given:
        if name in ("--bind", "--ro-bind"):
            mounts.append(values.parse_bind(name, value, cwd, home))
        elif name == "--tmpfs":
            mounts.append(Mount("tmpfs", "", values.parse_target(name, value, home)))
        elif name == "--env":
            variables.append(values.parse_env(name, value))
        elif name == "--pass-env":
            variables.append((values.parse_env_name(name, value), None))
        elif name == "--home":
            changes["home"] = values.parse_choice(name, value, ("rw", "ro", "private"))
        elif name == "--hostname":
            # A profile without a UTS namespace refuses this later: it has no hostname to change.
            changes["hostname"] = values.parse_hostname(name, value)
        elif name == "--uid":
            changes["identity"] = values.parse_id(name, value)
        elif name == "--gid":
            changes["group"] = values.parse_id(name, value)
        elif name == "--timeout":
            changes["timeout"] = values.parse_duration(name, value)
        elif name == "--cwd":
            changes["cwd"] = values.parse_directory(name, value, cwd, home)
        elif name == "--clear-env":
            changes["clear_env"] = True
        elif name == "--report" and not value:
            raise UsageError("--report: the file's name is empty", hint="for example --report run.json")
        elif name in ("--tty", "--no-tty"):
            changes["tty"] = "yes" if name == "--tty" else "no"
    return policy.replace(mounts=tuple(mounts), set_env=tuple(variables), **changes)


def help_text(command: str, usage: str, about: str, table: tuple[Option, ...]) -> str:
    """The text of --help, from the same table that parses."""
    rows = [(f"{option.name} {option.value}".rstrip(), option.help) for option in table]
    width = max(len(left) for left, _ in rows) + 2
    lines = [f"usage: hexe {command} {usage}", "", about, "", "options:"]
    lines += [f"  {left.ljust(width)}{right}" for left, right in rows]
    return "\n".join(lines) + "\n"
