"""What doesn't move (readers that don't read, a stopped init or command) stops neither hexe nor its timeout."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import PATIENCE, Caller, children_of, status_of, wait_until
from terminals import Terminal

TIMED_OUT = 124


@pytest.fixture
def terminal(caller: Caller) -> Iterator[Terminal]:
    made = Terminal(caller)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("profile", ["none", "sandbox"])
def test_a_terminal_that_nobody_reads(terminal: Terminal, profile: str) -> None:
    process = terminal.hexe("run", "--isolation", profile, "--timeout", "500ms", "--", "yes")
    assert process.wait(PATIENCE) == TIMED_OUT


def test_a_screen_that_nobody_reads(terminal: Terminal, caller: Caller) -> None:
    """poll calls a terminal with room for a few bytes writable; a step wants to write thousands."""
    process = caller.popen("run", "--tty", "--timeout", "500ms", "--", "yes", stdout=terminal.inner)
    assert process.wait(PATIENCE) == TIMED_OUT


def test_a_pipe_that_nobody_reads(caller: Caller) -> None:
    process = caller.popen("run", "--tty", "--timeout", "500ms", "--", "yes")
    assert process.wait(PATIENCE) == TIMED_OUT


def test_a_signal_ends_the_wait_for_a_reader(caller: Caller) -> None:
    """The command has ended, its output waits for a reader who doesn't come: hexe must go when it is told to."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb", buffering=0) as full:
        process = caller.popen("run", "--tty", "--", "sh", "-c", "echo last; exit 3", stdout=full)
        wait_until(lambda: stands_at_the_end(process.pid), what="only the output is left")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 3


def stands_at_the_end(pid: int) -> bool:
    """Whether hexe has started its child, and that one has ended: it isn't waited for before its output is out."""
    children = children_of(pid)
    return bool(children) and status_of(children[0])["State"].startswith("Z")


@pytest.mark.parametrize("profile", ["none", "minimal"])
def test_an_init_stopped_by_its_own_command(caller: Caller, profile: str) -> None:
    """Without a pid namespace the command can send init a signal: it must not stop the clock with one."""
    script = "kill -STOP $PPID; exec sleep 600"
    process = caller.popen("run", "--isolation", profile, "--timeout", "500ms", "--", "sh", "-c", script)
    assert process.wait(PATIENCE) == TIMED_OUT


def test_a_command_that_stops_itself_where_no_shell_could_continue_it(terminal: Terminal) -> None:
    process = terminal.hexe("run", "--timeout", "1s", "--", "sh", "-c", "kill -STOP $$")
    assert process.wait(PATIENCE) == TIMED_OUT


def test_the_longest_timeout(caller: Caller) -> None:
    assert caller.sh("exit 9", "--timeout", "365d").returncode == 9


def test_a_full_disk(root_caller: Caller) -> None:
    """Root's files are written by hexe itself: it must say what happened, and to the report too."""
    report = root_caller.scratch / "report.json"
    with Path("/dev/full").open("wb") as full:
        done = root_caller.hexe("run", "--tty", "--report", str(report), "--", "echo", "words", stdout=full)
    assert done.returncode == 125
    assert "hexe: write to descriptor 1: ENOSPC" in done.stderr and "\n  fix: " in done.stderr
    assert '"started": true' in report.read_text()
