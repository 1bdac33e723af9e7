"""From a policy and a host to a plan, or to every reason why not."""

from __future__ import annotations

import pytest
from factories import KINDS, STAND_IN, filter_of, plan_of, policy_of, root_facts, system_entries, user_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import command_lines, hosts, with_sources

from hexe.errors import Unsatisfiable, UsageError
from hexe.policy.host import Entry, HostFacts, Stream
from hexe.policy.profiles import PROFILES
from hexe.sandbox.compile import compile_plan
from hexe.sandbox.operations import ChangeDirectory, OpenTerminal
from hexe.sandbox.plan import Plan

TTY, PIPE, FILE = Stream("tty"), Stream("other"), Stream("file")


@settings(deadline=None)
@given(command_lines, hosts(), st.data())
def test_the_same_again(words: list[str], facts: HostFacts, data: st.DataObject) -> None:
    outcomes: list[object] = []
    try:
        facts = data.draw(with_sources(facts, policy_of(facts, *words)))
    except UsageError:
        return
    for _ in range(2):
        try:
            outcomes.append(compile_plan(policy_of(facts, *words), facts, ("a", "b"), filter_of))
        except (UsageError, Unsatisfiable) as refusal:
            outcomes.append(str(refusal))
            assert not isinstance(refusal, Unsatisfiable) or all(problem for problem, _ in refusal.reasons)
    assert outcomes[0] == outcomes[1]


# -- refusals

