"""Signals that hexe gets reach the command; those that its caller ignores stay ignored."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from support import PATIENCE, Caller, Running, children_of, read_line, status_of, wait_until

PROFILES = ("none", "minimal", "default", "sandbox", "full")  # balanced is default: see test_profiles
PASSED_ON = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2")

LISTENER = """
import os, signal, sys
def answer(number, _):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
for name in sys.argv[1:]:
    # Not print: the next signal may come while it is inside its buffer.
    signal.signal(getattr(signal, "SIG" + name), answer)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def listening(caller: Caller, profile: str, *names: str) -> subprocess.Popen[bytes]:
    command = ["/usr/bin/python3", "-I", "-c", LISTENER, *names]
    process = caller.popen("run", "--isolation", profile, "--", *command)
    assert read_line(process.stdout) == "ready"
    return process


def test_each_reaches_the_command(caller: Caller, profile: str) -> None:
    process = listening(caller, profile, *PASSED_ON, "WINCH")
    for name in (*PASSED_ON, "WINCH", "TERM"):
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert read_line(process.stdout) == f"SIG{name}"
    process.kill()


@pytest.mark.parametrize("name", PASSED_ON)
def test_an_unhandled_one_ends_the_command(caller: Caller, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    run = caller.running("--isolation", "full")
    run.hexe.send_signal(number)
    assert run.hexe.wait(PATIENCE) == 128 + number


def test_an_unhandled_one_in_every_profile(caller: Caller, profile: str) -> None:
    run = caller.running("--isolation", profile)
    run.hexe.send_signal(signal.SIGTERM)
    assert run.hexe.wait(PATIENCE) == 143


def test_the_commands_answer_to_a_signal_is_its_exit_status(caller: Caller, profile: str) -> None:
    run = caller.running("--isolation", profile, script="trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    run.hexe.send_signal(signal.SIGTERM)
    assert run.hexe.wait(PATIENCE) == 7


def test_it_reaches_the_whole_group(caller: Caller, profile: str) -> None:
    # The shell waits for its child: only a signal to the group, as a terminal sends it, ends both.
    run = caller.running("--isolation", profile, script="echo ready; cat; echo after")
    # Not before its exec: until then a shell that uses vfork answers for its child.
    wait_until(lambda: [name_of(pid) for pid in children_of(run.command)] == ["cat"], what="the shell's child")
    run.hexe.send_signal(signal.SIGINT)
    assert run.hexe.wait(PATIENCE) == 130
    assert run.hexe.stdout and b"after" not in run.hexe.stdout.read()


def name_of(pid: int) -> str:
    return status_of(pid)["Name"]


def state(pid: int) -> str:
    return status_of(pid)["State"][0]


def test_stop_and_continue(caller: Caller, profile: str) -> None:
    run = caller.running("--isolation", profile)
    run.hexe.send_signal(signal.SIGTSTP)
    wait_until(lambda: state(run.hexe.pid) == "T" and state(run.command) == "T", what="hexe and command are stopped")
    run.hexe.send_signal(signal.SIGCONT)
    wait_until(lambda: state(run.hexe.pid) != "T" and state(run.command) != "T", what="both go on")
    assert run.finish() == 0


def test_stopped_by_itself_it_can_be_continued(caller: Caller, profile: str) -> None:
    run = caller.running("--isolation", profile)
    os.kill(run.command, signal.SIGSTOP)
    wait_until(lambda: state(run.command) == "T", what="the command is stopped")
    run.hexe.send_signal(signal.SIGCONT)
    wait_until(lambda: state(run.command) != "T", what="it goes on")
    assert run.finish() == 0


def test_a_stopped_command_can_be_timed_out(caller: Caller, profile: str) -> None:
    run = caller.running("--isolation", profile, "--timeout", "1s")
    os.kill(run.command, signal.SIGSTOP)
    assert run.hexe.wait(PATIENCE) == 124


def ignored(pid: int) -> int:
    # glibc's posix_spawn leaves the two signals that it keeps for itself, 32 and 33, ignored in every program.
    return int(status_of(pid)["SigIgn"], 16) & ~(0b11 << 31)


def handlers(caller: Caller, profile: str, wrapper: list[str]) -> Running:
    command = ["run", "--isolation", profile, "--", "sh", "-c", "echo ready; exec cat"]
    process = caller.popen(*command, wrapper=wrapper, stdin=subprocess.PIPE)
    assert read_line(process.stdout) == "ready"
    init = children_of(process.pid)[0]
    return Running(process, init, children_of(init)[0])


def test_nohup(caller: Caller, profile: str) -> None:
    run = handlers(caller, profile, ["nohup"])
    assert ignored(run.command) == 1 << (signal.SIGHUP - 1), "ignored stays ignored across exec, as nohup means it"
    run.hexe.send_signal(signal.SIGHUP)
    assert run.finish() == 0


def test_nothing_else_is_ignored_or_blocked(caller: Caller, profile: str) -> None:
    run = handlers(caller, profile, ["env"])
    assert ignored(run.command) == 0, "Python's own choice about SIGPIPE isn't passed on"
    assert int(status_of(run.command)["SigBlk"], 16) == 0
    assert run.finish() == 0


def test_a_shells_background_job_ignores_keys(caller: Caller, profile: str) -> None:
    run = handlers(caller, profile, ["sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh"])
    assert ignored(run.command) == 1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1)
    run.hexe.send_signal(signal.SIGINT)
    run.hexe.send_signal(signal.SIGTERM)
    assert run.hexe.wait(PATIENCE) == 143


def test_a_signal_before_the_start(caller: Caller) -> None:
    # The command doesn't exist yet: hexe ends as if it had been killed, and nothing is run. The launch is held up at
    # a FIFO that stands in for the report, opened before anything is started.
    fifo = caller.scratch / "report"
    os.mkfifo(fifo)
    os.chown(fifo, caller.uid, caller.gid)
    process = caller.popen("run", "--report", str(fifo), "--", "sh", "-c", "echo started")
    wait_until(
        lambda: "fifo" in Path(f"/proc/{process.pid}/wchan").read_text() or state(process.pid) == "S",
        what="hexe waits for the report's reader",
    )
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode in (-signal.SIGTERM, 143)
    assert out == b""
    assert children_of(process.pid) == []


@pytest.mark.parametrize("name", ["TERM", "HUP", "USR1"])
def test_at_any_time_a_signal_ends_it(caller: Caller, name: str) -> None:
    # Wherever the launch is when the signal comes, the end is the same, and no process is left.
    number = signal.Signals[f"SIG{name}"]
    for milliseconds in range(0, 40, 4):
        process = caller.popen("run", "--isolation", "full", "--", "sleep", "600")
        try:
            process.wait(milliseconds / 1000)
        except subprocess.TimeoutExpired:
            pass
        family = children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        # Before Hexe's own handling is in place the kernel's default ends it. (Not so Control-C, which the interpreter
        # answers with a KeyboardInterrupt as it starts, and may swallow.)
        assert process.returncode in (-number, 128 + number), (milliseconds, err)
        assert out == b""
        wait_until(partial(all_gone, family), what="hexe's child is gone")


def all_gone(pids: list[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)
