"""compare on made-up evidence: what agrees with the plan passes, and every kind of difference is found."""

from __future__ import annotations

import os

import pytest
from factories import STAND_IN, plan_of, root_facts, user_facts

from hexe.policy.host import HostFacts
from hexe.policy.profiles import PROFILES
from hexe.sandbox.attest import Evidence, compare, read_evidence, read_namespaces, unescape
from hexe.sandbox.mount_operations import BindMount, MaskPath, MountTmpfs, ProtectPath
from hexe.sandbox.plan import Plan

OWN = {kind: f"{kind}:[1]" for kind in ("user", "pid", "mnt", "uts", "ipc", "net", "cgroup")}
EMPTY = "0000000000000000"
FULL = "000001ffffffffff"


def agreeing(plan: Plan) -> Evidence:
    """What /proc says of a process that is as the plan says."""
    policy = plan.policy
    uid, gid = (plan.maps[0].host_uid, plan.maps[0].host_gid) if plan.maps else (1000, 1000)
    status = {
        "Uid": " ".join([str(uid)] * 4),
        "Gid": " ".join([str(gid)] * 4),
        "Groups": "" if uid == STAND_IN else "4 27",
        "NSpid": "812 2" if policy.pid_namespace else "812",
        "NoNewPrivs": "1" if policy.drop_privileges else "0",
        "Seccomp": "2" if policy.seccomp else "0",
    }
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        status[name] = EMPTY if policy.drop_privileges or name != "CapBnd" else FULL
    namespaces = {kind: f"{kind}:[2]" if kind in plan.namespaces.kinds else text for kind, text in OWN.items()}
    mounts: list[tuple[str, bool]] = [("/", False)]
    if policy.mount_namespace:
        mounts = [("/", True), ("/proc", False), ("/dev", True), ("/dev/null", False), ("/dev/pts", False)]
        for each in plan.outer:
            if isinstance(each, (BindMount, MountTmpfs)):
                mounts.append((each.target, not each.writable))
            elif isinstance(each, ProtectPath):
                mounts.append((each.path, True))
            elif isinstance(each, MaskPath):
                mounts.append((each.path, each.is_directory))
    return Evidence(status, namespaces, tuple(mounts), "0::/\n")


@pytest.mark.parametrize("facts", [user_facts(), root_facts()], ids=["user", "root"])
@pytest.mark.parametrize("profile", PROFILES)
def test_what_agrees_passes(profile: str, facts: HostFacts) -> None:
    plan = plan_of(facts, "--isolation", profile)
    assert compare(plan, facts, agreeing(plan), OWN) == ()


USER, ROOT = user_facts(), root_facts()
PLAN = plan_of(USER, "--isolation", "full", "--ro-bind", "/srv/a", "--bind", "/srv/b")
EVIDENCE = agreeing(PLAN)


def differences(plan: Plan, facts: HostFacts, evidence: Evidence) -> str:
    return "; ".join(compare(plan, facts, evidence, OWN))


def with_status(**lines: str | None) -> Evidence:
    status = {name: value for name, value in {**EVIDENCE.status, **lines}.items() if value is not None}
    return EVIDENCE.replace(status=status)


@pytest.mark.parametrize("kind", OWN)
def test_a_shared_namespace(kind: str) -> None:
    for text in (OWN[kind], ""):
        evidence = EVIDENCE.replace(namespaces={**EVIDENCE.namespaces, kind: text})
        assert differences(PLAN, USER, evidence) == f"the {kind} namespace is the caller's"
    left = {other: text for other, text in EVIDENCE.namespaces.items() if other != kind}
    assert f"the {kind} namespace" in differences(PLAN, USER, EVIDENCE.replace(namespaces=left))