SHORTCOMINGS: dict[str, tuple[dict[str, object], tuple[str, ...], str, str]] = {
    "old kernel": ({"kernel": (5, 11)}, ("default", "full"), "5.12", "update the kernel"),
    "no net": ({"namespaces": frozenset(KINDS) - {"net"}}, ("full",), "net namespaces", "CONFIG_NET_NS"),
    "no ipc": ({"namespaces": frozenset(KINDS) - {"ipc"}}, ("sandbox", "full"), "ipc namespaces", "CONFIG_IPC_NS"),
    "no uts": ({"namespaces": frozenset(KINDS) - {"uts"}}, ("sandbox", "full"), "uts namespaces", "CONFIG_UTS_NS"),
    "no pid": ({"namespaces": frozenset(KINDS) - {"pid"}}, ("default", "full"), "pid namespaces", "CONFIG_PID_NS"),
    "no user": ({"namespaces": frozenset(KINDS) - {"user"}}, ("minimal", "full"), "user namespaces", "CONFIG_USER_NS"),
    "none allowed": ({"max_user_namespaces": 0}, ("minimal", "full"), "max_user_namespaces is 0", "sysctl -w user.max"),
    "Debian": ({"userns_clone": 0}, ("minimal", "full"), "unprivileged_userns_clone is 0", "sysctl -w kernel.unpriv"),
    "Ubuntu": ({"apparmor_restricts": True}, ("minimal", "full"), "AppArmor", "hexe doctor --apparmor"),
    "no seccomp": ({"seccomp": False}, ("sandbox", "full"), "seccomp filters", "CONFIG_SECCOMP_FILTER"),
    "directory": ({"streams": (PIPE, Stream("dir"), PIPE)}, ("default", "full"), "output is a dir", "--ro-bind"),
    "a refused question": ({"landlock_abi": -1}, ("sandbox", "full"), "landlock_create_ruleset: EPERM", "allow it"),
    "weak root": (
        {"host_root": True, "uid": 0, "gid": 0}, ("minimal", "full"), "root without CAP_SYS_ADMIN", "ordinary user",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORTCOMINGS)
def test_a_shortcoming_is_named_with_its_remedy(name: str) -> None:
    changes, refused, problem, fix = SHORTCOMINGS[name]
    for profile in refused:
        with pytest.raises(Unsatisfiable) as refusal:
            plan_of(user_facts(**changes), "--isolation", profile)
        [(said, remedy)] = refusal.value.reasons
        assert problem in said and fix in remedy
        assert said in str(refusal.value) and f"fix: {remedy}" in str(refusal.value)
        assert refusal.value.exit_code == 125
    plan_of(user_facts(**changes), "--isolation", "none")


def test_every_broken_promise_is_told_at_once() -> None:
    entries = {
        **system_entries(),
        "/srv/a": Entry("missing", nearest="/srv"),
        "/srv/b": Entry("missing", error="EACCES"),
    }
    facts = user_facts(
        kernel=(4, 9), namespaces=frozenset({"user", "mnt"}), seccomp=False, max_user_namespaces=0, userns_clone=0,
        apparmor_restricts=True, entries=entries, streams=(Stream("dir"), Stream("dir"), PIPE),
    )  # fmt: skip
    with pytest.raises(Unsatisfiable) as refusal:
        plan_of(facts, "--isolation", "full", "--bind", "/srv/a", "--ro-bind", "/srv/b")
    text = str(refusal.value)
    for part in (
        *("5.12", "pid namespaces", "uts namespaces", "ipc namespaces", "net namespaces", "seccomp filters"),
        *("max_user_namespaces", "unprivileged_userns_clone", "AppArmor", "--bind /srv/a: ENOENT", "parent is /srv;"),
        *("--ro-bind /srv/b: EACCES", "standard input is a directory", "standard output is a directory"),
    ):
        assert part in text
    assert len(refusal.value.reasons) == 13


def test_root_needs_no_sysctl_for_ordinary_users() -> None:
    plan_of(root_facts(userns_clone=0, apparmor_restricts=True), "--isolation", "full")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--isolation", "minimal", "--bind", "/srv"], "--bind"),
        (["--isolation", "none", "--tmpfs", "/srv"], "--tmpfs"),
        (["--isolation", "minimal", "--home", "ro"], "--home"),
        (["--isolation", "default", "--hostname", "x"], "--hostname"),
        (["--isolation", "none", "--uid", "5"], "--uid"),
        (["--isolation", "none", "--gid", "keep"], "--gid"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        plan_of(user_facts(), *words)
    assert message in refusal.value.message and "--isolation" in refusal.value.hint


def test_only_the_cgroup_namespace_may_be_missing() -> None:
    plan = plan_of(user_facts(namespaces=frozenset(KINDS) - {"cgroup"}), "--isolation", "full")
    assert set(plan.namespaces.kinds) == set(KINDS) - {"cgroup"}
    assert "this kernel has no cgroup namespaces" in plan.notes


# -- identity


@pytest.mark.parametrize(
    ("facts", "words", "uid", "gid"),
    [
        (user_facts(), (), (1000, 1000), (1000, 1000)),
        (user_facts(), ("--isolation", "minimal"), (65534, 1000), (65534, 1000)),
        (user_facts(), ("--uid", "root"), (0, 1000), (0, 1000)),
        (user_facts(), ("--uid", "root", "--gid", "5"), (0, 1000), (5, 1000)),
        (user_facts(), ("--uid", "7"), (7, 1000), (1000, 1000)),
        (user_facts(), ("--gid", "root"), (1000, 1000), (0, 1000)),
        (user_facts(), ("--isolation", "minimal", "--uid", "keep"), (1000, 1000), (1000, 1000)),
        (root_facts(), (), (0, STAND_IN), (0, STAND_IN)),
        (root_facts(), ("--isolation", "minimal"), (65534, STAND_IN), (65534, STAND_IN)),
        (root_facts(), ("--uid", "7", "--gid", "8"), (7, STAND_IN), (8, STAND_IN)),
        (root_facts(host_root=False), (), (0, 0), (0, 0)),
    ],
)
def test_identities(facts: HostFacts, words: tuple[str, ...], uid: tuple[int, int], gid: tuple[int, int]) -> None:
    [maps] = plan_of(facts, *words).maps
    assert ((maps.uid, maps.host_uid), (maps.gid, maps.host_gid)) == (uid, gid)
    # Without privilege the kernel takes a gid map only after setgroups is denied (user_namespaces(7)).
    assert maps.deny_setgroups == (not facts.host_root)


# -- streams


@pytest.mark.parametrize(
    ("words", "streams", "becomes"),
    [
        ((), (PIPE, PIPE, PIPE), "pass pass pass"),
        ((), (TTY, TTY, TTY), "terminal terminal terminal"),
        ((), (TTY, PIPE, TTY), "terminal pass terminal"),
        ((), (PIPE, TTY, TTY), "pass write-only write-only"),
        (("--no-tty",), (TTY, TTY, TTY), "pass write-only write-only"),
        (("--tty",), (PIPE, FILE, PIPE), "terminal terminal terminal"),
        ((), (FILE, FILE, PIPE), "pass pass pass"),
        ((), (FILE, Stream("file", False, True, True), PIPE), "pass relay pass"),
        ((), (Stream("memory"), Stream("block"), Stream("fifo")), "relay relay pass"),
        ((), (Stream("null"), Stream("device"), Stream("closed")), "pass relay pass"),
        (("--isolation", "default"), (FILE, FILE, PIPE), "relay relay pass"),
        (("--isolation", "minimal"), (FILE, Stream("block"), Stream("dir")), "pass pass pass"),
        (("--isolation", "none"), (TTY, FILE, TTY), "terminal pass terminal"),
    ],
)
def test_what_becomes_of_the_streams(
    words: tuple[str, ...], streams: tuple[Stream, Stream, Stream], becomes: str
) -> None:
    plan = plan_of(user_facts(streams=streams), *words)
    assert plan.streams == tuple(becomes.split())
    assert plan.terminal == ("terminal" in becomes)
    assert any(isinstance(each, OpenTerminal) for each in plan.inner) == plan.terminal


@pytest.mark.parametrize("abi", [0, 1])
def test_files_are_relayed_where_landlock_cant_guard_them(abi: int) -> None:
    facts = user_facts(streams=(FILE, Stream("fifo"), Stream("null")), landlock_abi=abi)
    assert plan_of(facts).streams == ("relay", "relay", "pass")


def test_a_file_of_roots_is_relayed_out_but_not_in() -> None:
    assert plan_of(root_facts(streams=(FILE, FILE, PIPE))).streams == ("pass", "relay", "pass")


# -- the first directory


def start(plan: Plan) -> str:
    return next((each.path for each in plan.inner if isinstance(each, ChangeDirectory)), "")


SHOWN = {**system_entries(), "/srv": Entry("dir", real="/srv"), "/data/ada/x": Entry("dir", real="/data/ada/x")}


@pytest.mark.parametrize(
    ("changes", "words", "where"),
    [
        ({}, (), "/home/ada/work"),
        ({}, ("--cwd", "/usr"), "/usr"),
        ({"cwd": "/usr/share"}, (), "/usr/share"),
        ({"cwd": "/var/log"}, (), "/home/ada"),
        ({"cwd": "/var/log"}, ("--isolation", "none"), ""),
        ({"cwd": "/var/log"}, ("--isolation", "minimal", "--cwd", "/usr"), "/usr"),
        ({}, ("--home", "private"), "/home/ada"),
        ({}, ("--tmpfs", "/home"), "/"),
        ({"cwd": "/srv/a"}, ("--bind", "/srv:/x"), "/x/a"),
        ({"cwd": "/srv/a"}, ("--bind", "/srv:/x", "--tmpfs", "/x/a"), "/home/ada"),
        ({"home_real": "/data/ada", "cwd": "/data/ada/work"}, (), "/home/ada/work"),
        ({"home_real": "/data/ada", "cwd": "/data/ada/x"}, ("--home", "private", "--bind", "."), "/data/ada/x"),
    ],
)
def test_where_the_command_starts(changes: dict[str, object], words: tuple[str, ...], where: str) -> None:
    assert start(plan_of(user_facts(entries=SHOWN, **changes), *words)) == where


@pytest.mark.parametrize("profile", PROFILES)
def test_the_filter_is_loaded_only_where_it_is_asked_for(profile: str) -> None:
    asked: list[str] = []

    def load(variant: str) -> bytes:
        asked.append(variant)
        return b"x" * 8

    compile_plan(policy_of(user_facts(), "--isolation", profile), user_facts(), ("true",), load)
    assert asked == [PROFILES[profile].seccomp] * bool(PROFILES[profile].seccomp)
