"""hexe run on a real terminal: the command gets one of its own, and the caller's comes back as it was."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from support import PATIENCE, Caller, children_of, is_running, status_of, wait_until
from terminals import Terminal

PROFILES = ("none", "minimal", "default", "sandbox", "full")  # balanced is default: see test_profiles
OWN_ROOT = ("default", "sandbox", "full")


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def terminal(caller: Caller) -> Iterator[Terminal]:
    made = Terminal(caller, rows=33, columns=77)
    try:
        yield made
    finally:
        made.close()


def shell(terminal: Terminal, script: str, *options: str, **streams: int) -> subprocess.Popen[bytes]:
    return terminal.hexe("run", *options, "--", "sh", "-c", script, **streams)


def test_a_terminal_of_its_own(terminal: Terminal, profile: str) -> None:
    script = (
        "tty; stat -c %d $(tty); for n in 0 1 2; do test -t $n && echo $n; done; stty size; true </dev/tty && echo ok"
    )
    process = shell(terminal, script, "--isolation", profile)
    name, instance, *rest = terminal.read_all(process).decode().splitlines()
    assert process.returncode == 0
    assert rest == ["0", "1", "2", "33 77", "ok"]
    if profile in OWN_ROOT:
        assert name == "/dev/pts/0"
        assert int(instance) != os.fstat(terminal.inner).st_dev, "another instance of devpts"
    else:
        assert name.startswith("/dev/pts/") and name != os.ttyname(terminal.inner)


def test_console_only_with_a_terminal(terminal: Terminal, caller: Caller) -> None:
    process = shell(terminal, "test -c /dev/console && echo there; echo x >/dev/console", "--isolation", "full")
    assert terminal.read_all(process) == b"there\r\nx\r\n"
    assert caller.inside("test -e /dev/console || echo none", "--isolation", "full") == "none\n"


def test_keys_and_their_echo(terminal: Terminal, profile: str) -> None:
    process = shell(terminal, "echo ready; read line; echo got $line", "--isolation", profile)
    terminal.expect("ready\r\n")
    assert terminal.is_raw(), "the echo below is the inner terminal's"
    terminal.type("abc\x7fd\r")
    # The inner terminal's own line editing: the erased letter is gone.
    terminal.expect("abc.*d\r\n.*got abd\r\n")
    assert process.wait(PATIENCE) == 0


def test_the_modes_of_the_callers_terminal_are_taken_over(terminal: Terminal) -> None:
    subprocess.run(["stty", "-echo", "erase", "^H", "intr", "^K"], stdin=terminal.inner, check=True)
    before = terminal.modes()
    # Not the shell itself may get the interrupt: dash keeps one that comes between two of its commands for later.
    wait = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready', flush=True); signal.pause()"
    process = shell(terminal, f'stty -a; exec /usr/bin/python3 -I -c "{wait}"')
    text = terminal.expect("ready\r\n")
    assert "-echo " in text and "erase = ^H" in text and "intr = ^K" in text
    terminal.type("\x0b")
    assert process.wait(PATIENCE) == 130
    assert terminal.modes() == before


def test_resize(terminal: Terminal, profile: str) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    process = shell(terminal, script, "--isolation", profile)
    terminal.expect("ready\r\n")
    for rows, columns in ((40, 100), (10, 20)):
        terminal.resize(rows, columns)
        terminal.expect(f"{rows} {columns}\r\n")
    process.kill()


# -- the caller's terminal comes back as it was ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "script", "status"),
    [
        ([], "exit 5", 5),
        ([], "stty raw -echo; exit 6", 6),
        ([], "kill -KILL $$", 137),
        ([], "kill -KILL 0", 137),
        (["--timeout", "100ms"], "sleep 60", 124),
        (["--cwd", "/no/such/directory"], "true", 125),
        (["--ro-bind", "/usr/share:/data", "--tmpfs", "/data/missing"], "true", 125),
    ],
)
def test_modes_afterwards(terminal: Terminal, options: list[str], script: str, status: int) -> None:
    before = terminal.modes()
    process = shell(terminal, script, *options)
    terminal.read_all(process)
    assert process.returncode == status
    assert terminal.modes() == before


def test_modes_after_a_command_that_is_not_found(terminal: Terminal, profile: str) -> None:
    before = terminal.modes()
    process = terminal.hexe("run", "--isolation", profile, "--", "no-such-program")
    screen = terminal.read_all(process)
    assert process.returncode == 127
    assert terminal.modes() == before
    # The message comes when the modes are back: in raw mode its lines would be a staircase.
    assert b"not found" in screen and screen.count(b"\n") == screen.count(b"\r\n")


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_modes_after_a_signal(terminal: Terminal, profile: str, name: str) -> None:
    before = terminal.modes()
    process = shell(terminal, "echo ready; exec sleep 600", "--isolation", profile)
    terminal.expect("ready\r\n")
    assert terminal.is_raw()
    process.send_signal(signal.Signals[f"SIG{name}"])
    terminal.read_all(process)
    assert process.returncode == 128 + signal.Signals[f"SIG{name}"]
    assert terminal.modes() == before


# -- keys that are signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "status"), [("\x03", 130), ("\x1c", 131)])
def test_keys_that_end_the_command(terminal: Terminal, profile: str, key: str, status: int) -> None:
    process = shell(terminal, "echo ready; exec sleep 600", "--isolation", profile)
    terminal.expect("ready\r\n")
    terminal.type(key)
    assert process.wait(PATIENCE) == status


def test_control_c_that_the_command_handles(terminal: Terminal, profile: str) -> None:
    script = "trap 'echo caught' INT; echo ready; read line || :; read line; echo got $line"
    process = shell(terminal, script, "--isolation", profile)
    terminal.expect("ready\r\n")
    terminal.type("\x03")
    terminal.expect("caught\r\n")
    terminal.type("more\rmore\r")
    terminal.expect("got more\r\n")
    assert process.wait(PATIENCE) == 0


def test_control_d(terminal: Terminal, profile: str) -> None:
    process = shell(terminal, "echo ready; cat; echo end", "--isolation", profile)
    terminal.expect("ready\r\n")
    terminal.type("line\r\x04")
    terminal.expect("line\r\nline\r\nend\r\n")
    assert process.wait(PATIENCE) == 0


def test_hang_up(terminal: Terminal, profile: str) -> None:
    process = shell(terminal, "echo ready; exec sleep 600", "--isolation", profile)
    terminal.expect("ready\r\n")
    init = children_of(process.pid)[0]
    command = children_of(init)[0]
    terminal.hang_up()
    assert process.wait(PATIENCE) == 129
    assert not is_running(init) and not is_running(command)


# -- job control: a shell on the terminal runs hexe -------------------------------------------------------------------


@pytest.fixture
def job_shell(terminal: Terminal) -> Terminal:
    """An interactive shell of the caller's, at its prompt."""
    terminal.start(["/bin/sh", "-i"])
    terminal.expect("[#$] ")
    terminal.type("PS1='prompt> '\r")
    terminal.expect("prompt> .*prompt> |\nprompt> ")
    return terminal


