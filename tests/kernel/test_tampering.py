"""What happens when the engine is broken: no failed step, lost process or skipped operation may start a weaker sandbox.

``tamper`` does the breaking, in real launches. The gate (attest) is what catches an
operation that was skipped without any error; what it can't see is listed here by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tamper
from hexe.sandbox.check import MOUNTS
from support import Caller

# /proc has no word about these once they are done. The first two only make an end tidier or hide init, whose memory
# holds nothing; a mount namespace of another user namespace propagates nothing outwards even where StopPropagation is
# left out; the rest have tests of their own that look from inside.
UNSEEN = {
    "DieWithParent",
    "AdoptOrphans",
    "HideFromPeers",
    "StopPropagation",
    "MakeSymlink",
    "SetHostname",
    "LoopbackUp",
    "JoinSessionKeyring",
    "ChangeDirectory",
    "RestrictFiles",
}
PROFILES = ("minimal", "default", "sandbox", "full")


def results(caller: Caller, how: str, *options: str) -> list[dict[str, Any]]:
    python = Path(caller.script).parent / "python3"
    source = Path(tamper.__file__).read_text()
    process = caller.start([str(python), "-c", source, how, *options])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out)
    assert found, f"{how} broke nothing"
    return found


def assert_all_refused(found: list[dict[str, Any]]) -> None:
    assert [result["what"] for result in found if result["ran"]] == []
    assert [result["what"] for result in found if result["status"] not in (125, 127)] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_the_command_runs_when_nothing_is_broken(caller: Caller, profile: str) -> None:
    (only,) = results(caller, "nothing", "--isolation", profile)
    assert (only["ran"], only["status"]) == (True, 0), only


@pytest.mark.parametrize("profile", PROFILES)
def test_every_step_that_fails_stops_the_launch(caller: Caller, profile: str) -> None:
    found = results(caller, "every_step", "--isolation", profile)
    assert_all_refused(found)
    for result in found:
        assert result["kind"] == "LaunchError", result
        assert result["what"].split()[2] in result["message"], f"the system call isn't named: {result}"
        assert "EBADF" in result["message"], result
        assert "\n  fix: " in result["message"], result


def test_every_step_of_a_bind_that_fails_stops_the_launch(caller: Caller) -> None:
    """Root's binds have steps in the parent: the clones of the trees."""
    found = results(caller, "every_step", "--bind", f"{caller.mkdir('bound')}:/data", "--cwd", "/data")
    assert_all_refused(found)
    if caller.is_root:
        assert any(result["what"].startswith("host ") for result in found)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_namespace_that_was_left_out_is_noticed(caller: Caller, profile: str) -> None:
    assert_all_refused(results(caller, "every_namespace", "--isolation", profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_an_operation_that_was_left_out_is_noticed(caller: Caller, profile: str) -> None:
    found = results(caller, "every_operation", "--isolation", profile)
    ran = {result["what"].split()[0] for result in found if result["ran"]}
    if not caller.is_root:
        ran.discard("SwitchIdentity")  # a user is mapped to itself: there is nothing to switch
    assert ran <= UNSEEN
    refused = {result["what"].split()[0] for result in found if not result["ran"]}
    assert {"DropCapabilities", "ForbidNewPrivileges"} <= refused
    if profile != "minimal":
        assert {"PivotRoot", "SealRoot", *(kind.__name__ for kind in MOUNTS)} <= refused
    if profile in ("sandbox", "full"):
        assert {"InstallSeccomp", "MaskPath", "ProtectPath"} <= refused


@pytest.mark.parametrize("profile", ["default", "full"])
def test_a_bind_that_came_out_writable_is_noticed(caller: Caller, profile: str) -> None:
    found = results(caller, "every_bind", "--isolation", profile)
    assert_all_refused(found)
    assert all("is mounted writable" in result["message"] for result in found)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_first_process_that_is_killed_is_no_command_that_was_killed(caller: Caller, profile: str) -> None:
    """Status 137 would say that the command ran, and died."""
    found = results(caller, "every_stage_killed", "--isolation", profile)
    assert_all_refused(found)
    assert all("before the command was started" in result["message"] for result in found)
