"""Standard input, output and error: that they pass, whole and unchanged, and give the command no further right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from support import Caller, alarm

PROFILES = ("none", "minimal", "default", "sandbox", "full")  # balanced is default: see test_profiles
OWN_ROOT = ("default", "sandbox", "full")
LARGE = 50 * 2**20
DIGEST = "import hashlib, sys; print(hashlib.file_digest(sys.stdin.buffer, 'sha256').hexdigest())"


@pytest.fixture(params=OWN_ROOT)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def large() -> bytes:
    """50 MB that no buffer's size divides, and that shows a byte lost or moved."""
    block = hashlib.sha256(b"hexe").digest() * 37 + b"odd"
    return (block * (LARGE // len(block) + 1))[:LARGE]


@pytest.fixture
def output(caller: Caller) -> Iterator[IO[bytes]]:
    """A regular file of the caller's, open for writing."""
    with caller.write("output").open("wb") as file:
        yield file


def written(file: IO[bytes]) -> bytes:
    return Path(file.name).read_bytes()


@pytest.mark.parametrize("name", PROFILES)
def test_the_three_are_apart(caller: Caller, name: str) -> None:
    done = caller.sh("cat; echo error >&2", "--isolation", name, input="input\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "input\n", "error\n")


def test_nothing_of_hexes_on_standard_output(caller: Caller) -> None:
    done = caller.hexe("run", "--verbose", "--", "true")
    assert done.stdout == ""
    assert all(line.startswith(("hexe: ", "  ")) for line in done.stderr.splitlines())


@pytest.mark.parametrize("name", PROFILES)
def test_files(caller: Caller, output: IO[bytes], name: str) -> None:
    source = caller.write("input", "from a file\n")
    with source.open("rb") as stdin:
        done = caller.hexe("run", "--isolation", name, "--", "sh", "-c", "cat; echo e >&2", stdin=stdin, stdout=output)
    assert (done.returncode, done.stderr) == (0, "e\n")
    assert written(output) == b"from a file\n"


def test_a_file_is_read_from_where_the_caller_is(caller: Caller, profile: str) -> None:
    source = caller.write("input", "first\nsecond\n")
    with source.open("rb", buffering=0) as stdin:
        assert stdin.read(6) == b"first\n"
        done = caller.hexe("run", "--isolation", profile, "--", "cat", stdin=stdin)
    assert done.stdout == "second\n"


def test_a_file_is_written_where_the_caller_is(caller: Caller, profile: str) -> None:
    path = caller.write("output", "kept\n")
    with path.open("r+b", buffering=0) as file:
        file.seek(0, os.SEEK_END)
        caller.hexe("run", "--isolation", profile, "--", "echo", "added", stdout=file)
        # The offset is shared, as with any command: what comes next goes behind it.
        file.write(b"after\n")
    assert path.read_text() == "kept\nadded\nafter\n"


def test_both_to_one_file_keep_their_order(caller: Caller, profile: str, output: IO[bytes]) -> None:
    script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done"
    caller.hexe("run", "--isolation", profile, "--", "sh", "-c", script, stdout=output, stderr=output)
    # A relay of two pipes may mix the two, but must lose nothing.
    lines = written(output).decode().splitlines()
    for kind in ("out", "err"):
        assert [line for line in lines if line.startswith(kind)] == [f"{kind} {n}" for n in range(1, 6)]


def test_append_mode_stays_append_only(caller: Caller, profile: str) -> None:
    path = caller.write("log", "kept\n")
    code = """
import os
os.write(1, b"added\\n")
for attempt in (
    lambda: os.ftruncate(1, 0),
    lambda: os.pwrite(1, b"XXXX", 0),
    lambda: os.close(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_TRUNC)),
    lambda: os.write(os.open("/proc/self/fd/1", os.O_WRONLY), b""),
):
    try:
        attempt()
    except OSError:
        pass
os.write(1, b"more\\n")
"""
    with path.open("ab") as log:
        done = caller.hexe("run", "--isolation", profile, "--", "/usr/bin/python3", "-I", "-c", code, stdout=log)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text() == "kept\nadded\nmore\n"


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1", "1 2", "0 1 2"])
def test_closed_streams(caller: Caller, name: str, closed: str) -> None:
    redirections = " ".join(f"{fd}>&-" for fd in closed.split())
    here = caller.mkdir("seen") / "status"
    wrapper = ["sh", "-c", f'exec "$@" {redirections}', "sh"]
    code = "import os; os.fstat(0); os.fstat(1); os.fstat(2); raise SystemExit(7 if os.read(0, 10) == b'' else 8)"
    process = caller.popen("run", "--isolation", name, "--", "/usr/bin/python3", "-I", "-c", code, wrapper=wrapper)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (7, b"", b"")
    assert not here.exists()


@pytest.mark.parametrize("name", ["none", "default", "full"])
def test_large_input_through_a_pipe(caller: Caller, large: bytes, name: str) -> None:
    process = caller.popen(
        "run", "--isolation", name, "--", "/usr/bin/python3", "-I", "-c", DIGEST, stdin=subprocess.PIPE
    )
    out, err = process.communicate(large, timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.decode().strip() == hashlib.sha256(large).hexdigest()


# In default there is no Landlock, so a file goes through a relay; in full it passes as it is.
@pytest.mark.parametrize("name", ["none", "default", "full"])
def test_large_files(caller: Caller, large: bytes, output: IO[bytes], name: str) -> None:
    source = caller.write("input", large)
    with source.open("rb") as stdin:
        done = caller.hexe("run", "--isolation", name, "--", "cat", stdin=stdin, stdout=output, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert hashlib.sha256(written(output)).digest() == hashlib.sha256(large).digest()


@pytest.mark.parametrize("name", ["default", "full"])
def test_large_output_and_error_at_once(caller: Caller, name: str) -> None:
    script = f"head -c {LARGE} /dev/zero & head -c {LARGE} /dev/zero >&2; wait"
    process = caller.popen("run", "--isolation", name, "--", "sh", "-c", script)
    sizes = {}

    def count(label: str, stream: IO[bytes]) -> None:
        sizes[label] = sum(len(part) for part in iter(lambda: stream.read(2**20), b""))

    assert process.stdout and process.stderr
    threads = [threading.Thread(target=count, args=each) for each in (("out", process.stdout), ("err", process.stderr))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert process.wait(20) == 0
    assert sizes == {"out": LARGE, "err": LARGE}


def test_output_as_it_comes(caller: Caller, profile: str, output: IO[bytes]) -> None:
    process = caller.popen("run", "--isolation", profile, "--", "cat", stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    for number in range(3):
        process.stdin.write(b"%d\n" % number)
        process.stdin.flush()
        with alarm(20, "the line comes back before the input ends"):
            assert process.stdout.readline() == b"%d\n" % number


def test_a_reader_that_goes_away(caller: Caller, profile: str) -> None:
    process = caller.popen("run", "--isolation", profile, "--", "yes")
    assert process.stdout
    with alarm(20, "output"):
        assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    assert process.wait(20) == 128 + 13, "SIGPIPE, as without a sandbox"


def test_unread_input_is_no_hindrance(caller: Caller, profile: str, large: bytes) -> None:
    source = caller.write("input", large[: 2**20])
    with source.open("rb") as stdin:
        assert caller.hexe("run", "--isolation", profile, "--", "true", stdin=stdin).returncode == 0
    process = caller.popen("run", "--isolation", profile, "--", "true", stdin=subprocess.PIPE)
    assert process.wait(20) == 0, "an open, silent standard input isn't waited for"


def test_a_directory_is_refused(caller: Caller, profile: str) -> None:
    directory = os.open("/var", os.O_RDONLY)
    try:
        common = ["run", "--isolation", profile, "--", "sh", "-c", "echo started >&2"]
        runs = [caller.hexe(*common, stdin=directory), caller.hexe(*common, stdout=directory)]
        runs.append(caller.hexe("run", "--isolation", profile, "--", "echo", "started", stderr=directory))
    finally:
        os.close(directory)
    # Python itself refuses two of these before a line of Hexe runs; what counts is that nothing is started.
    for done in runs:
        assert done.returncode != 0
        assert "started" not in done.stdout + done.stderr


# -- opening them again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "null", "pipe"])
def test_opening_the_same_again_works(caller: Caller, profile: str, output: IO[bytes], kind: str) -> None:
    script = "cat /dev/stdin; echo two >/dev/stdout; echo three | tee /dev/stderr >/dev/null; cat </proc/self/fd/0"
    if kind == "pipe":
        # Made by the caller, as a shell makes it: the suite's own pipes belong to whoever runs the suite.
        pipeline = f"echo text | {caller.script} run --isolation {profile} -- sh -c '{script}' 2>&1 | cat"
        process = caller.start(["/bin/sh", "-c", pipeline])
        assert process.communicate(timeout=20) == (b"text\ntwo\nthree\n", b"")
        return
    with caller.write("input", "text\n").open("rb") if kind == "file" else open("/dev/null", "rb") as stdin:
        command = ["run", "--isolation", profile, "--", "sh", "-c", script]
        done = caller.hexe(*command, stdin=stdin, stdout=output, stderr=output)
    assert done.returncode == 0, written(output)
    begin = "text\n" if kind == "file" else ""
    # Passed as it is, each opening reads and writes from the file's beginning, as it does without a sandbox. A relay
    # is a pipe: what is written keeps its order, and what is read is gone.
    direct = caller.write("direct")
    with direct.open("wb") as file, caller.write("input", begin).open("rb") as stdin:
        caller.start(["/bin/sh", "-c", script], stdin=stdin, stdout=file, stderr=file).wait(20)
    relayed = f"{begin}two\nthree\n"
    assert written(output).decode() in (direct.read_text(), relayed, relayed + begin)


REOPEN = """
import os, sys
number, mode = int(sys.argv[1]), {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[sys.argv[2]]
for path in (f"/proc/self/fd/{number}", f"/dev/fd/{number}", f"/proc/{os.getpid()}/fd/{number}"):
    try:
        fd = os.open(path, mode | os.O_NONBLOCK | (os.O_TRUNC if "w" in sys.argv[2] else 0))
    except OSError:
        continue
    try:
        if "w" in sys.argv[2]:
            os.write(fd, b"OVERWRITTEN")
        if "r" in sys.argv[2] and number:
            got = os.read(fd, 100)
            os.write(2, b"GOT " + got)
    except OSError:
        pass
"""


def test_a_file_given_to_read_cannot_be_written(caller: Caller, profile: str) -> None:
    source = caller.write("input", "precious\n", mode=0o666)
    for mode in ("w", "rw"):
        with source.open("rb") as stdin:
            command = ["/usr/bin/python3", "-I", "-c", REOPEN, "0", mode]
            done = caller.hexe("run", "--isolation", profile, "--", *command, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        assert source.read_text() == "precious\n"


def test_a_file_given_to_write_cannot_be_read(caller: Caller, profile: str) -> None:
    path = caller.write("output", "secret\n", mode=0o666)
    for mode in ("r", "rw"):
        with path.open("r+b") as both:
            # Opened for writing alone, as `>>` does it, but without O_APPEND: `1<>` in a shell keeps what is there.
            fd = os.open(f"/proc/self/fd/{both.fileno()}", os.O_WRONLY)
        try:
            command = ["/usr/bin/python3", "-I", "-c", REOPEN, "1", mode]
            done = caller.hexe("run", "--isolation", profile, "--", *command, stdout=fd)
        finally:
            os.close(fd)
        assert "secret" not in done.stderr


@pytest.mark.parametrize("kind", ["fifo", "memfd"])
def test_other_things_with_a_file_behind_them(caller: Caller, profile: str, kind: str) -> None:
    if kind == "memfd":
        fd = os.memfd_create("given")
        os.write(fd, b"precious")
        os.lseek(fd, 0, os.SEEK_SET)
        given = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    else:
        path = caller.scratch / "fifo"
        os.mkfifo(path)
        os.chown(path, caller.uid, caller.gid)
        fd = os.open(path, os.O_RDWR)
        os.write(fd, b"precious")
        given = os.open(path, os.O_RDONLY)
    try:
        command = ["/usr/bin/python3", "-I", "-c", REOPEN + "print(os.read(0, 8).decode())", "0", "w"]
        done = caller.hexe("run", "--isolation", profile, "--", *command, stdin=given)
        assert (done.returncode, done.stdout, done.stderr) == (0, "precious\n", "")
        if kind == "memfd":
            assert os.pread(fd, 100, 0) == b"precious"
        else:
            os.set_blocking(fd, False)
            with pytest.raises(BlockingIOError):
                os.read(fd, 100)
    finally:
        os.close(fd)
        os.close(given)
