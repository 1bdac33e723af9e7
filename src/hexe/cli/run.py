"""``hexe run``: one command in a sandbox. Imports nothing slow: the interpreter's start is the dearest part."""

from __future__ import annotations

import os
import sys

from hexe.cli.options import RUN_OPTIONS, build_policy, help_text, parse
from hexe.errors import HexeError, UsageError
from hexe.linux.syscalls import MACHINE, supported
from hexe.sandbox.compile import compile_plan
from hexe.sandbox.filters import load_filter
from hexe.sandbox.probe import find_caller, probe
from hexe.sandbox.spawn import spawn
from hexe.sandbox.supervise import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hexe.cli.options import Parsed
    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy
    from hexe.sandbox.outcome import Outcome
    from hexe.sandbox.plan import Plan

USAGE = "[--isolation PROFILE] [options] [--] COMMAND [ARG...]"
ABOUT = (
    "Run COMMAND in a sandbox. Exit status: the command's own; 128+N for death by signal N;\n"
    "124 on --timeout; 125 Hexe failed before the command started; 126 not executable; 127 not found."
)


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    open_missing_streams()
    if wants_help(arguments):
        sys.stdout.write(help_text("run", USAGE, ABOUT, RUN_OPTIONS))
        return 0
    parsed = parse(arguments, RUN_OPTIONS, "run")
    if not parsed.command:
        raise UsageError("no command to run", hint="for example: hexe run -- ls -l")
    policy, facts, plan = plan_for(parsed)
    verbose = parsed.has("--verbose")
    if verbose:
        say_plan(plan)
    report = open_report(parsed.last("--report"))
    try:
        outcome = Supervisor(spawn(plan, facts)).run()
    except HexeError as error:
        if report >= 0:
            from hexe.sandbox.report import failure_report

            save_report(report, failure_report(plan, error))
        raise
    if report >= 0:
        from hexe.sandbox.report import outcome_report

        save_report(report, outcome_report(plan, facts, outcome))
    say_end(policy, outcome, verbose)
    return outcome.status


def plan_for(parsed: Parsed) -> tuple[Policy, HostFacts, Plan]:
    """The policy, the facts and the plan of a parsed command line."""
    if not supported():
        raise HexeError(f"Hexe doesn't know this machine's system calls: {MACHINE}", hint="use x86_64 or aarch64")
    caller = find_caller()
    policy = build_policy(parsed, caller.cwd, caller.home or f"/home/{caller.user}")
    if parsed.has("--report"):
        policy = policy.replace(witness=True)
    facts = probe(policy, caller)
    plan = compile_plan(policy, facts, parsed.command or ("true",), load_filter)
    return policy, facts, plan


def wants_help(arguments: list[str]) -> bool:
    """Whether --help or -h stands among our own options, before the command and not as the value of one."""
    with_value = {option.name for option in RUN_OPTIONS if option.value}
    is_value = False
    for word in arguments:
        if is_value:
            is_value = False
        elif word in ("--help", "-h"):
            return True
        elif word == "--" or not word.startswith("-"):
            return False
        else:
            is_value = word in with_value
    return False


def open_missing_streams() -> None:
    """Give a closed standard descriptor /dev/null, so that no socket of ours ends up as the command's input."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)


def open_report(path: str) -> int:
    """The report's descriptor, opened before anything untrusted runs; -1 without one."""
    if not path:
        return -1
    if path == "-":
        return os.dup(2)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        from errno import errorcode

        raise HexeError(
            f"--report {path}: open: {errorcode.get(error.errno or 0, error.errno)}",
            hint="name a file that can be created, not a symbolic link; - writes to standard error",
        ) from None


def save_report(fd: int, report: dict[str, Any]) -> None:
    """Write the report. A full disk is said, but doesn't change the exit status: the command has ended already."""
    from hexe.sandbox.report import write_report

    try:
        write_report(fd, report)
    except OSError as error:
        from errno import errorcode

        from hexe.cli.main import complain

        complain(f"--report: write: {errorcode.get(error.errno or 0, error.errno)}: the report is incomplete")


def say_plan(plan: Plan) -> None:
    """What --verbose tells before the launch."""
    from hexe.cli.main import complain

    complain(f"profile {plan.policy.profile}: {plan.namespaces.describe()}")
    for note in plan.notes:
        complain(note)
    for stage in ("host", "maps", "outer", "inner", "seal"):
        for operation in plan.stage(stage):
            complain(f"{stage}: {operation.describe()}")


def say_end(policy: Policy, outcome: Outcome, verbose: bool) -> None:
    """Why it ended, when it wasn't the command's own doing."""
    if outcome.timed_out:
        from hexe.cli.main import complain

        complain(f"killed after {policy.timeout:g} s (--timeout)")
    elif verbose:
        from hexe.cli.main import complain

        how = f"signal {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"
        complain(f"ended with {how} after {outcome.wall:.3f} s")