@pytest.mark.parametrize("name", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
@pytest.mark.parametrize("value", ["0000000000000001", FULL, None])
def test_a_capability(name: str, value: str | None) -> None:
    assert f"{name} is {value or 'unknown'}, not empty" in differences(PLAN, USER, with_status(**{name: value}))


@pytest.mark.parametrize("value", ["0", None])
def test_new_privileges(value: str | None) -> None:
    assert "no_new_privs is not set" in differences(PLAN, USER, with_status(NoNewPrivs=value))


@pytest.mark.parametrize("value", ["0", "1", None])
def test_no_filter(value: str | None) -> None:
    assert "not 2 (filter)" in differences(PLAN, USER, with_status(Seccomp=value))


@pytest.mark.parametrize(("filters", "found"), [("3", False), ("2", True), ("1", True), (None, False)])
def test_the_callers_own_filter_isnt_taken_for_ours(filters: str | None, found: bool) -> None:
    inside = user_facts(own_filters=2)
    evidence = with_status(Seccomp_filters=filters)
    assert ("no more than the caller" in differences(PLAN, inside, evidence)) == found


@pytest.mark.parametrize("name", ["Uid", "Gid"])
@pytest.mark.parametrize("value", ["0 0 0 0", "1000 1000 1000 0", "1000 0 1000 1000", "", None])
def test_another_id(name: str, value: str | None) -> None:
    assert f"the host {name.lower()} is" in differences(PLAN, USER, with_status(**{name: value}))


def test_host_root_inside() -> None:
    plan = plan_of(ROOT, "--isolation", "full")
    good = agreeing(plan)
    assert differences(plan, ROOT, good) == ""
    for uids in ("0 0 0 0", f"{STAND_IN} 0 {STAND_IN} {STAND_IN}", ""):
        evidence = good.replace(status={**good.status, "Uid": uids})
        assert "it runs with host uid 0" in differences(plan, ROOT, evidence)
    evidence = good.replace(status={**good.status, "Groups": "0 4"})
    assert "the host's groups 0 4" in differences(plan, ROOT, evidence)


def test_no_pid_namespace() -> None:
    assert "no pid namespace of its own" in differences(PLAN, USER, with_status(NSpid="812"))


@pytest.mark.parametrize("point", [point for point, _ in EVIDENCE.mounts if not point.startswith("/dev/")])
def test_a_missing_mount(point: str) -> None:
    evidence = EVIDENCE.replace(mounts=tuple(mount for mount in EVIDENCE.mounts if mount[0] != point))
    assert f"nothing is mounted at {point}" in differences(PLAN, USER, evidence)


@pytest.mark.parametrize("point", [point for point, read_only in EVIDENCE.mounts if read_only])
def test_a_mount_that_can_be_written(point: str) -> None:
    mounts = tuple((each, read_only and each != point) for each, read_only in EVIDENCE.mounts)
    assert f"{point} is mounted writable" in differences(PLAN, USER, EVIDENCE.replace(mounts=mounts))
    # Of several mounts at one point the last is the one that is seen.
    on_top = EVIDENCE.replace(mounts=(*EVIDENCE.mounts, (point, False)))
    assert f"{point} is mounted writable" in differences(PLAN, USER, on_top)


@pytest.mark.parametrize("point", ["/usr/local", "/srv/a/deep", "/var", "/etc/x"])
def test_a_writable_mount_that_nobody_asked_for(point: str) -> None:
    evidence = EVIDENCE.replace(mounts=(*EVIDENCE.mounts, (point, False)))
    assert f"{point} is a writable mount that the plan doesn't have" in differences(PLAN, USER, evidence)
    assert differences(PLAN, USER, EVIDENCE.replace(mounts=(*EVIDENCE.mounts, (point, True)))) == ""


def test_submounts_of_what_is_writable_are_no_difference() -> None:
    evidence = EVIDENCE.replace(mounts=(*EVIDENCE.mounts, ("/home/ada/disk", False), ("/srv/b/x", False)))
    assert differences(PLAN, USER, evidence) == ""


def test_all_differences_are_told_at_once() -> None:
    evidence = Evidence({}, {}, (), "")
    assert len(compare(PLAN, USER, evidence, OWN)) > 20


def test_reading_ourselves() -> None:
    evidence = read_evidence(os.getpid())
    assert evidence.status["Uid"].split()[1] == str(os.geteuid())
    assert evidence.namespaces == read_namespaces("self")
    assert "/" in dict(evidence.mounts)
    assert evidence.cgroup


def test_nobody_there() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(OSError, match=f"/proc/{pid}/"):
        read_evidence(pid)


def test_mount_points_with_odd_characters() -> None:
    assert unescape("/a\\040b\\011c\\012d\\134e") == "/a b\tc\nd\\e"
    assert unescape("/a\\134040") == "/a\\040"
