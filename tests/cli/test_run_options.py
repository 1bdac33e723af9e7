"""The options of hexe run: how they are written, what each one refuses, and what isn't tested elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import Caller

OWN_ROOT = ("default", "sandbox", "full")  # balanced is default: see test_profiles


# -- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--isolation=full"], ["--isolation", "full"]])
def test_both_ways_to_give_a_value(caller: Caller, arguments: list[str]) -> None:
    for dashes in (["--"], []):
        done = caller.hexe("run", *arguments, *dashes, "printenv", "HEXE_ISOLATION")
        assert (done.returncode, done.stdout) == (0, "full\n")


def test_options_behind_the_command_are_its_own(caller: Caller) -> None:
    for dashes in (["--"], []):
        words = ["echo", "--isolation", "none", "--help", "--", "-x", "--env", "A=1", ""]
        done = caller.hexe("run", *dashes, *words)
        assert (done.returncode, done.stdout) == (0, " ".join(words[1:]) + "\n")


def test_a_command_that_begins_with_a_dash(caller: Caller) -> None:
    done = caller.hexe("run", "--", "-x")
    assert done.returncode == 127
    assert caller.hexe("run", "-x").returncode == 125


def test_only_the_first_double_dash_is_hexes(caller: Caller) -> None:
    assert caller.hexe("run", "--", "--", "true").returncode == 127


def test_the_last_of_several_counts(caller: Caller) -> None:
    done = caller.hexe(
        "run",
        "--isolation",
        "none",
        "--isolation=full",
        "--hostname=a",
        "--hostname",
        "b",
        "--",
        "sh",
        "-c",
        "echo $HEXE_ISOLATION; uname -n",
    )
    assert done.stdout == "full\nb\n"


def test_an_equals_sign_in_a_value(caller: Caller) -> None:
    assert caller.hexe("run", "--env=A=b=c", "--", "printenv", "A").stdout == "b=c\n"
    assert caller.hexe("run", "--env", "A==", "--", "printenv", "A").stdout == "=\n"


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "suggested"),
    [
        ("--isolaton", "--isolation"),
        ("--bnd", "--bind"),
        ("--ro_bind", "--ro-bind"),
        ("--timout=3", "--timeout"),
        ("--pass-envs", "--pass-env"),
    ],
)
def test_did_you_mean(caller: Caller, option: str, suggested: str) -> None:
    done = caller.hexe("run", option, "x", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"unknown option {option.split('=')[0]}" in done.stderr
    assert suggested in done.stderr.split("\n")[0]


@pytest.mark.parametrize(
    ("profile", "suggested"), [("ful", "full"), ("sandbx", "sandbox"), ("Full", "full"), ("strict", ""), ("", "")]
)
def test_an_unknown_profile_is_never_replaced(caller: Caller, profile: str, suggested: str) -> None:
    done = caller.hexe("run", "--isolation", profile, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"unknown profile {profile!r}" in done.stderr
    if suggested:
        assert f"did you mean {suggested}" in done.stderr.replace("'", "")


BAD_VALUES = [
    *(("--timeout", value) for value in ("", "0", "-1", "x", "1 h", "1w", "1e3", "nan", "inf", "366d", "0.0001")),
    *(("--uid", value) for value in ("", "-1", "x", "4294967295", "1.5", "0x10")),
    *(("--gid", value) for value in ("", "-1", "nobody", "99999999999")),
    *(("--hostname", value) for value in ("", "-a", "a-", "a b", "a/b", "x" * 65, "ü")),
    *(("--env", value) for value in ("", "A", "=x")),
    *(("--pass-env", value) for value in ("", "A=b")),
    *(("--home", value) for value in ("", "no", "RW", "readonly")),
    *(("--bind", value) for value in ("", ":", ":/a", "/a:", "/a:/b:/c", "/tmp:relative", "/tmp:/", "/tmp:/proc/x")),
    *(("--ro-bind", value) for value in ("/usr:/dev", "/usr:/proc", "/usr:/dev/../dev/x", "/:/")),
    *(("--tmpfs", value) for value in ("", "relative", "/", "/proc", "/dev/shm", "/a/../..")),
    ("--cwd", ""),
]


@pytest.mark.parametrize(("option", "value"), BAD_VALUES)
def test_a_value_that_cannot_be_meant(user_caller: Caller, option: str, value: str) -> None:
    for arguments in ([option, value], [f"{option}={value}"]):
        done = user_caller.hexe("run", *arguments, "--", "echo", "started")
        assert (done.returncode, done.stdout) == (125, ""), done
        assert done.stderr.startswith("hexe: ") and option in done.stderr
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr


@pytest.mark.parametrize("option", ["--isolation", "--bind", "--env", "--timeout", "--report"])
def test_a_missing_value(caller: Caller, option: str) -> None:
    done = caller.hexe("run", option)
    assert done.returncode == 125
    assert f"{option} needs a value" in done.stderr


@pytest.mark.parametrize("option", ["--tty", "--no-tty", "--clear-env", "--verbose"])
def test_an_unwanted_value(caller: Caller, option: str) -> None:
    done = caller.hexe("run", f"{option}=yes", "--", "true")
    assert done.returncode == 125
    assert f"{option} takes no value" in done.stderr


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        ("none", ["--bind", "/usr"]),
        ("none", ["--ro-bind", "/usr"]),
        ("none", ["--tmpfs", "/x"]),
        ("none", ["--home", "ro"]),
        ("none", ["--home", "private"]),
        ("none", ["--uid", "root"]),
        ("none", ["--gid", "7"]),
        ("none", ["--hostname", "x"]),
        ("minimal", ["--bind", "/usr"]),
        ("minimal", ["--home", "private"]),
        ("minimal", ["--hostname", "x"]),
        ("default", ["--hostname", "x"]),
        ("balanced", ["--hostname", "x"]),
    ],
)
def test_an_option_without_meaning_in_a_profile_is_no_silent_nothing(
    caller: Caller, profile: str, options: list[str]
) -> None:
    done = caller.hexe("run", "--isolation", profile, *options, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert options[0] in done.stderr and profile in done.stderr


def test_a_bind_of_what_is_not_there(caller: Caller) -> None:
    here = caller.mkdir("exists")
    for option in ("--bind", "--ro-bind"):
        done = caller.hexe("run", option, f"{here}/not/there", "--", "echo", "started")
        assert (done.returncode, done.stdout) == (125, "")
        assert f"{option} {here}/not/there: ENOENT" in done.stderr
        assert f"nearest existing parent is {here};" in done.stderr


def test_every_broken_promise_is_told_not_the_first(caller: Caller) -> None:
    done = caller.hexe("run", "--bind", "/no/one", "--ro-bind", "/no/two", "--", "true")
    assert "/no/one" in done.stderr and "/no/two" in done.stderr


def test_a_bind_that_the_caller_may_not_see(user_caller: Caller) -> None:
    done = user_caller.hexe("run", "--bind", "/root/secret:/data", "--", "echo", "started")
    if os.access("/root", os.X_OK) and os.geteuid() != 0:
        pytest.skip("/root is open to everyone on this machine")
    assert (done.returncode, done.stdout) == (125, "")
    assert "EACCES" in done.stderr


# -- --cwd -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_it_starts_where_the_caller_is_if_that_is_visible(caller: Caller, profile: str) -> None:
    def pwd(*options: str, cwd: str | Path) -> str:
        done = caller.hexe("run", "--isolation", profile, *options, "--", "/bin/pwd", cwd=cwd)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.rstrip("\n")

    here = caller.mkdir("work/deep")
    assert pwd(cwd="/usr/share") == "/usr/share"
    assert pwd(cwd="/var") == caller.home_inside, "it isn't visible: home instead"
    assert pwd(cwd=here) == caller.home_inside
    assert pwd("--bind", f"{caller.scratch}/work", cwd=here) == str(here)
    assert pwd("--bind", f"{caller.scratch}/work:/data", cwd=here) == "/data/deep"
    assert pwd("--ro-bind", f"{here}:/data", cwd=here) == "/data"


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_cwd(caller: Caller, profile: str) -> None:
    assert caller.inside("pwd", "--isolation", profile, "--cwd", "/usr/bin") == "/usr/bin\n"
    assert caller.inside("pwd", "--isolation", profile, "--cwd", "~") == f"{caller.home_inside}\n"
    assert caller.inside("pwd", "--isolation", profile, "--tmpfs", "/work", "--cwd", "/work") == "/work\n"
    done = caller.hexe("run", "--isolation", profile, "--cwd", "bin", "--", "/bin/pwd", cwd="/usr")
    assert done.stdout == "/usr/bin\n"


@pytest.mark.parametrize("profile", OWN_ROOT)
@pytest.mark.parametrize("directory", ["/var", "/root", "/etc/passwd", "/no/such/directory"])
def test_a_cwd_that_is_not_there(caller: Caller, profile: str, directory: str) -> None:
    done = caller.hexe("run", "--isolation", profile, "--cwd", directory, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert directory in done.stderr and "fix:" in done.stderr
    assert "ENOENT" in done.stderr or "ENOTDIR" in done.stderr


@pytest.mark.parametrize("profile", ["none", "minimal"])
def test_cwd_in_the_hosts_filesystem(caller: Caller, profile: str) -> None:
    assert caller.inside("pwd", "--isolation", profile, "--cwd", str(caller.scratch)) == f"{caller.scratch}\n"
    done = caller.hexe("run", "--isolation", profile, "--cwd", "/no/such", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")


def test_a_deleted_working_directory(caller: Caller) -> None:
    gone = caller.mkdir("gone")
    process = caller.popen(
        "run", "--isolation", "full", "--", "pwd", cwd=gone, wrapper=["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"]
    )
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, f"{caller.home_inside}\n".encode(), b"")


# -- --help, --verbose -----------------------------------------------------------------------------------------------


def test_help_has_every_option(caller: Caller) -> None:
    for arguments in (["run", "--help"], ["run", "-h"], ["run", "--isolation", "full", "--help"]):
        done = caller.hexe(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        for option in (
            "isolation",
            "bind",
            "ro-bind",
            "tmpfs",
            "env",
            "pass-env",
            "clear-env",
            "cwd",
            "home",
            "hostname",
            "uid",
            "gid",
            "timeout",
            "tty",
            "no-tty",
            "report",
            "verbose",
        ):
            assert f"--{option}" in done.stdout


def test_verbose(caller: Caller) -> None:
    done = caller.hexe("run", "--verbose", "--isolation", "full", "--", "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    assert "full" in done.stderr
    assert all(line.startswith(("hexe: ", "  ")) for line in done.stderr.splitlines())


def test_without_verbose_nothing_is_said(caller: Caller) -> None:
    for profile in ("none", "minimal", *OWN_ROOT):
        done = caller.hexe("run", "--isolation", profile, "--", "true")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), profile