def run_line(terminal: Terminal, script: str, profile: str) -> str:
    return f"{terminal.caller.script} run --isolation {profile} -- {script}\r"


def test_control_z_and_fg(job_shell: Terminal, profile: str) -> None:
    before = job_shell.modes()
    job_shell.type(run_line(job_shell, "sh -c 'echo rea\"\"dy; read line; echo got $line'", profile))
    job_shell.expect("ready\r\n")
    assert job_shell.is_raw()
    job_shell.type("\x1a")
    job_shell.expect("Stopped.*prompt> ")
    assert job_shell.modes() == before, "the shell has its terminal back"
    job_shell.type("echo in between$((1 + 1))\r")
    job_shell.expect("between2\r\n.*prompt> ")
    job_shell.type("fg\r")
    wait_until(job_shell.is_raw, what="hexe has the terminal again")
    job_shell.type("later\r")
    job_shell.expect("got later\r\n.*prompt> ")
    assert job_shell.modes() == before
    job_shell.type("exit\r")


def test_control_z_inside_a_shell_inside(job_shell: Terminal) -> None:
    # Job control of a shell in the sandbox is its own: hexe isn't stopped by it.
    job_shell.type(run_line(job_shell, "sh -i", "full"))
    job_shell.expect("[#$] ")
    job_shell.type("PS1='inner> '\r")
    job_shell.expect("\ninner> |\rinner> ")
    job_shell.type("sh -c 'echo slee\"\"ping; exec sleep 600'\r")
    job_shell.expect("sleeping\r\n")
    job_shell.type("\x1a")
    job_shell.expect("Stopped.*inner> ")
    job_shell.type("exit 7\r")
    job_shell.expect("stopped jobs.*inner> ")
    job_shell.type("exit 7\r")
    job_shell.expect("prompt> ")
    job_shell.type("echo status $?\r")
    job_shell.expect("status 7\r\n")


def test_started_in_the_background_it_leaves_the_terminal_alone(job_shell: Terminal, profile: str) -> None:
    before = job_shell.modes()
    job_shell.type(run_line(job_shell, "sh -c 'echo back\"\"ground; exec sleep 600'", profile).replace("\r", " &\r"))
    job_shell.expect("background")
    assert job_shell.modes() == before
    job_shell.type("echo the keys are mi''ne\r")
    job_shell.expect("the keys are mine\r\n")
    assert job_shell.modes() == before
    job_shell.type("kill %1; wait %1; echo status $?\r")
    job_shell.expect("status 143\r\n")
    assert job_shell.modes() == before


def test_brought_to_the_foreground_it_takes_the_terminal(job_shell: Terminal) -> None:
    before = job_shell.modes()
    line = run_line(job_shell, "sh -c 'echo rea\"\"dy; read line; echo got $line'", "full")
    job_shell.type(line.replace("\r", " &\r"))
    job_shell.expect("ready")
    job_shell.type("fg\r")
    wait_until(job_shell.is_raw, what="hexe has the terminal")
    job_shell.type("now\r")
    job_shell.expect("got now\r\n.*prompt> ")
    assert job_shell.modes() == before


