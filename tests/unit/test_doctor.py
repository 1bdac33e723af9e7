"""hexe doctor on made-up hosts: every check has its words and its remedy, and the outputs keep their shape."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from factories import KINDS, root_facts, user_facts
from hypothesis import given
from hypothesis import strategies as st

from hexe.cli import doctor as command
from hexe.errors import HexeError, UsageError
from hexe.policy.host import HostFacts
from hexe.policy.profiles import PROFILES
from hexe.sandbox import doctor
from hexe.sandbox.attest import NAMESPACE_KINDS
from hexe.sandbox.doctor import Diagnosis, Launch, as_data, messages, read_launch
from hexe.sandbox.host_checks import INFO, LIMITED, MISSING, OK, Check, Extras, run_checks
from hexe.sandbox.surroundings import Surroundings

AROUND = Surroundings(limits=dict.fromkeys(NAMESPACE_KINDS, 15000))
EXTRAS = Extras(
    library="2.5.4", cached=True, cache="/run/user/1000/hexe", cgroups="v2 at /sys/fs/cgroup (cpu memory pids)",
    stand_in_source="(from /etc/subuid)", script="/usr/bin/hexe", interpreter="/usr/bin/python3",
)  # fmt: skip
KEYS = [
    "machine", "kernel", *(f"namespace.{kind}" for kind in KINDS if kind != "cgroup"), "namespace.cgroup",
    "userns_clone", "apparmor", "container", "caller_filters", "chroot", "caller_ids", "proc", "seccomp", "libseccomp",
    "landlock", "stand_in", "idmap", "pty", "filter_cache", "files", "cgroups",
]  # fmt: skip


def checks(facts: HostFacts | None = None, around: Surroundings = AROUND, extras: Extras = EXTRAS) -> dict[str, Check]:
    found = run_checks(facts or user_facts(), around, extras)
    by_key = {check.key: check for check in found}
    assert len(by_key) == len(found), "a key is there twice"
    return by_key


def troubled(found: dict[str, Check]) -> dict[str, Check]:
    return {key: check for key, check in found.items() if check.status in (MISSING, LIMITED)}


def test_the_keys_are_a_promise() -> None:
    assert sorted(checks()) == sorted(KEYS)
    assert sorted(checks(root_facts())) == sorted(KEYS)


@pytest.mark.parametrize("facts", [user_facts(), root_facts()], ids=["user", "root"])
def test_nothing_is_wrong_with_a_good_host(facts: HostFacts) -> None:
    assert troubled(checks(facts)) == {}


@pytest.mark.parametrize(
    ("changes", "key", "status", "fix"),
    [
        ({"machine": "riscv64"}, "machine", MISSING, "x86_64"),
        ({"kernel": (5, 10)}, "kernel", MISSING, "update the kernel"),
        ({"namespaces": frozenset(KINDS) - {"net"}}, "namespace.net", MISSING, "CONFIG_NET_NS=y"),
        ({"namespaces": frozenset(KINDS) - {"user"}}, "namespace.user", MISSING, "CONFIG_USER_NS=y"),
        ({"namespaces": frozenset(KINDS) - {"cgroup"}}, "namespace.cgroup", LIMITED, "CONFIG_CGROUPS=y"),
        ({"userns_clone": 0}, "userns_clone", MISSING, "sysctl -w kernel.unprivileged_userns_clone=1"),
        ({"apparmor_restricts": True}, "apparmor", MISSING, "hexe doctor --apparmor"),
        ({"seccomp": False}, "seccomp", MISSING, "CONFIG_SECCOMP_FILTER=y"),
        ({"landlock_abi": 0}, "landlock", LIMITED, "lsm="),
        ({"landlock_abi": 1}, "landlock", LIMITED, "5.19"),
        ({"landlock_abi": 2}, "landlock", LIMITED, "6.12"),
        ({"landlock_abi": 5}, "landlock", LIMITED, "6.12"),
        ({"landlock_abi": -1}, "landlock", MISSING, "allow landlock_*"),
        ({"host_root": True, "capable": False, "uid": 0}, "caller_ids", MISSING, "as an ordinary user"),
    ],
)
def test_a_fact_that_is_in_the_way(changes: dict[str, object], key: str, status: str, fix: str) -> None:
    found = troubled(checks(user_facts(**changes)))
    assert list(found) == [key]
    assert found[key].status == status
    assert fix in found[key].fix
    assert found[key].affects


@pytest.mark.parametrize(
    ("around", "key", "fix"),
    [
        (
            AROUND.replace(limits={**AROUND.limits, "pid": 0}),
            "namespace.pid",
            "sysctl -w user.max_pid_namespaces=15000",
        ),
        (AROUND.replace(chrooted=True), "chroot", "outside of the chroot"),
        (AROUND.replace(unmapped_ids=True), "caller_ids", "--map-current-user"),
        (AROUND.replace(proc_covered=("/proc/kcore",)), "proc", "systempaths=unconfined"),
        (AROUND.replace(proc_mounted=False), "proc", "mount -t proc"),
    ],
)
def test_surroundings_that_are_in_the_way(around: Surroundings, key: str, fix: str) -> None:
    found = troubled(checks(around=around))
    assert list(found) == [key]
    assert found[key].status == MISSING
    assert fix in found[key].fix


@pytest.mark.parametrize(
    ("extras", "key", "status", "fix"),
    [
        (EXTRAS.replace(library_error="no pyseccomp", library_fix="pip install it"), "libseccomp", LIMITED, "pip"),
        (
            EXTRAS.replace(library_error="no pyseccomp", library_fix="pip install it", cached=False),
            "libseccomp",
            MISSING,
            "pip",
        ),
        (EXTRAS.replace(pty_error="openpty: ENOENT"), "pty", LIMITED, "/dev/pts"),
        (EXTRAS.replace(cache="", cache_error="no directory"), "filter_cache", LIMITED, "XDG_RUNTIME_DIR"),
    ],
)
def test_extras_that_are_in_the_way(extras: Extras, key: str, status: str, fix: str) -> None:
    found = troubled(checks(extras=extras))
    assert list(found) == [key]
    assert found[key].status == status
    assert fix in found[key].fix


def test_root_and_its_files() -> None:
    extras = EXTRAS.replace(idmaps=(("/mnt/nfs", "EINVAL"), ("/tmp", "")))
    found = troubled(checks(root_facts(), extras=extras))
    assert list(found) == ["idmap"]
    assert "/mnt/nfs (EINVAL)" in found["idmap"].value
    assert "--ro-bind" in found["idmap"].fix
    assert "host uid 100000" in checks(root_facts())["stand_in"].value


def test_what_landlock_gives_is_said() -> None:
    values = [checks(user_facts(landlock_abi=abi))["landlock"].value for abi in (2, 3, 4, 5, 6, 7)]
    assert "without truncation, ioctl on devices, scopes" in values[0]
    assert "file rules, truncation; without ioctl" in values[1]
    assert values[1].removeprefix("ABI 3") == values[2].removeprefix("ABI 4")
    assert "ioctl on devices; without scopes" in values[3]
    assert "without" not in values[4] + values[5]


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "kernel": st.tuples(st.integers(3, 7), st.integers(0, 20)),
            "namespaces": st.sets(st.sampled_from(KINDS)).map(frozenset),
            "userns_clone": st.integers(-1, 1),
            "apparmor_restricts": st.booleans(),
            "seccomp": st.booleans(),
            "landlock_abi": st.integers(-40, 9),
            "capable": st.booleans(),
            "host_root": st.booleans(),
        },
    ),
    st.fixed_dictionaries({}, optional={kind: st.booleans() for kind in ("chrooted", "unmapped_ids", "proc_mounted")}),
)
def test_every_trouble_has_a_fix_and_says_whom_it_affects(facts: dict[str, Any], around: dict[str, Any]) -> None:
    for check in checks(user_facts(**facts), AROUND.replace(**around)).values():
        assert check.status in (OK, MISSING, LIMITED, INFO)
        assert check.title
        assert check.value
        assert bool(check.fix) == (check.status in (MISSING, LIMITED)), check
        assert set(check.affects) <= set(PROFILES)


# -- launches --------------------------------------------------------------------------------------------------------

REPORT = json.dumps({"started": True, "notes": ["no scopes"], "protections": {"seccomp": {"Seccomp": "2"}}}, indent=2)


def test_a_launch_that_went_well() -> None:
    launch = read_launch("full", 0, REPORT + "\n")
    assert launch.enforced
    assert launch.problems == ()
    assert launch.notes == ("no scopes",)
    assert launch.protections["seccomp"]["Seccomp"] == "2"


def test_a_launch_that_was_refused() -> None:
    launch = read_launch("full", 125, REPORT + "\nhexe: a step: clone3: EPERM\n  fix: do this\n")
    assert not launch.enforced
    assert launch.problems == (("a step: clone3: EPERM", "do this"),)


def test_several_problems() -> None:
    assert messages("hexe: one\n  fix: a\nhexe: two\n  fix: b\nhexe: three\n") == (
        ("one", "a"), ("two", "b"), ("three", ""),
    )  # fmt: skip


def test_a_launch_without_a_program_to_see_is_enforced_all_the_same() -> None:
    launch = read_launch("full", 127, REPORT + "\nhexe: true: not found: execve: ENOENT\n  fix: ...\n")
    assert launch.enforced
    assert launch.problems == ()
    assert "no program named true" in launch.notes[-1]


def test_a_silent_failure_is_a_failure() -> None:
    for status in (1, 125, -9, 137):
        launch = read_launch("full", status, "")
        assert not launch.enforced
        assert launch.problems


# -- outputs ---------------------------------------------------------------------------------------------------------


def diagnosis(status: int = 0) -> Diagnosis:
    problems = (("clone3: EPERM [really]", "sysctl -w user.max_user_namespaces=15000"),) if status else ()
    launches = tuple(Launch(name, status, problems, (), {}) for name in PROFILES)
    return Diagnosis(user_facts(), AROUND, run_checks(user_facts(landlock_abi=2), AROUND, EXTRAS), launches)


def run(monkeypatch: pytest.MonkeyPatch, found: Diagnosis, *arguments: str) -> int:
    monkeypatch.setattr(doctor, "examine", lambda: found)
    return command.main(list(arguments))


def test_json_has_everything_but_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, diagnosis(), "--json") == 0
    text = capsys.readouterr().out
    data = json.loads(text)
    assert sorted(data) == ["checks", "facts", "hexe", "missing", "ok", "profiles", "surroundings"]
    assert data["ok"] is True
    assert list(data["profiles"]) == list(PROFILES)
    assert sorted(data["profiles"]["full"]) == ["notes", "ok", "problems", "protections", "status"]
    assert sorted(data["checks"][0]) == ["affects", "fix", "key", "status", "title", "value"]
    assert data["facts"]["kernel"] == [6, 18]
    assert "environment" not in data["facts"]
    assert "hunter2" not in text, "a secret of the environment is in what people paste into bug reports"


def test_a_profile_that_cant_be_enforced_is_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, diagnosis(125), "--json") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False
    assert data["profiles"]["full"]["problems"][0]["fix"].startswith("sysctl")


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, diagnosis(125)) == 1
    text = capsys.readouterr().out
    for expected in (
        "can't be enforced",
        "clone3: EPERM [really]",
        "limited",
        "Landlock",
        "refuses it with status 125",
    ):
        assert expected in text
    # Whole lines, so that they can be copied, and each once.
    assert text.count("\n    sysctl -w user.max_user_namespaces=15000\n") == 1
    assert run(monkeypatch, diagnosis()) == 0
    assert "can't be enforced" not in capsys.readouterr().out


def test_data_is_plain() -> None:
    json.dumps(as_data(diagnosis()))


def test_help_and_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h"):
        assert command.main([word]) == 0
        text = capsys.readouterr().out
        for option in ("--json", "--apparmor"):
            assert option in text
    with pytest.raises(UsageError, match="takes no argument"):
        command.main(["full"])
    with pytest.raises(UsageError, match="did you mean '--json'"):
        command.main(["--jsn"])


# -- AppArmor --------------------------------------------------------------------------------------------------------


def test_the_apparmor_profile() -> None:
    text = command.apparmor_profile("/usr/bin/hexe")
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert rules == ["abi <abi/4.0>,", 'profile hexe "/usr/bin/hexe" flags=(unconfined) {', "  userns,", "}"]
    assert "apparmor_parser -r /etc/apparmor.d/hexe" in text


def test_a_path_with_meaning_to_apparmor_is_escaped() -> None:
    assert r'"/home/a b/\@\{x\}\*/hexe"' in command.apparmor_profile("/home/a b/@{x}*/hexe")
    with pytest.raises(HexeError):
        command.apparmor_profile("/home/a\n/usr/bin/hexe")
    with pytest.raises(HexeError, match="by a program's path"):
        command.apparmor_profile("")


def test_the_profile_is_attached_to_the_real_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "real" / "hexe"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    link = tmp_path / "hexe"
    link.symlink_to(real)
    monkeypatch.setattr(sys, "argv", [str(link)])
    assert command.main(["--apparmor"]) == 0
    assert f'profile hexe "{real.resolve()}"' in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert doctor.hexe_command()[0] == sys.executable
