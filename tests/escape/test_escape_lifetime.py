"""Outliving the command, hexe or the time limit, and killing those who watch."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from shooting_range import PYTHON, Range

from support import children_of, is_running, processes_with, wait_until

pytest_plugins = ("range_fixture",)
WHO = ("root", "user")
ENDING = ("minimal", "default", "sandbox", "full")
# Two forks and a session of its own, deaf to what can be ignored, and named so that it is found from outside.
SURVIVE = """
import os, signal, sys, time
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        os.write(writing, b"x")
        time.sleep(600)
    os._exit(0)
os.read(reading, 1)
print("ready", flush=True)
if sys.argv[2] == "stay":
    time.sleep(600)
"""
# A process that is never the same for long: it forks, and the parent ends. It stops by itself after some seconds.
HOP = """
import os, time
os.write(1, b"ready\\n")
os.dup2(os.open("/dev/null", os.O_RDWR), 1)
os.dup2(1, 2)
first = os.getpid()
end = time.monotonic() + 8
while time.monotonic() < end:
    if os.fork():
        if os.getpid() == first:
            time.sleep(600)
        os._exit(0)
    time.sleep(0.005)
"""


@pytest.fixture
def marker() -> Iterator[str]:
    """A word in the command line of what may survive; whatever still has it is ended after the test."""
    word = "hexe-survivor-" + os.urandom(6).hex()
    yield word
    wait_until(lambda: not end_all(word), what="the end of the survivors")


def end_all(word: str) -> list[int]:
    """Kill what has the word in its command line; returns what there was."""
    found = [pid for pid in processes_with(word) if is_running(pid)]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ENDING)
def test_nothing_outlives_the_command(range_of: Callable[[str], Range], who: str, profile: str, marker: str) -> None:
    """A daemon (double fork, setsid, signals ignored) ends with the command that started it."""
    command = [PYTHON, "-I", "-S", "-c", SURVIVE, marker, "go"]
    status, out, err = range_of(who).run(profile, [], command)
    assert (status, out) == (0, "ready\n"), err
    wait_until(lambda: not processes_with(marker), what="the daemon's end")


@pytest.mark.parametrize("who", WHO)
def test_a_daemon_would_outlive_the_command(range_of: Callable[[str], Range], who: str, marker: str) -> None:
    """Control: in profile none it does."""
    command = [PYTHON, "-I", "-S", "-c", SURVIVE, marker, "go"]
    assert range_of(who).run("none", [], command)[0] == 0
    assert len(processes_with(marker)) == 1


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ENDING)
def test_nothing_outlives_hexe(range_of: Callable[[str], Range], who: str, profile: str, marker: str) -> None:
    """SIGKILL for hexe itself ends the command and its daemon."""
    shooting = range_of(who)
    argv = [*shooting.hexe(profile), "--", PYTHON, "-I", "-S", "-c", SURVIVE, marker, "stay"]
    hexe = shooting.caller.start(argv)
    assert hexe.stdout and hexe.stdout.readline() == b"ready\n"
    hexe.kill()
    hexe.wait()
    wait_until(lambda: not processes_with(marker), what="the end of everything inside")


@pytest.mark.parametrize("who", WHO)
def test_the_command_would_outlive_hexe(range_of: Callable[[str], Range], who: str, marker: str) -> None:
    """Control: profile none promises nothing of the kind."""
    shooting = range_of(who)
    argv = [*shooting.hexe("none"), "--", PYTHON, "-I", "-S", "-c", SURVIVE, marker, "stay"]
    hexe = shooting.caller.start(argv)
    assert hexe.stdout and hexe.stdout.readline() == b"ready\n"
    helper = children_of(hexe.pid)[0]
    hexe.kill()
    hexe.wait()
    wait_until(lambda: not is_running(helper), what="the end of hexe's child, which sees hexe's")
    assert processes_with(marker)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ENDING)
def test_forking_does_not_escape_the_time_limit(
    range_of: Callable[[str], Range], who: str, profile: str, marker: str
) -> None:
    """A process that keeps forking itself on, under ever new pids, is gone when the time is up."""
    command = [PYTHON, "-I", "-S", "-c", HOP, marker]
    status, out, err = range_of(who).run(profile, ["--timeout", "300ms"], command)
    assert (status, "ready" in out) == (124, True), err
    wait_until(lambda: not processes_with(marker), what="the hopper's end")


@pytest.mark.parametrize("who", WHO)
def test_forking_would_escape_the_time_limit(range_of: Callable[[str], Range], who: str, marker: str) -> None:
    """Control: the end of a plain process doesn't end its tree."""
    shooting = range_of(who)
    process = shooting.caller.start([PYTHON, "-I", "-S", "-c", HOP, marker])
    assert process.stdout and process.stdout.readline() == b"ready\n"
    wait_until(lambda: len(processes_with(marker)) >= 2, what="the first hop")
    process.kill()
    process.wait()
    wait_until(lambda: processes_with(marker), what="a hop after the end of the first process")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ["default", "sandbox", "full"])
@pytest.mark.parametrize("number", ["KILL", "STOP", "TERM", "SEGV", "ABRT", "INT", "USR1"])
def test_init_cannot_be_killed(range_of: Callable[[str], Range], who: str, profile: str, number: str) -> None:
    """No signal from inside ends or stops pid 1: the command goes on, and its end is reported."""
    status, out, err = range_of(who).run(profile, [], ["/bin/sh", "-c", f"kill -{number} 1; echo alive; exit 7"])
    assert (status, out) == (7, "alive\n"), err


@pytest.mark.parametrize("who", WHO)
def test_init_could_be_killed(range_of: Callable[[str], Range], who: str) -> None:
    """Control: in minimal, without a pid namespace, Hexe's helper can be killed, and the command dies with it."""
    status, out, _ = range_of(who).run("minimal", [], ["/bin/sh", "-c", "kill -KILL $PPID; while :; do :; done"])
    assert status not in (0, 7)
    assert out == ""


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", ["default", "sandbox", "full"])
def test_killing_everybody_kills_only_oneself(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """kill -9 -1 reaches nothing but the sandbox's own processes."""
    shooting = range_of(who)
    assert shooting.run(profile, [], ["/bin/sh", "-c", "kill -KILL -1; echo alive"])[0] == 0
    assert is_running(shooting.facts.victim)
    assert is_running(shooting.facts.neighbour)
    status, _, _ = shooting.run(profile, [], ["/bin/sh", "-c", "sh -c 'kill -KILL -1'; echo alive"])
    assert status == 128 + signal.SIGKILL
    assert is_running(shooting.facts.victim)
    assert is_running(shooting.facts.neighbour)