# -- part of the streams are a terminal ------------------------------------------------------------------------------


def test_output_redirected(terminal: Terminal, caller: Caller, profile: str) -> None:
    script = "test -t 0 && echo in >&2; test -t 1 || echo no terminal; test -t 2 && echo err >&2; read line; echo $line"
    with caller.write("output").open("wb") as file:
        process = shell(terminal, script, "--isolation", profile, stdout=file.fileno())
    terminal.expect("in\r\nerr\r\n")
    terminal.type("typed\r")
    assert process.wait(PATIENCE) == 0
    # Not \r\n: what is no terminal for the command isn't treated as one.
    assert (caller.scratch / "output").read_bytes() == b"no terminal\ntyped\n"


@pytest.mark.parametrize("name", OWN_ROOT)
def test_keys_cannot_be_read_through_the_output(terminal: Terminal, name: str) -> None:
    code = """
import os, sys
got = []
for attempt in (
    lambda: os.read(1, 10),
    lambda: os.read(os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK), 10),
    lambda: os.read(os.open("/dev/stdout", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK), 10),
    lambda: os.read(os.open("/proc/self/fd/2", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK), 10),
    lambda: os.read(os.open("/dev/tty", os.O_RDWR), 10),
):
    try:
        got.append(attempt())
    except OSError:
        pass
print("got", got, file=sys.stderr)
"""
    command = ["/usr/bin/python3", "-I", "-c", code]
    terminal.type("typed\r")
    process = terminal.hexe("run", "--isolation", name, "--", *command, stdin=subprocess.DEVNULL)
    terminal.expect(r"got \[\]\r\n")
    assert process.wait(PATIENCE) == 0


def test_no_terminal_please(terminal: Terminal, profile: str) -> None:
    before = terminal.modes()
    script = "test -t 0 && tty; echo ready; read line; echo got $line; (: </dev/tty) 2>/dev/null || echo not controlled"
    process = shell(terminal, script, "--isolation", profile, "--no-tty")
    terminal.expect("ready\r\n")
    assert terminal.modes() == before
    terminal.type("typed\r")
    terminal.expect("got typed\r\n.*not controlled\r\n")
    assert process.wait(PATIENCE) == 0


def test_a_terminal_without_one_here(caller: Caller, profile: str) -> None:
    done = caller.sh(
        "test -t 0 && test -t 1 && test -t 2 && stty -echo; cat; echo end",
        "--isolation",
        profile,
        "--tty",
        input="line\n",
    )
    assert done.returncode == 0
    # Its first line may be echoed before stty has run.
    assert done.stdout.replace("line\r\nline\r\n", "line\r\n").replace("^D\b\b", "") == "line\r\nend\r\n"
    done = caller.sh("cat; exit 3", "--isolation", profile, "--tty")
    assert done.returncode == 3, "the end of the input is a Control-D"


# -- much at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "full"])
def test_a_large_paste(terminal: Terminal, name: str) -> None:
    text = b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(10_000))
    script = f"stty -echo; echo ready; head -c {len(text)} | sha256sum"
    process = shell(terminal, script, "--isolation", name)
    terminal.expect("ready\r\n")
    terminal.type(text)
    terminal.expect(hashlib.sha256(text).hexdigest())
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("name", ["none", "full"])
def test_fast_output(terminal: Terminal, name: str) -> None:
    code = "import sys\nfor n in range(200_000): sys.stdout.write('%07d %s\\n' % (n, 'x' * 91))"
    process = terminal.hexe("run", "--isolation", name, "--", "/usr/bin/python3", "-I", "-c", code)
    received = terminal.read_all(process, timeout=60)
    assert process.returncode == 0
    expected = b"".join(b"%07d %s\r\n" % (number, b"x" * 91) for number in range(200_000))
    assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()


def test_the_last_words_are_shown(terminal: Terminal, profile: str) -> None:
    # The command has ended when its output is still in the terminal's buffer.
    for _ in range(5):
        process = shell(terminal, "head -c 3000 /dev/zero | tr '\\0' x; echo; echo last", "--isolation", profile)
        assert terminal.read_all(process).endswith(b"last\r\n")


def test_a_stopped_command_is_not_taken_for_an_ended_one(terminal: Terminal) -> None:
    process = shell(terminal, "echo ready; exec cat")
    terminal.expect("ready\r\n")
    terminal.type("\x1a")
    # Without a job-control shell above, hexe stops with its command, as the command alone would.
    wait_until(lambda: status_of(process.pid)["State"].startswith("T"), what="hexe is stopped")
    process.send_signal(signal.SIGCONT)
    wait_until(terminal.is_raw, what="hexe has the terminal again")
    terminal.type("line\r\x04")
    terminal.expect("line\r\n.*line\r\n")
    assert process.wait(PATIENCE) == 0
