"""What a made-up host can't keep of a profile: each cause by name, each with its remedy, all of them at once."""

from __future__ import annotations

import pytest
from factories import KINDS, PIPES, plan_of, policy_of, root_facts, user_facts
from hypothesis import given
from hypothesis import strategies as st

from hexe.errors import Unsatisfiable, UsageError
from hexe.policy.host import Entry, HostFacts, Stream
from hexe.policy.profiles import PROFILES
from hexe.sandbox.compile import stream_kinds
from hexe.sandbox.requirements import broken_promises

ISOLATING = tuple(name for name, policy in PROFILES.items() if policy.user_namespace)
ROOTED = tuple(name for name, policy in PROFILES.items() if policy.mount_namespace)


def broken(facts: HostFacts, *words: str) -> tuple[tuple[str, str], ...]:
    policy = policy_of(facts, *words)
    return broken_promises(policy, facts, stream_kinds(policy, facts))


def only(facts: HostFacts, *words: str) -> tuple[str, str]:
    found = broken(facts, *words)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("facts", [user_facts(), root_facts()], ids=["user", "root"])
def test_a_good_host_breaks_nothing(facts: HostFacts, profile: str) -> None:
    assert broken(facts, "--isolation", profile) == ()


@pytest.mark.parametrize("profile", ISOLATING)
@pytest.mark.parametrize(
    ("changes", "cause", "fix"),
    [
        ({"max_user_namespaces": 0}, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces="),
        ({"userns_clone": 0}, "kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ({"apparmor_restricts": True}, "kernel.apparmor_restrict_unprivileged_userns", "hexe doctor --apparmor"),
        ({"namespaces": frozenset(KINDS) - {"user"}}, "needs user namespaces", "CONFIG_USER_NS=y"),
    ],
    ids=["max", "clone", "apparmor", "kernel"],
)
def test_user_namespaces_that_a_host_refuses(profile: str, changes: dict[str, object], cause: str, fix: str) -> None:
    facts = user_facts(**changes)
    problem, remedy = only(facts, "--isolation", profile)
    assert cause in problem
    assert profile in problem
    assert fix in remedy
    with pytest.raises(Unsatisfiable, match="user"):
        plan_of(facts, "--isolation", profile)
    assert broken(facts, "--isolation", "none") == ()


@pytest.mark.parametrize("changes", [{"userns_clone": 0}, {"apparmor_restricts": True}])
def test_what_restricts_users_doesnt_restrict_a_capable_root(changes: dict[str, object]) -> None:
    assert broken(root_facts(**changes), "--isolation", "full") == ()


def test_root_without_capabilities() -> None:
    problem, remedy = only(root_facts(capable=False), "--isolation", "default")
    assert "root without CAP_SYS_ADMIN" in problem
    assert "as an ordinary user" in remedy


@pytest.mark.parametrize(
    ("kind", "config", "profiles"),
    [
        ("pid", "PID_NS", ROOTED),
        ("mnt", "NAMESPACES", ROOTED),
        ("uts", "UTS_NS", ("sandbox", "full")),
        ("ipc", "IPC_NS", ("sandbox", "full")),
        ("net", "NET_NS", ("full",)),
        ("cgroup", "", ()),
    ],
)
def test_a_kernel_without_a_kind_of_namespace(kind: str, config: str, profiles: tuple[str, ...]) -> None:
    facts = user_facts(namespaces=frozenset(KINDS) - {kind})
    for profile in PROFILES:
        found = broken(facts, "--isolation", profile)
        assert [kind in problem and f"CONFIG_{config}=y" in fix for problem, fix in found] == [True] * (
            profile in profiles
        )


@pytest.mark.parametrize("version", [(4, 19), (5, 11)])
def test_an_old_kernel(version: tuple[int, int]) -> None:
    for profile in PROFILES:
        found = broken(user_facts(kernel=version), "--isolation", profile)
        assert [f"this is {version[0]}.{version[1]}" in problem for problem, _ in found] == [True] * (profile in ROOTED)


def test_a_kernel_without_seccomp() -> None:
    for profile in PROFILES:
        found = broken(user_facts(seccomp=False), "--isolation", profile)
        assert ["CONFIG_SECCOMP_FILTER=y" in fix for _, fix in found] == [True] * bool(PROFILES[profile].seccomp)


def test_no_landlock_is_said_in_a_note_and_a_refused_question_is_an_error() -> None:
    assert any("no Landlock" in note for note in plan_of(user_facts(landlock_abi=0), "--isolation", "full").notes)
    problem, fix = only(user_facts(landlock_abi=-1), "--isolation", "full")
    assert "landlock_create_ruleset: EPERM" in problem
    assert "ENOSYS" in fix
    assert broken(user_facts(landlock_abi=-1), "--isolation", "default") == ()


def test_sources() -> None:
    facts = user_facts()
    entries = {
        **facts.entries,
        "/srv/a/b": Entry("missing", nearest="/srv"),
        "/srv/closed": Entry("missing", error="EACCES"),
    }
    facts = facts.replace(entries=entries)
    problem, fix = only(facts, "--bind", "/srv/a/b:/b")
    assert problem == "--bind /srv/a/b: ENOENT: there is no such path"
    assert "nearest existing parent is /srv;" in fix
    problem, fix = only(facts, "--ro-bind", "/srv/closed:/b")
    assert problem == "--ro-bind /srv/closed: EACCES"
    assert fix
    assert len(broken(facts, "--bind", "/srv/a/b:/b", "--ro-bind", "/srv/closed:/c")) == 2


def test_a_directory_as_a_standard_stream() -> None:
    streams = (Stream("dir", True, False), *PIPES[1:])
    problem, fix = only(user_facts(streams=streams), "--isolation", "default")
    assert "standard input is a directory" in problem
    assert "--ro-bind" in fix
    assert broken(user_facts(streams=streams), "--isolation", "minimal") == ()


def test_every_problem_is_said_and_each_has_its_fix() -> None:
    facts = user_facts(
        kernel=(5, 4), max_user_namespaces=0, userns_clone=0, apparmor_restricts=True, seccomp=False, landlock_abi=-1,
        namespaces=frozenset(KINDS) - {"net", "ipc"}, streams=(Stream("dir"),) * 3,
    )  # fmt: skip
    with pytest.raises(Unsatisfiable) as caught:
        plan_of(facts, "--isolation", "full")
    assert len(caught.value.reasons) == 11
    assert str(caught.value).count("\n  fix: ") == 11
    assert caught.value.exit_code == 125


@given(
    profile=st.sampled_from(ISOLATING),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "max_user_namespaces": st.just(0),
            "userns_clone": st.just(0),
            "apparmor_restricts": st.just(True),
            "seccomp": st.just(False),
            "kernel": st.tuples(st.integers(3, 5), st.integers(0, 11)),
            "namespaces": st.sets(st.sampled_from(KINDS)).map(frozenset),
            "landlock_abi": st.integers(-40, 8),
        },
    ),
)
def test_a_plan_exists_or_every_reason_has_a_fix(profile: str, changes: dict[str, object]) -> None:
    """No host makes a weaker plan: it has all the namespaces, no privileges and the filter, or there is none."""
    facts = user_facts(**changes)
    policy = PROFILES[profile]
    try:
        plan = plan_of(facts, "--isolation", profile)
    except Unsatisfiable as error:
        assert error.reasons
        assert all(problem and fix for problem, fix in error.reasons)
        return
    kinds = set(plan.namespaces.kinds)
    names = {type(operation).__name__ for operation in plan.seal}
    assert kinds >= {"user"} | ({"pid", "mnt"} if policy.mount_namespace else set())
    assert ("net" in kinds) == (policy.network == "none")
    assert {"uts", "ipc"} <= kinds or not policy.uts_namespace
    assert {"DropCapabilities", "ForbidNewPrivileges"} <= names
    assert "InstallSeccomp" in names or not policy.seccomp
    assert "RestrictFiles" in names or facts.landlock_abi < 2 or not policy.landlock
    assert "RestrictFiles" in names or plan.notes or not policy.landlock


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("none", ("--bind", "/usr:/x")),
        ("none", ("--uid", "root")),
        ("none", ("--gid", "5")),
        ("none", ("--hostname", "x")),
        ("minimal", ("--tmpfs", "/x")),
        ("minimal", ("--home", "ro")),
        ("minimal", ("--hostname", "x")),
        ("default", ("--hostname", "x")),
    ],
)
def test_an_option_without_a_meaning_is_no_plan(profile: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(user_facts(), "--isolation", profile, *words)
    assert words[0] in caught.value.message
    assert profile in caught.value.message
    assert caught.value.hint
