"""Nothing outlives a run: not its caller's death, not a timeout, not the command's end."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import PATIENCE, Caller, children_of, descendants_of, is_running, processes_with, read_line, wait_until

PROFILES = ("none", "minimal", "default", "sandbox", "full")  # balanced is default: see test_profiles
ENDED = ("minimal", "default", "sandbox", "full")
OWN_PIDS = ("default", "sandbox", "full")

# A tree that wants to live: a grandchild in a session of its own, deaf to every signal that can be ignored.
STUBBORN = """
import os, signal, sys, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("up", flush=True)
    time.sleep(600)
time.sleep(600)
"""


@pytest.fixture
def marker() -> Iterator[str]:
    """A word for a command line, by which a process is found from outside; what still has it at the end is killed."""
    word = f"hexe-test-{uuid.uuid4().hex}"
    yield word
    for pid in processes_with(word):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def stubborn(marker: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-c", STUBBORN, marker]


def inside_processes(process: subprocess.Popen[bytes], marker: str) -> list[int]:
    return [pid for pid in processes_with(marker) if pid != process.pid]


@pytest.mark.parametrize("profile", ENDED)
def test_killed_caller(caller: Caller, profile: str, marker: str) -> None:
    process = caller.popen("run", "--isolation", profile, "--", *stubborn(marker))
    assert read_line(process.stdout) == "up"
    family = descendants_of(process.pid)
    assert len(family) == 4, "init, the command, its child and grandchild"
    process.kill()
    process.wait(PATIENCE)
    wait_until(lambda: not any(is_running(pid) for pid in family), what="everything inside is gone")
    assert inside_processes(process, marker) == []


@pytest.mark.parametrize("profile", ["none", "minimal", "default", "full"])
def test_timeout_ends_everything(caller: Caller, profile: str, marker: str) -> None:
    process = caller.popen("run", "--timeout", "1s", "--isolation", profile, "--", *stubborn(marker))
    assert read_line(process.stdout) == "up"
    family = descendants_of(process.pid)
    assert process.wait(PATIENCE) == 124
    # When hexe has ended, it has happened: no waiting here.
    assert [pid for pid in family if is_running(pid)] == []
    assert inside_processes(process, marker) == []


@pytest.mark.parametrize("profile", ENDED)
def test_what_runs_in_the_background_ends_with_the_command(caller: Caller, profile: str, marker: str) -> None:
    script = '/usr/bin/python3 -I -c "$1" "$2" & exec cat >/dev/null'
    command = ["sh", "-c", script, "sh", STUBBORN, marker]
    process = caller.popen("run", "--isolation", profile, "--", *command, stdin=subprocess.PIPE)
    assert read_line(process.stdout) == "up"
    family = descendants_of(process.pid)
    assert len(family) == 5, "init, the command and the stubborn three"
    assert process.stdin
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    assert [pid for pid in family if is_running(pid)] == []
    assert inside_processes(process, marker) == []


def test_none_lets_a_background_process_live(caller: Caller, marker: str) -> None:
    # As a plain command would: none is no sandbox.
    script = "sleep 600 >/dev/null 2>&1 </dev/null & echo $!"
    done = caller.sh(script, "--isolation", "none")
    pid = int(done.stdout)
    try:
        assert done.returncode == 0
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("profile", OWN_PIDS)
def test_init_cannot_be_hurt_from_inside(caller: Caller, profile: str) -> None:
    code = """
import os, signal
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
try:
    os.kill(-1, signal.SIGSTOP)
except OSError:
    pass
print("still here")
"""
    for identity in ("keep", "root"):
        assert caller.python(code, "--isolation", profile, "--uid", identity) == "still here\n"


@pytest.mark.parametrize("profile", OWN_PIDS)
def test_init_killed_from_outside(root_caller: Caller, profile: str) -> None:
    run = root_caller.running("--isolation", profile)
    os.kill(run.init, signal.SIGKILL)
    assert run.hexe.wait(PATIENCE) == 137
    assert not is_running(run.command)


@pytest.mark.parametrize("profile", ENDED)
def test_orphans_are_reaped(caller: Caller, profile: str) -> None:
    # Each subshell leaves a process behind, which then belongs to init; a zombie would still be listed.
    script = """
    for n in 1 2 3 4 5 6 7 8; do (true & true &); done
    sleep 0.01
    n=0
    while grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | grep -q . && [ $n -lt 500 ]; do n=$((n + 1)); done
    grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l
    """
    if profile == "minimal":
        run = caller.running("--isolation", profile, script="for n in 1 2 3 4 5 6 7 8; do (true & true &); done")
        wait_until(lambda: children_of(run.init) == [run.command], what="only the command is left below init")
        return
    assert caller.inside(script, "--isolation", profile) == "0\n"


def test_a_command_that_kills_its_own_group(caller: Caller) -> None:
    for profile in PROFILES:
        done = caller.sh("kill -KILL 0", "--isolation", profile)
        assert done.returncode == 137, profile


def test_killing_everything_it_can_see_hurts_only_itself(caller: Caller) -> None:
    for profile in OWN_PIDS:
        done = caller.sh("kill -KILL -1; echo alone", "--isolation", profile)
        # Linux leaves the sender of a kill to -1 alive.
        assert (done.returncode, done.stdout) == (0, "alone\n"), profile


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("profile", ["minimal", "full"])
def test_many_runs_leave_nothing(caller: Caller, profile: str, marker: str) -> None:
    before, temporary = mounts(), sorted(os.listdir("/tmp"))
    script = f": {marker}; sleep 600 & exit 3"
    for _ in range(25):
        assert caller.sh(script, "--isolation", profile).returncode == 3
    assert mounts() == before
    assert processes_with(marker) == []
    assert [name for name in sorted(os.listdir("/tmp")) if name not in temporary and "hexe" in name] == []


def test_many_at_once(caller: Caller) -> None:
    several = [caller.popen("run", "--isolation", "full", "--", "sh", "-c", f"exit {n}") for n in range(12)]
    assert [process.wait(PATIENCE) for process in several] == list(range(12))


def test_a_failed_launch_leaves_nothing(caller: Caller) -> None:
    outer = caller.mkdir("outer")
    process = caller.popen("run", "--ro-bind", f"{outer}:/data", "--tmpfs", "/data/missing", "--", "true")
    assert process.wait(PATIENCE) == 125
    assert mounts() == mounts()
    assert children_of(process.pid) == []
    assert str(outer) not in mounts()
