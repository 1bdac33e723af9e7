"""The exit status of hexe run: the command's own, 128+N, 124, 125, 126 or 127."""

from __future__ import annotations

import signal

import pytest

from support import Caller

PROFILES = ("none", "minimal", "default", "sandbox", "full")  # balanced is default: see test_profiles


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("status", [0, 1, 2, 77, 124, 125, 126, 127, 128, 137, 255])
def test_the_commands_own(caller: Caller, status: int) -> None:
    done = caller.sh(f"exit {status}", "--isolation", "full")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_the_commands_own_in_every_profile(caller: Caller, profile: str) -> None:
    assert caller.sh("exit 42", "--isolation", profile).returncode == 42


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "SEGV", "PIPE", "TERM", "SYS", "RTMIN"])
def test_death_by_signal(caller: Caller, name: str) -> None:
    number = signal.SIGRTMIN if name == "RTMIN" else signal.Signals[f"SIG{name}"]
    done = caller.sh(f"kill -{int(number)} $$", "--isolation", "full")
    assert (done.returncode, done.stdout) == (128 + number, "")


def test_death_by_signal_in_every_profile(caller: Caller, profile: str) -> None:
    assert caller.sh("kill -TERM $$", "--isolation", profile).returncode == 143


def test_timeout(caller: Caller, profile: str) -> None:
    done = caller.hexe("run", "--isolation", profile, "--timeout", "100ms", "--", "sleep", "60")
    assert done.returncode == 124
    assert (done.stderr.startswith("hexe: ") and "100ms" in done.stderr) or "timeout" in done.stderr.lower()


def test_no_timeout_when_it_is_quick(caller: Caller, profile: str) -> None:
    assert caller.sh("exit 9", "--isolation", profile, "--timeout", "1h").returncode == 9


def test_not_found(caller: Caller, profile: str) -> None:
    for command in ("no-such-program", "/no/such/program", "./program"):
        done = caller.hexe("run", "--isolation", profile, "--", command, cwd="/")
        assert done.returncode == 127
        assert done.stderr.startswith(f"hexe: {command}: not found") and "\n  fix: " in done.stderr


def test_an_empty_word_is_not_found(caller: Caller, profile: str) -> None:
    assert caller.hexe("run", "--isolation", profile, "--", "").returncode == 127


def test_not_executable(caller: Caller, profile: str) -> None:
    for command in ("/etc/passwd", "/etc", "/usr/bin"):
        done = caller.hexe("run", "--isolation", profile, "--", command)
        assert done.returncode == 126, done
        assert done.stderr.startswith(f"hexe: {command}: cannot be executed") and "EACCES" in done.stderr


def bound(caller: Caller, profile: str) -> tuple[str, ...]:
    return () if profile in ("none", "minimal") else ("--ro-bind", str(caller.scratch))


def test_no_program_at_all(caller: Caller, profile: str) -> None:
    path = caller.write("text", "echo no first line\n", mode=0o755)
    done = caller.hexe("run", "--isolation", profile, *bound(caller, profile), "--", str(path))
    assert done.returncode == 126
    assert "ENOEXEC" in done.stderr and f"sh {path}" in done.stderr


def test_a_script_whose_interpreter_is_missing(caller: Caller, profile: str) -> None:
    path = caller.write("script", "#!/no/such/interpreter\n", mode=0o755)
    done = caller.hexe("run", "--isolation", profile, *bound(caller, profile), "--", str(path))
    assert done.returncode == 127
    assert "interpreter" in done.stderr


def test_a_script(caller: Caller, profile: str) -> None:
    path = caller.write("script", "#!/bin/sh\necho $0 $@; exit 4\n", mode=0o755)
    done = caller.hexe("run", "--isolation", profile, *bound(caller, profile), "--", str(path), "a", "b c")
    assert (done.returncode, done.stdout) == (4, f"{path} a b c\n")


def test_an_executable_later_in_the_path_is_found(caller: Caller) -> None:
    caller.write("first/tool", "not executable\n")
    caller.write("second/tool", "#!/bin/sh\necho second\n", mode=0o755)
    path = f"PATH={caller.scratch}/first:{caller.scratch}/second:/usr/bin:/bin"
    common = ["run", *bound(caller, "full"), "--env"]
    done = caller.hexe(*common, path, "--", "tool")
    assert (done.returncode, done.stdout) == (0, "second\n"), done
    done = caller.hexe(*common, f"PATH={caller.scratch}/first", "--", "tool")
    assert done.returncode == 126


def test_arguments_too_long_for_the_kernel(caller: Caller) -> None:
    done = caller.hexe("run", "--env", f"A={'x' * 100_000}", "--env", f"B={'y' * 100_000}", "--", "true")
    assert done.returncode == 0
    done = caller.sh('x=$(head -c 200000 /dev/zero | tr "\\0" x); exec /bin/true $x')
    assert done.returncode != 0, "the shell's own refusal"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--isolation", "sandbox"],
        ["run", "--"],
        ["run", "--isolation", "nonsense", "--", "true"],
        ["run", "--no-such-option", "--", "true"],
        ["run", "--cwd", "/no/such/directory", "--", "true"],
        ["run", "--bind", "/no/such/source", "--", "true"],
        ["nonsense"],
        ["profiles", "extra"],
        ["explain", "--isolation", "nonsense"],
    ],
)
def test_hexe_failed_before_the_start(caller: Caller, arguments: list[str]) -> None:
    done = caller.hexe(*arguments)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("hexe: ")
    assert "Traceback" not in done.stderr


def test_background_processes_do_not_hold_it_up(caller: Caller, profile: str) -> None:
    # With a pipe open in the background process too: hexe ends with the command, and ends what it left behind.
    script = "sleep 600 & echo started; exit 8"
    done = caller.sh(script, "--isolation", profile) if profile != "none" else None
    if done is None:
        done = caller.sh("sleep 600 >/dev/null 2>&1 & echo started; kill $!; exit 8", "--isolation", "none")
    assert (done.returncode, done.stdout) == (8, "started\n")
