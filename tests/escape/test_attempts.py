"""Every attempt of the table, refused in each profile that promises it, and successful without the protection."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from escape_table import DOCUMENT, TITLES, document_with_table
from kit import capability_line
from shooting_range import ATTEMPTS, LANDLOCK, Range

pytest_plugins = ("range_fixture",)
WHO = ("root", "user")
REFUSALS = [(name, profile) for name, attempt in ATTEMPTS.items() for profile in attempt.refusal]
CONTROLS = [(name, index) for name, attempt in ATTEMPTS.items() for index in range(len(attempt.controls))]


def missing(need: str) -> str:
    """Why a control can't be run on this machine; empty when it can."""
    kind, _, path = need.partition(" ")
    if kind == "root":
        return "" if os.geteuid() == 0 else "only root can prepare it"
    if need == "no yama":
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if scope.exists() and scope.read_text().strip() != "0":
            return f"{scope} is {scope.read_text().strip()}: the kernel refuses it without Hexe too"
        return ""
    if kind == "file":
        return "" if os.path.lexists(path) else f"this kernel has no {path}"
    if kind == "zero":
        found = Path(path).read_text().strip() if Path(path).exists() else "0"
        return "" if found == "0" else f"{path} is {found}: the kernel refuses it without Hexe too"
    if kind == "disk":
        return refused_disk()
    if kind == "capability":
        number, name = path.split()
        return "" if capability_line("CapEff") >> int(number) & 1 else f"root has no {name} on this machine"
    if kind == "route":
        routes = Path("/proc/net/route").read_text().splitlines()[1:]
        return "" if any(line.split()[1] == "00000000" for line in routes) else "this machine has no default route"
    assert not need, f"unknown need {need!r}"
    return ""


def refused_disk() -> str:
    """Why not even root can read a disk here; empty when it can."""
    disks = [f"/dev/{entry.name}" for entry in Path("/sys/block").glob("[svn][dv]*")]
    if not disks:
        return "this machine has no disk"
    try:
        os.close(os.open(disks[0], os.O_RDONLY))
    except OSError as error:
        return f"{disks[0]} is refused to root as well ({error.strerror}): a device cgroup?"
    return ""


def skip_on_other_machines(name: str) -> None:
    machine = ATTEMPTS[name].machine
    if machine not in ("", os.uname().machine):
        pytest.skip(f"only {machine} has it")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("name", "profile"), REFUSALS, ids=[f"{profile}-{name}" for name, profile in REFUSALS])
def test_is_refused(range_of: Callable[[str], Range], who: str, name: str, profile: str) -> None:
    """The attempt is made inside, and comes to exactly what the table says."""
    skip_on_other_machines(name)
    if os.geteuid() != 0 and any(control.needs == "root" for control in ATTEMPTS[name].controls):
        pytest.skip("only root can prepare what this attempt aims at")
    if (name, profile) == ("abstract_socket", "sandbox") and LANDLOCK < 6:
        pytest.skip("this kernel's Landlock has no scopes (ABI 6), and sandbox shares the host's network")
    verdict = range_of(who).verdict(profile, name)
    expected = ATTEMPTS[name].refusal[profile]
    assert re.fullmatch(f"REFUSED ({expected})", verdict), f"{name} in {profile} as {who}: {verdict}"


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(
    ("name", "index"), CONTROLS, ids=[f"{name}-{ATTEMPTS[name].controls[index].setting}" for name, index in CONTROLS]
)
def test_would_succeed(range_of: Callable[[str], Range], who: str, name: str, index: int) -> None:
    """Without the protection the same attempt comes to something else: the test above can fail."""
    skip_on_other_machines(name)
    control = ATTEMPTS[name].controls[index]
    reason = missing(control.needs)
    if control.setting == "host-root" and os.geteuid() != 0:
        reason = "only root can run it without the protection"
    if reason:
        pytest.skip(f"no control: {reason}")
    verdict = range_of(who).verdict(control.setting, name)
    assert re.fullmatch(f"({control.verdict})( .*)?", verdict, re.DOTALL), (
        f"{name}, {control.setting}, {who}: {verdict}"
    )


def test_the_table_is_large_and_every_line_has_a_control() -> None:
    """At least 40 attempts, each with a control whose verdict is none of those that count as a refusal."""
    assert len(ATTEMPTS) >= 40
    for attempt in ATTEMPTS.values():
        assert attempt.area in TITLES
        assert attempt.controls, f"{attempt.name} has no control"
        for control in attempt.controls:
            for answer in control.verdict.replace("(", "").replace(")", "").split("|"):
                for refusal in attempt.refusal.values():
                    assert answer.removeprefix("REFUSED ") not in refusal.split("|"), f"{attempt.name}: {answer}"


def test_the_document_shows_this_table() -> None:
    """docs/escape-suite.md is up to date: python tests/escape/escape_table.py writes it."""
    text = DOCUMENT.read_text()
    assert document_with_table(text) == text
