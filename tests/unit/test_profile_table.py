"""The profile table of the documentation, row by row, against the policies."""

from __future__ import annotations

import json

import pytest

from hexe.cli import profiles as command
from hexe.errors import UsageError
from hexe.policy.profiles import PROFILES, SUMMARIES, find_profile

COLUMNS = ("none", "minimal", "default", "balanced", "sandbox", "full")
TABLE = """
user_namespace     |     | yes     | yes     | yes     | yes        | yes
pid_namespace      |     |         | yes     | yes     | yes        | yes
mount_namespace    |     |         | yes     | yes     | yes        | yes
uts_namespace      |     |         |         |         | yes        | yes
ipc_namespace      |     |         |         |         | yes        | yes
cgroup_namespace   |     |         |         |         | yes        | yes
network is none    |     |         |         |         |            | yes
drop_privileges    |     | yes     | yes     | yes     | yes        | yes
seccomp            |     |         |         |         | sandbox    | full
landlock           |     |         |         |         | yes        | yes
mask_proc          |     |         |         |         | yes        | yes
hostname           |     |         |         |         | hexe       | hexe
identity           | caller | nobody | caller | caller | caller    | caller
environment        | inherit | inherit | inherit | inherit | allow-list | allow-list
home               | rw  | rw      | rw      | rw      | rw         | rw
system read-only   |     |         | yes     | yes     | yes        | yes
software read-only |     |         | yes     | yes     | yes        |
"""
SYSTEM = {"/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/etc"}
SOFTWARE = {"/nix", "/pkg", "/opt", "/run/current-system"}


def cells() -> list[tuple[str, str, str]]:
    found = []
    for line in TABLE.strip().splitlines():
        row, *columns = (cell.strip() for cell in line.split("|"))
        found += [(profile, row, cell) for profile, cell in zip(COLUMNS, columns, strict=True)]
    return found


@pytest.mark.parametrize(("profile", "row", "cell"), cells())
def test_the_table(profile: str, row: str, cell: str) -> None:
    policy = PROFILES[profile]
    if row == "network is none":
        value: object = policy.network == "none"
        assert policy.network in ("none", "host")
    elif row == "system read-only":
        value = set(policy.read_only) >= SYSTEM
        assert value or not set(policy.read_only) & SYSTEM
    elif row == "software read-only":
        value = set(policy.read_only) >= SOFTWARE
        assert value or not set(policy.read_only) & SOFTWARE
    else:
        value = getattr(policy, row)
    assert value == {"yes": True, "": type(value)()}.get(cell, cell)


def test_there_are_these_and_no_others() -> None:
    assert tuple(PROFILES) == COLUMNS == tuple(SUMMARIES)
    for name, policy in PROFILES.items():
        assert policy.profile == name
        assert set(policy.read_only) <= SYSTEM | SOFTWARE
        assert not policy.mounts and not policy.set_env and not policy.cwd and not policy.timeout
    assert PROFILES["default"].replace(profile="balanced") == PROFILES["balanced"]


@pytest.mark.parametrize("name", ["", "Full", "strict", "sandbox ", "none\n"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown profile"):
        find_profile(name)


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert tuple(data) == COLUMNS
    for name in COLUMNS:
        assert data[name]["seccomp"] == PROFILES[name].seccomp
        assert data[name]["summary"] == SUMMARIES[name]
    assert command.main([]) == 0
    table = capsys.readouterr().out
    for row in command.features(PROFILES["full"]):
        assert row in table
