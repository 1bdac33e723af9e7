"""``hexe explain``: the plan of a run, operation by operation, without running it."""

from __future__ import annotations

import os
import sys

from hexe.cli.options import EXPLAIN_OPTIONS, help_text, parse
from hexe.cli.run import open_missing_streams, plan_for, wants_help
from hexe.sandbox.explain import plan_as_data, plan_as_text

USAGE = "[same options as run] [--syscalls] [--json] [-- COMMAND [ARG...]]"
ABOUT = "Show what hexe run would do with the same options, without doing any of it."


def main(arguments: list[str]) -> int:
    """Print the plan."""
    open_missing_streams()
    if wants_help(arguments):
        sys.stdout.write(help_text("explain", USAGE, ABOUT, EXPLAIN_OPTIONS))
        return 0
    parsed = parse(arguments, EXPLAIN_OPTIONS, "explain")
    _, facts, plan = plan_for(parsed)
    syscalls = parsed.has("--syscalls")
    if parsed.has("--json"):
        import json

        text = json.dumps(plan_as_data(plan, facts, syscalls), indent=2)
    else:
        text = plan_as_text(plan, facts, syscalls, os.path.basename(sys.argv[0]))
    sys.stdout.write(text + "\n")
    return 0
