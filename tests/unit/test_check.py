"""The invariants of plans: compile keeps them whatever is asked on whatever host, and check sees each violation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from factories import filter_of, plan_of, policy_of, root_facts, user_facts
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from strategies import command_lines, hosts, with_sources

from hexe.errors import Unsatisfiable, UsageError
from hexe.linux import constants as c
from hexe.policy.host import HostFacts, Stream
from hexe.policy.profiles import PROFILES
from hexe.sandbox.check import check
from hexe.sandbox.compile import compile_plan
from hexe.sandbox.mount_operations import (
    BindMount,
    CloneTree,
    CreateRoot,
    MakeSymlink,
    MaskPath,
    MountDev,
    MountProc,
    MountTmpfs,
    PivotRoot,
    ProtectPath,
    SealRoot,
    StopPropagation,
)
from hexe.sandbox.operations import (
    DropCapabilities,
    ForbidNewPrivileges,
    HideFromPeers,
    InstallSeccomp,
    JoinSessionKeyring,
    LandlockRule,
    LoopbackUp,
    OpenTerminal,
    RestrictFiles,
    SetHostname,
    SwitchIdentity,
)
from hexe.sandbox.plan import Plan

STREAM = Stream("tty")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(command_lines, hosts(), st.data())
def test_every_plan_keeps_every_invariant(words: list[str], facts: HostFacts, data: st.DataObject) -> None:
    try:
        policy = policy_of(facts, *words)
        facts = data.draw(with_sources(facts, policy))
        plan = compile_plan(policy, facts, ("true",), filter_of)
    except (UsageError, Unsatisfiable) as refusal:
        event(type(refusal).__name__)
        return
    event(f"a plan of {policy.profile}")
    assert check(plan, facts) == ()
    assert compile_plan(policy, facts, ("true",), filter_of) == plan


@pytest.mark.parametrize("facts", [user_facts(), root_facts()], ids=["user", "root"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_themselves(profile: str, facts: HostFacts) -> None:
    plan = plan_of(facts, "--isolation", profile)
    assert check(plan, facts) == ()
    assert check(plan) == ()


# -- what check has to find: one plan that is right, broken in one place at a time

FACTS = root_facts(streams=(STREAM, STREAM, STREAM), entries=user_facts().entries)
PLAN = plan_of(FACTS, "--isolation", "full", "--bind", "/srv/a", "--ro-bind", "/srv/b", "--tmpfs", "/srv/c")


def stage_of(plan: Plan, kind: type) -> str:
    return next(
        stage
        for stage in ("host", "maps", "outer", "inner", "seal")
        for each in plan.stage(stage)
        if type(each) is kind
    )


def without(kind: type) -> Plan:
    stage = stage_of(PLAN, kind)
    return PLAN.replace(**{stage: tuple(each for each in PLAN.stage(stage) if type(each) is not kind)})


def moved(kind: type, index: int) -> Plan:
    """The first operation of that kind, put somewhere else in its stage."""
    stage = stage_of(PLAN, kind)
    each = next(operation for operation in PLAN.stage(stage) if type(operation) is kind)
    rest = [operation for operation in PLAN.stage(stage) if operation is not each]
    rest.insert(index if index >= 0 else len(rest), each)
    return PLAN.replace(**{stage: tuple(rest)})


def changed(kind: type, **fields: object) -> Plan:
    """The first operation of that kind, with other fields."""
    stage = stage_of(PLAN, kind)
    first = next(operation for operation in PLAN.stage(stage) if type(operation) is kind)
    return PLAN.replace(
        **{stage: tuple(each.replace(**fields) if each is first else each for each in PLAN.stage(stage))}
    )


def appended(stage: str, *operations: object) -> Plan:
    return PLAN.replace(**{stage: (*PLAN.stage(stage), *operations)})


def test_the_plan_to_break_is_right() -> None:
    assert check(PLAN, FACTS) == ()


@pytest.mark.parametrize(
    "kind",
    [
        SwitchIdentity, HideFromPeers, StopPropagation, CreateRoot, MountProc, MountDev, MaskPath, ProtectPath,
        PivotRoot, SetHostname, LoopbackUp, JoinSessionKeyring, OpenTerminal, SealRoot, DropCapabilities,
        ForbidNewPrivileges, RestrictFiles, InstallSeccomp, CloneTree, BindMount, MountTmpfs,
    ],
)  # fmt: skip
def test_a_missing_operation_is_found(kind: type) -> None:
    assert check(without(kind), FACTS) != ()


def test_missing_maps_are_found() -> None:
    assert check(PLAN.replace(maps=()), FACTS) != ()


@pytest.mark.parametrize(
    ("kind", "index", "words"),
    [
        (SwitchIdentity, -1, "belong to the ids"),
        (StopPropagation, -1, "appear outside"),
        (CreateRoot, -1, "no root to put it in"),
        (MountProc, -1, "before MountProc"),
        (MountDev, -1, "before MountDev"),
        (MakeSymlink, -1, "where the link leads"),
        (MaskPath, 6, "could cover what is masked"),
        (ProtectPath, 0, "before"),
        (PivotRoot, 1, "first of inner"),
        (OpenTerminal, -1, "read-only /dev"),
        (DropCapabilities, -1, "InstallSeccomp isn't the last"),
        (ForbidNewPrivileges, -1, "demands no_new_privs"),
        (InstallSeccomp, 0, "isn't the last of seal"),
    ],
)
def test_a_wrong_order_is_found(kind: type, index: int, words: str) -> None:
    assert any(words in each for each in check(moved(kind, index), FACTS)), check(moved(kind, index), FACTS)


LAST = "a test"
BROKEN: dict[str, tuple[Callable[[], Plan], str]] = {
    "a parent mounted after its child": (lambda: appended("outer", MountTmpfs("/srv", "755", LAST)), "hides"),
    "a mount on another": (lambda: appended("outer", MountTmpfs("/usr", "755", LAST)), "hides BindMount(/usr)"),
    "a mount on the mask": (lambda: appended("outer", MountTmpfs("/proc/kcore", "755", LAST)), "hides MaskPath"),
    "a mount in inner": (lambda: appended("inner", MountTmpfs("/x", "755", LAST)), "doesn't belong"),
    "something behind the seal": (lambda: appended("seal", SetHostname("hexe", LAST)), "doesn't belong"),
    "a second filter": (lambda: appended("seal", InstallSeccomp("full", b"x" * 8, LAST)), "stands 2 times"),
    "no reason": (lambda: changed(LoopbackUp, because=" "), "LoopbackUp has no reason"),
    "another filter": (lambda: changed(InstallSeccomp, variant="sandbox"), "the filter is 'sandbox'"),
    "an empty filter": (lambda: changed(InstallSeccomp, filter=b""), "0 bytes"),
    "host uid 0": (lambda: PLAN.replace(maps=(PLAN.maps[0].replace(host_uid=0),)), "uid or gid 0"),
    "host gid 0": (lambda: PLAN.replace(maps=(PLAN.maps[0].replace(host_gid=0),)), "uid or gid 0"),
    "two maps": (lambda: PLAN.replace(maps=PLAN.maps * 2), "WriteIdMaps stands 2 times"),
    "another id": (lambda: changed(SwitchIdentity, uid=5), "aren't those that are mapped"),
    "root's groups": (lambda: changed(SwitchIdentity, clear_groups=False), "supplementary groups"),
    "another hostname": (lambda: changed(SetHostname, name="x"), "hostname"),
    "the host's devpts": (lambda: changed(OpenTerminal, private=False), "devpts"),
    "a lost namespace": (
        lambda: PLAN.replace(namespaces=PLAN.namespaces.replace(kinds=PLAN.namespaces.kinds[1:])),
        "promises a user namespace",
    ),
    "a namespace twice": (
        lambda: PLAN.replace(namespaces=PLAN.namespaces.replace(kinds=(*PLAN.namespaces.kinds, "net"))),
        "makes it twice",
    ),
    "a lost cgroup namespace": (
        lambda: PLAN.replace(namespaces=PLAN.namespaces.replace(kinds=PLAN.namespaces.kinds[:-1])),
        "promises a cgroup namespace",
    ),
    "another tree": (lambda: changed(CloneTree, source="/etc"), "isn't what is to be mounted"),
    "a tree with more rights": (lambda: changed(CloneTree, attrs=1), "isn't what is to be mounted"),
    "an idmap that may fail": (lambda: changed(CloneTree, required=False), "isn't required"),
    "a writable ro-bind": (
        lambda: PLAN.replace(
            outer=tuple(
                each.replace(attrs=6) if isinstance(each, BindMount) and each.target == "/srv/b" else each
                for each in PLAN.outer
            )
        ),
        "--ro-bind was asked for",
    ),
    "a writable system": (lambda: changed(BindMount, attrs=6), "isn't shown read-only"),
    "another mask": (lambda: changed(MaskPath, is_directory=True), "wrong kind"),
    "another environment": (
        lambda: PLAN.replace(execute=PLAN.execute.replace(environment=(("HEXE_ISOLATION", "none"),))),
        "HEXE_ISOLATION",
    ),
    "Landlock's write right on /usr": (
        lambda: changed(
            RestrictFiles, rules=(*_rules().rules, LandlockRule("/usr", c.LL_WRITE_FILE)),
        ),
        "grants writing at /usr",
    ),
    "no rule for a writable mount": (
        lambda: changed(RestrictFiles, rules=tuple(rule for rule in _rules().rules if rule.path != "/srv/a")),
        "grants no writing at /srv/a",
    ),
    "an unhandled right": (lambda: changed(RestrictFiles, handled=1), "aren't handled"),
}  # fmt: skip


def _rules() -> RestrictFiles:
    return next(each for each in PLAN.seal if isinstance(each, RestrictFiles))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    make, words = BROKEN[name]
    assert any(words in each for each in check(make(), FACTS)), check(make(), FACTS)


def test_hexes_own_files_are_found_writable() -> None:
    facts = user_facts(protected=("/home/ada/code/hexe",), entries=user_facts().entries)
    plan = plan_of(facts)
    assert check(plan, facts) == ()
    bare = [each for each in plan.outer if "Hexe's own" not in each.because]
    assert any("Hexe's own files, writable" in each for each in check(plan.replace(outer=tuple(bare)), facts))
    movable = [each for each in plan.outer if getattr(each, "target", "") != "/home/ada/code"]
    assert any("can be renamed" in each for each in check(plan.replace(outer=tuple(movable)), facts))


def test_a_map_of_another_users_ids_is_found() -> None:
    plan = plan_of(user_facts())
    maps = plan.maps[0].replace(host_uid=0)
    assert any("its own ids only" in each for each in check(plan.replace(maps=(maps,)), user_facts()))
