"""What the run path imports. A slow module there costs every user of every launch; time itself is bench's subject."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hexe

SOURCE = Path(hexe.__file__).parent.parent
SLOW = frozenset(
    [
        "dataclasses",
        "typing",
        "re",
        "enum",
        "argparse",
        "json",
        "asyncio",
        "msgspec",
        "rich",
        "pyseccomp",
        "signal",
        "socket",
        "subprocess",
        "ctypes",
        "inspect",
        "logging",
        "pathlib",
        "selectors",
        "shutil",
        "tempfile",
        "threading",
        "collections",
        "functools",
        "contextlib",
        "random",
    ]
)
IMPORTING = "import hexe.cli.main, hexe.cli.run, hexe.sandbox.supervise"
# The command line as the installed script calls it, but with a look around instead of the end.
RUNNING = "from hexe.cli.main import dispatch; assert dispatch(['run', '--isolation', 'none', '--', 'true']) == 0"


def modules_after(code: str) -> set[str]:
    """The modules in an interpreter without site, which is the installation's and not ours, after that code."""
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", [IMPORTING, RUNNING], ids=["imported", "run"])
def test_the_run_path_imports_nothing_slow(code: str) -> None:
    found = modules_after(code)
    assert "hexe.sandbox.spawn" in found
    assert not found & SLOW


def test_what_only_others_need_is_not_imported() -> None:
    found = modules_after(RUNNING)
    for name in ("check", "explain", "report", "diagnose", "relay"):
        assert f"hexe.sandbox.{name}" not in found
    assert not {"hexe.policy.syscall_rules", "hexe.linux.seccomp", "hexe.policy.suggest"} & found


def test_planning_the_fullest_profile_imports_nothing_slow() -> None:
    # With a stand-in for the filter: building the real one, once a machine, may import what it likes.
    words = ["--isolation", "full", "--tmpfs", "/a", "--ro-bind", "/usr:/b", "--env", "A=1", "--timeout", "3s"]
    code = (
        f"import hexe.cli.run as run; run.load_filter = lambda *_: bytes(8); "
        f"run.plan_for(run.parse({json.dumps([*words, '--', 'true'])}, run.RUN_OPTIONS, 'run'))"
    )
    assert not modules_after(code) & SLOW


def test_this_test_can_fail() -> None:
    assert modules_after("import argparse") & SLOW >= {"argparse", "re", "enum"}
