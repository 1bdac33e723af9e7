"""--report: every field, and that its evidence is what the kernel says to anyone else who looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import NAMESPACES, Caller, namespaces_of, status_of

PROFILES = ("none", "minimal", "default", "balanced", "sandbox", "full")
BURN = "x = sum(range(3_000_000)); b = bytearray(80 << 20); b[:] = b'x' * len(b)"


def report_of(caller: Caller, *options: str, command: tuple[str, ...] = ("true",)) -> dict[str, Any]:
    path = caller.scratch / "report.json"
    caller.hexe("run", "--report", str(path), *options, "--", *command)
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.mark.parametrize("profile", PROFILES)
def test_fields(caller: Caller, profile: str) -> None:
    report = report_of(caller, "--isolation", profile, command=("sh", "-c", "exit 3"))
    assert set(report) == {
        "started",
        "command",
        "profile",
        "exit_code",
        "signal",
        "status",
        "timed_out",
        "wall_seconds",
        "user_seconds",
        "system_seconds",
        "peak_memory_bytes",
        "namespaces",
        "protections",
        "notes",
    }
    assert report["started"] is True
    assert report["command"] == ["sh", "-c", "exit 3"]
    assert report["profile"] == profile
    assert (report["exit_code"], report["signal"], report["status"]) == (3, None, 3)
    assert report["timed_out"] is False
    assert set(report["namespaces"]) == set(NAMESPACES)
    assert all(isinstance(number, int) and number > 0 for number in report["namespaces"].values())
    assert report["protections"]["attested"] is True


@pytest.mark.parametrize("profile", PROFILES)
def test_evidence_is_what_anyone_sees(caller: Caller, profile: str) -> None:
    path = caller.scratch / "report.json"
    run = caller.running("--isolation", profile, "--report", str(path))
    status, namespaces = status_of(run.command), namespaces_of(run.command)
    mounts = [line.split() for line in Path(f"/proc/{run.command}/mountinfo").read_text().splitlines()]
    assert run.finish() == 0
    report = json.loads(path.read_text())
    protections = report["protections"]
    assert {kind: f"{kind}:[{number}]" for kind, number in report["namespaces"].items()} == namespaces
    assert protections["no_new_privs"]["NoNewPrivs"] == status["NoNewPrivs"]
    assert protections["seccomp"]["Seccomp"] == status["Seccomp"]
    assert protections["seccomp"]["Seccomp_filters"] == status["Seccomp_filters"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert protections["capabilities"][name] == status[name]
    for name in ("Uid", "Gid", "Groups", "NSpid"):
        assert protections["identity"][name].split() == status[name].split()
    if profile in ("none", "minimal"):
        assert protections["root"] == {"asked": False, "mounts": None}
    else:
        assert [each["at"] for each in protections["root"]["mounts"]] == [fields[4] for fields in mounts]
        assert [each["read_only"] for each in protections["root"]["mounts"]] == [
            "ro" in fields[5].split(",") for fields in mounts
        ]
    assert protections["landlock"]["asked"] == (profile in ("sandbox", "full"))
    assert protections["landlock"]["active"] <= protections["landlock"]["asked"]
    assert protections["seccomp"]["asked"] == (profile if profile in ("sandbox", "full") else False)


@pytest.mark.parametrize("profile", PROFILES)
def test_numbers_are_plausible(caller: Caller, profile: str) -> None:
    report = report_of(caller, "--isolation", profile, command=("/usr/bin/python3", "-I", "-c", BURN))
    assert report["status"] == 0
    assert 0.01 < report["user_seconds"] < 30
    assert 0 <= report["system_seconds"] < 30
    assert 0.01 < report["wall_seconds"] < 30
    assert report["user_seconds"] + report["system_seconds"] < report["wall_seconds"] * 2 + 1
    assert 80 << 20 < report["peak_memory_bytes"] < 2 << 30


def test_children_are_counted(caller: Caller) -> None:
    command = ("sh", "-c", f'/usr/bin/python3 -I -c "{BURN}"; true')
    report = report_of(caller, command=command)
    assert report["user_seconds"] > 0.01
    assert report["peak_memory_bytes"] > 80 << 20


@pytest.mark.parametrize("profile", PROFILES)
def test_death_by_signal(caller: Caller, profile: str) -> None:
    report = report_of(caller, "--isolation", profile, command=("sh", "-c", "kill -USR1 $$"))
    assert (report["exit_code"], report["signal"], report["status"]) == (None, 10, 138)


@pytest.mark.parametrize("profile", PROFILES)
def test_timeout(caller: Caller, profile: str) -> None:
    report = report_of(caller, "--isolation", profile, "--timeout", "200ms", command=("sleep", "60"))
    assert (report["started"], report["timed_out"], report["status"]) == (True, True, 124)
    assert 0.2 <= report["wall_seconds"] < 30


def test_to_standard_error(caller: Caller) -> None:
    done = caller.hexe("run", "--report", "-", "--", "echo", "out")
    assert done.stdout == "out\n"
    assert json.loads(done.stderr)["status"] == 0


def test_the_command_gets_no_way_to_it(caller: Caller) -> None:
    path = caller.scratch / "report.json"
    script = "ls /proc/self/fd | wc -l"
    done = caller.hexe("run", "--report", str(path), "--bind", str(caller.scratch), "--", "sh", "-c", script)
    assert done.stdout == "4\n"
    # Rewritten whole at the end, whatever the command left at its path.
    script = f"echo forged >{path}; exit 5"
    done = caller.hexe("run", "--report", str(path), "--bind", str(caller.scratch), "--", "sh", "-c", script)
    assert done.returncode == 5


def test_a_link_in_its_place_is_not_followed(caller: Caller) -> None:
    victim = caller.write("victim", "kept\n")
    (caller.scratch / "report.json").symlink_to(victim)
    done = caller.hexe("run", "--report", str(caller.scratch / "report.json"), "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert "--report" in done.stderr and "ELOOP" in done.stderr
    assert victim.read_text() == "kept\n"


def test_a_report_that_cannot_be_written_is_said_before_the_start(caller: Caller) -> None:
    done = caller.hexe("run", "--report", "/nonexistent/report", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert "--report /nonexistent/report" in done.stderr and "ENOENT" in done.stderr and "fix:" in done.stderr


def test_a_full_disk_is_said_after_the_end(caller: Caller) -> None:
    done = caller.hexe("run", "--report", "/dev/full", "--", "sh", "-c", "echo started; exit 6")
    assert (done.returncode, done.stdout) == (6, "started\n")
    assert "ENOSPC" in done.stderr


@pytest.mark.parametrize(
    ("command", "status"), [("/nonexistent/program", 127), ("no-such-program", 127), ("/etc/passwd", 126)]
)
def test_failure(caller: Caller, command: str, status: int) -> None:
    report = report_of(caller, command=(command, "argument"))
    assert report["started"] is False
    assert report["command"] == [command, "argument"]
    assert (report["profile"], report["status"]) == ("sandbox", status)
    assert command in report["error"]
    assert report["hint"]


def test_failure_of_a_step_names_the_call(caller: Caller) -> None:
    options = ("--ro-bind", f"{caller.mkdir('outer')}:/data", "--tmpfs", "/data/missing")
    report = report_of(caller, *options)
    assert report["started"] is False
    assert report["status"] == 125
    assert report["syscall"] == "mkdirat"
    assert report["path"] == "/data/missing"
    assert report["errno_name"] == "EROFS"
    assert report["step"]
