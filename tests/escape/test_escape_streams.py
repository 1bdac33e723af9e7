"""The standard streams as a way out: opened again with more rights, truncated, or a terminal's keys read."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable

import pytest
from shooting_range import LANDLOCK, Range

from support import PATIENCE

pytest_plugins = ("range_fixture",)
WHO = ("root", "user")
PROFILES = ("default", "sandbox", "full")
OVERWRITE = """
import os
try:
    fd = os.open("/proc/self/fd/0", os.O_RDWR)
    os.write(fd, b"changed")
    verdict = "written"
except OSError as error:
    verdict = f"errno {error.errno}"
os.write(2, verdict.encode())
"""
TRUNCATE = """
import os
for attempt in (lambda: os.ftruncate(1, 0), lambda: os.open("/proc/self/fd/1", os.O_WRONLY | os.O_TRUNC),
                lambda: os.pwrite(os.open("/proc/self/fd/1", os.O_WRONLY), b"changed", 0)):
    try:
        attempt()
    except OSError as error:
        os.write(2, f"errno {error.errno} ".encode())
"""
READ_KEYS = """
import os
try:
    fd = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    verdict = os.read(fd, 99).decode()
except OSError as error:
    verdict = f"errno {error.errno}"
os.write(2, verdict.encode())
"""
EACCES = 13


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", PROFILES)
def test_input_cannot_be_opened_for_writing(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """A file given read-only as standard input stays as it is: Landlock refuses, or a pipe stands between."""
    shooting = range_of(who)
    path = shooting.caller.write(shooting.base / "input", "as it was\n", 0o666)
    with path.open("rb") as file:
        verdict = shooting.python(profile, OVERWRITE, stdin=file)
    assert path.read_text() == "as it was\n"
    if profile != "default" and LANDLOCK >= 3:
        assert verdict == f"errno {EACCES}"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("setting", ["default without relaying", "sandbox without landlock"])
def test_input_could_be_opened_for_writing(range_of: Callable[[str], Range], who: str, setting: str) -> None:
    """Control: without the pipe, or without Landlock, the descriptor's own file is overwritten."""
    shooting = range_of(who)
    path = shooting.caller.write(shooting.base / "input", "as it was\n", 0o666)
    with path.open("rb") as file:
        assert shooting.python(setting, OVERWRITE, stdin=file) == "written"
    assert path.read_text().startswith("changed")


@pytest.mark.parametrize("cover", ["--ro-bind", "--tmpfs"])
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", PROFILES)
def test_covered_input_cannot_be_opened_for_writing(
    range_of: Callable[[str], Range], who: str, profile: str, cover: str
) -> None:
    """Nor one that lies in a writable bind, below a mount that forbids it: Landlock's rule for the bind has its inode.

    Landlock looks for rules from the descriptor's file upwards on the host's mounts, where nothing is in between.
    """
    caller = range_of(who).caller
    path = caller.write("part/input", "as it was\n", 0o666)
    options = ("--isolation", profile, "--bind", str(caller.scratch), cover, f"{caller.scratch}/part")
    with path.open("rb") as file:
        done = caller.hexe("run", *options, "--", "/usr/bin/python3", "-I", "-c", OVERWRITE, stdin=file)
    assert done.returncode == 0
    assert path.read_text() == "as it was\n"


@pytest.mark.parametrize("who", WHO)
def test_input_in_a_writable_bind_stays_a_file(range_of: Callable[[str], Range], who: str) -> None:
    """Where the file can be written by its name anyway, no pipe stands between: programs may seek in it."""
    caller = range_of(who).caller
    path = caller.write("part/input", "as it was\n", 0o666)
    with path.open("rb") as file:
        options = ("--isolation", "sandbox", "--bind", str(caller.scratch))
        done = caller.hexe("run", *options, "--", "stat", "-Lc", "%F", "/dev/stdin", stdin=file)
    assert (done.returncode, done.stdout) == (0, "regular file\n"), done.stderr


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", PROFILES)
def test_log_cannot_be_truncated(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """A log that is appended to (``>> log``) keeps what it had."""
    shooting = range_of(who)
    path = shooting.caller.write(shooting.base / "log", "as it was\n", 0o666)
    with path.open("ab") as file:
        shooting.python(profile, TRUNCATE, stdout=file)
    assert path.read_text().startswith("as it was\n")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("setting", ["default without relaying", "sandbox without relaying, landlock"])
def test_log_could_be_truncated(range_of: Callable[[str], Range], who: str, setting: str) -> None:
    """Control: with the file itself as standard output it is emptied."""
    shooting = range_of(who)
    path = shooting.caller.write(shooting.base / "log", "as it was\n", 0o666)
    with path.open("ab") as file:
        shooting.python(setting, TRUNCATE, stdout=file)
    assert "as it was" not in path.read_text()


def keys_read(shooting: Range, setting: str) -> str:
    """What code inside reads of the keys that wait at the caller's terminal, its standard output."""
    master, slave = pty.openpty()
    try:
        os.chmod(os.ttyname(slave), 0o666)  # root's stand-in must be refused for another reason than the mode
        os.write(master, b"keys\n")
        return shooting.python(setting, READ_KEYS, stdout=slave)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", PROFILES)
def test_keys_cannot_be_read_from_the_screen(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """With the caller's terminal as standard output only, what is typed there stays the caller's."""
    verdict = keys_read(range_of(who), profile)
    assert "keys" not in verdict
    if profile != "default" and LANDLOCK >= 3:
        assert verdict == f"errno {EACCES}"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("setting", ["default without relaying", "sandbox without landlock"])
def test_keys_could_be_read_from_the_screen(range_of: Callable[[str], Range], who: str, setting: str) -> None:
    """Control: the descriptor of the terminal itself gives them away."""
    assert keys_read(range_of(who), setting) == "keys"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_directory_is_no_stream(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """A directory as standard input would be a way into the host's files: nothing is started."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        status, _, err = range_of(who).run(profile, [], ["/bin/sh", "-c", "echo started >&2"], stdin=fd)
    finally:
        os.close(fd)
    # The interpreter itself refuses it too, with status 1, before Hexe comes to say 125.
    assert status in (1, 125)
    assert "is a directory" in err
    assert "started" not in err


@pytest.mark.parametrize("who", WHO)
def test_a_directory_would_lead_out(range_of: Callable[[str], Range], who: str) -> None:
    """Control: what gets it, without Hexe, walks from it over the host's files."""
    shooting = range_of(who)
    fd = os.open(shooting.facts.elsewhere, os.O_RDONLY | os.O_DIRECTORY)
    try:
        process = shooting.caller.start(["/bin/cat", "/proc/self/fd/0/secret"], stdin=fd)
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        os.close(fd)
    assert out.decode() == shooting.secret
