"""Which variables the command gets, and that it gets no descriptor but its three streams."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support import SYSTEM_PATH, Caller, children_of, read_line, wait_until

OWN_ROOT = ("default", "balanced", "sandbox", "full")
ALLOWED = {
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "LC_TIME": "POSIX",
    "TZ": "Asia/Kathmandu",
    "SHELL": "/bin/sh",
    "EDITOR": "ed",
    "PAGER": "cat",
    "NO_COLOR": "1",
}
REFUSED = {
    "SSH_AUTH_SOCK": "/run/user/1/agent",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus",
    "LD_PRELOAD": "",
    "PYTHONPATH": "/nowhere",
    "XDG_RUNTIME_DIR": "/nonexistent",
    "OLDPWD": "/var",
    "LCX": "no locale",
    "TERMCAP": "no",
}


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.split("\0") if line)


def environment_inside(caller: Caller, *options: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """What execve gave the command; env prints it as it is, where a shell would add its own."""
    done = caller.hexe("run", *options, "--", "/usr/bin/env", "-0", env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    return variables(done.stdout)


@pytest.mark.parametrize("profile", ["sandbox", "full"])
def test_the_allow_list(caller: Caller, profile: str) -> None:
    assert environment_inside(caller, "--isolation", profile, env={**ALLOWED, **REFUSED}) == {
        **ALLOWED,
        "PATH": SYSTEM_PATH,
        "HOME": caller.home_inside,
        "USER": caller.user,
        "LOGNAME": caller.user,
        "HEXE_ISOLATION": profile,
    }


@pytest.mark.parametrize("profile", ["default", "balanced"])
def test_the_callers_environment(caller: Caller, profile: str) -> None:
    given = {"SOME_TOKEN": "x", "EMPTY": "", "ODD-NAME": "a=b\nc", "ÜNÏ": "→"}
    assert environment_inside(caller, "--isolation", profile, env=given) == {
        **caller.environment,
        **given,
        "HOME": caller.home_inside,
        "HEXE_ISOLATION": profile,
    }


@pytest.mark.parametrize("profile", ["none", "minimal"])
def test_the_callers_environment_with_the_hosts_filesystem(caller: Caller, profile: str) -> None:
    given = {"SOME_TOKEN": "x", "PWD": caller.home}
    assert environment_inside(caller, "--isolation", profile, env=given) == {
        **caller.environment,
        **given,
        "HEXE_ISOLATION": profile,
    }


@pytest.mark.parametrize("profile", ["sandbox", "default"])
def test_added_variables(caller: Caller, profile: str) -> None:
    options = [
        "--isolation",
        profile,
        "--env",
        "A=1",
        "--env=B=x=y",
        "--env",
        "C=",
        "--pass-env",
        "TOKEN",
        "--pass-env",
        "MISSING",
        "--env",
        "HOME=/elsewhere",
    ]
    found = environment_inside(caller, *options, env={"TOKEN": "passed"})
    wanted = {"A": "1", "B": "x=y", "C": "", "TOKEN": "passed", "HOME": "/elsewhere"}
    assert {name: found[name] for name in wanted} == wanted
    assert "MISSING" not in found


def test_the_later_of_two_wins(caller: Caller) -> None:
    env = {"TOKEN": "callers"}
    assert environment_inside(caller, "--env", "A=1", "--env", "A=2")["A"] == "2"
    assert environment_inside(caller, "--env", "TOKEN=mine", "--pass-env", "TOKEN", env=env)["TOKEN"] == "callers"
    assert environment_inside(caller, "--pass-env", "TOKEN", "--env", "TOKEN=mine", env=env)["TOKEN"] == "mine"


@pytest.mark.parametrize("profile", ["none", "minimal", *OWN_ROOT])
def test_a_clear_environment(caller: Caller, profile: str) -> None:
    options = ["--isolation", profile, "--clear-env"]
    assert environment_inside(caller, *options) == {"HEXE_ISOLATION": profile}
    found = environment_inside(caller, "--env", "A=1", "--pass-env", "TZ", *options, env={"TZ": "UTC"})
    assert found == {"A": "1", "TZ": "UTC", "HEXE_ISOLATION": profile}


def test_a_program_is_found_without_a_path(caller: Caller) -> None:
    done = caller.hexe("run", "--clear-env", "--", "ls", "-d", "/usr")
    assert (done.returncode, done.stdout) == (0, "/usr\n")


def test_the_path_inside_decides_where_the_command_is(caller: Caller) -> None:
    caller.write("bin/tool", "#!/bin/sh\necho from the bind\n", mode=0o755)
    done = caller.hexe("run", "--ro-bind", f"{caller.scratch}/bin:/bin2", "--env", "PATH=/bin2:/usr/bin", "--", "tool")
    assert (done.returncode, done.stdout) == (0, "from the bind\n"), done
    done = caller.hexe("run", "--", "tool", env={"PATH": f"{caller.scratch}/bin:/usr/bin"})
    assert done.returncode == 127, "what the caller's PATH has isn't visible inside"


def test_the_profile_cannot_be_lied_about(caller: Caller) -> None:
    found = environment_inside(caller, "--env", "HEXE_ISOLATION=none", env={"HEXE_ISOLATION": "none"})
    assert found["HEXE_ISOLATION"] == "sandbox"


def test_no_secret_anywhere_in_the_processes(caller: Caller) -> None:
    script = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c hunter2; :"
    for profile in ("sandbox", "full"):
        assert caller.inside(script.replace("hunter2", "hunter[2]"), "--isolation", profile, env=REFUSED) == "0\n"


def test_bytes_that_are_no_text_pass(caller: Caller) -> None:
    done = caller.hexe("run", "--isolation", "none", "--env", "A=\udcff\udcfe", "--", "/usr/bin/env", "-0")
    assert variables(done.stdout)["A"] == "\udcff\udcfe"


# -- descriptors -----------------------------------------------------------------------------------------------------

LIST_DESCRIPTORS = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"


@pytest.mark.parametrize("profile", ["minimal", *OWN_ROOT])
def test_leaked_descriptors_stay_outside(caller: Caller, profile: str) -> None:
    directory = os.open("/", os.O_RDONLY)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    ours, theirs = socket.socketpair()
    try:
        leaked = [directory, namespace, theirs.fileno()]
        done = caller.hexe(
            "run", "--isolation", profile, "--", "/usr/bin/python3", "-I", "-c", LIST_DESCRIPTORS, pass_fds=leaked
        )
    finally:
        for fd in (directory, namespace):
            os.close(fd)
        ours.close()
        theirs.close()
    # 3 is the listing itself.
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2, 3]\n", "")


def test_neither_does_init_keep_them(caller: Caller) -> None:
    directory = os.open("/var", os.O_RDONLY)
    try:
        process = caller.popen("run", "--", "sh", "-c", "echo ready; exec sleep 60", pass_fds=[directory])
    finally:
        os.close(directory)
    assert read_line(process.stdout) == "ready"
    if os.geteuid() == 0:  # init is not dumpable: only root may look
        init = Path(f"/proc/{children_of(process.pid)[0]}")
        # Its own three streams go to the command first, and are replaced right after.
        wait_until(
            lambda: {str((init / f"fd/{fd}").readlink()) for fd in range(3)} == {"/dev/null"}, what="init lets go"
        )
        mounts = {line.split()[0] for line in (init / "mountinfo").read_text().splitlines()}
        for entry in (init / "fd").iterdir():
            if str(entry.readlink()).startswith("/"):  # a socket or a signalfd is no way to a file
                details = dict(line.split(":", 1) for line in (init / "fdinfo" / entry.name).read_text().splitlines())
                assert details["mnt_id"].strip() in mounts, f"{entry.readlink()} lies outside"
    else:
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/{children_of(process.pid)[0]}/fd")
