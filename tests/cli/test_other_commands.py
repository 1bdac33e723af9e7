"""hexe, hexe profiles and hexe explain: what they print, and that they start nothing."""

from __future__ import annotations

import json

import pytest

from support import Caller

PROFILES = ("none", "minimal", "default", "balanced", "sandbox", "full")


def test_overview(caller: Caller) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        done = caller.hexe(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        for command in ("run", "profiles", "explain", "doctor"):
            assert command in done.stdout


def test_version(caller: Caller) -> None:
    from hexe import __version__

    assert caller.hexe("--version").stdout == f"hexe {__version__}\n"


def test_did_you_mean_a_command(caller: Caller) -> None:
    done = caller.hexe("profile")
    assert (done.returncode, done.stdout) == (125, "")
    assert "did you mean" in done.stderr and "profiles" in done.stderr
    assert "did you mean '--version'" in caller.hexe("--verison").stderr


def test_the_table_of_profiles(caller: Caller) -> None:
    done = caller.hexe("profiles")
    assert (done.returncode, done.stderr) == (0, "")
    header = done.stdout.split("\n")[1]
    assert [name for name in header.replace("│", " ").replace("┃", " ").split() if name] == list(PROFILES)
    for feature in ("user namespace", "pid namespace", "seccomp", "Landlock", "no_new_privs", "environment"):
        assert feature in done.stdout
    assert "…" not in done.stdout, "nothing is cut off"


def test_profiles_as_json(caller: Caller) -> None:
    done = caller.hexe("profiles", "--json")
    profiles = json.loads(done.stdout)
    assert list(profiles) == list(PROFILES)
    assert {name for name in PROFILES if profiles[name]["seccomp"]} == {"sandbox", "full"}
    assert {name for name in PROFILES if profiles[name]["network"] == "none"} == {"full"}
    assert {name for name in PROFILES if not profiles[name]["drop_privileges"]} == {"none"}
    assert {name for name in PROFILES if "/opt" in profiles[name]["read_only"]} == {"default", "balanced", "sandbox"}
    assert profiles["default"] == {
        **profiles["balanced"],
        "profile": "default",
        "summary": profiles["default"]["summary"],
    }


def test_help_of_each_command(caller: Caller) -> None:
    for command in ("run", "profiles", "explain", "doctor"):
        done = caller.hexe(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"usage: hexe {command} ")
        assert caller.hexe(command, "-h").stdout == done.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_explain_starts_nothing(caller: Caller, profile: str) -> None:
    path = caller.scratch / "made"
    done = caller.hexe("explain", "--isolation", profile, "--", "touch", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert not path.exists()
    assert f"touch {path}" in done.stdout


def test_explain_tells_what_and_why(caller: Caller) -> None:
    caller.write("file")
    options = ["--isolation", "full", "--bind", f"{caller.scratch}:/data", "--tmpfs", "/work", "--hostname", "x"]
    text = caller.hexe("explain", *options, "--", "true").stdout
    for words in (
        f"bind {caller.scratch} at /data",
        "/work",
        "hostname",
        "profile full",
        "seccomp",
        "Landlock",
        "/tmp",
    ):
        assert words in text, words
    assert text.index("/data") < text.index("execute true")


def test_explain_without_a_command(caller: Caller) -> None:
    assert caller.hexe("explain", "--isolation", "full").returncode == 0


def test_explain_syscalls(caller: Caller) -> None:
    text = caller.hexe("explain", "--isolation", "full", "--syscalls", "--", "true").stdout
    for call in ("clone3", "mount_setattr", "pivot_root", "openat2", "move_mount", "seccomp", "landlock_restrict_self"):
        assert call in text, call


@pytest.mark.parametrize("profile", PROFILES)
def test_explain_as_json(caller: Caller, profile: str) -> None:
    done = caller.hexe("explain", "--json", "--isolation", profile, "--", "echo", "a b")
    plan = json.loads(done.stdout)
    assert "a b" in json.dumps(plan)
    assert profile in json.dumps(plan)
    longer = json.loads(caller.hexe("explain", "--json", "--syscalls", "--isolation", profile, "--", "true").stdout)
    assert len(json.dumps(longer)) > len(json.dumps(plan)) or profile == "none"


def test_explain_fails_as_run_does(caller: Caller) -> None:
    for options in (
        ["--isolation", "ful"],
        ["--bind", "/no/such"],
        ["--timeout=x"],
        ["--isolation=none", "--uid=7"],
    ):
        run, explain = caller.hexe("run", *options, "--", "true"), caller.hexe("explain", *options, "--", "true")
        assert (explain.returncode, explain.stdout, explain.stderr) == (125, "", run.stderr)


def test_output_that_nobody_reads(caller: Caller) -> None:
    for command in (["--help"], ["profiles"], ["explain", "--json"]):
        process = caller.start(["/bin/sh", "-c", '"$@" | true', "sh", caller.script, *command])
        out, err = process.communicate(timeout=20)
        assert b"Traceback" not in err and b"Exception" not in err, err
        assert out == b""


def test_closed_standard_output(caller: Caller) -> None:
    for command in (["--help"], ["profiles"], ["explain"], ["--version"]):
        process = caller.start(["/bin/sh", "-c", '"$@" >&-', "sh", caller.script, *command])
        out, err = process.communicate(timeout=20)
        assert b"Traceback" not in err and out == b"", err
