"""Which variables the command gets."""

from __future__ import annotations

import pytest
from factories import plan_of, root_facts, user_facts
from hypothesis import given
from hypothesis import strategies as st

from hexe.policy.host import HostFacts
from hexe.sandbox.environment import ALLOWED, DEFAULT_PATH

# As the documentation lists them.
LISTED = ["PATH", "TERM", "COLORTERM", "LANG", "TZ", "HOME", "USER", "LOGNAME", "SHELL", "EDITOR", "PAGER", "NO_COLOR"]
CLOSED, OPEN = ["sandbox", "full"], ["none", "minimal", "default", "balanced"]

names = st.text(st.sampled_from("ABLC_"), min_size=1, max_size=5) | st.sampled_from([*LISTED, "PWD", "SSH_AUTH_SOCK"])
environments = st.dictionaries(names, st.text(st.sampled_from("ab=/ "), max_size=4), max_size=10)


def variables(facts: HostFacts, *words: str) -> dict[str, str]:
    return dict(plan_of(facts, *words).execute.environment)


@given(environments, st.sampled_from(CLOSED))
def test_only_what_is_listed_passes(environment: dict[str, str], profile: str) -> None:
    got = variables(user_facts(environment=environment), "--isolation", profile)
    for name, value in got.items():
        if name in ("HOME", "USER", "LOGNAME", "HEXE_ISOLATION"):
            continue
        assert name in [*LISTED, "LANGUAGE"] or name.startswith("LC_")
        assert value == environment.get(name, DEFAULT_PATH)
    for name in environment:
        assert (name in got) == (name in ALLOWED or name.startswith("LC_"))
    assert got["HEXE_ISOLATION"] == profile
    assert (got["USER"], got["LOGNAME"], got["HOME"]) == ("ada", "ada", "/home/ada")


def test_the_list_is_the_documented_one() -> None:
    assert ALLOWED - {"LANGUAGE"} == set(LISTED)


@given(environments, st.sampled_from(["none", "minimal"]))
def test_the_callers_passes_whole_on_the_hosts_filesystem(environment: dict[str, str], profile: str) -> None:
    got = variables(user_facts(environment=environment), "--isolation", profile)
    assert got == {**environment, "HEXE_ISOLATION": profile}


@given(environments, st.sampled_from(["default", "balanced"]))
def test_what_would_lie_is_set_right_elsewhere(environment: dict[str, str], profile: str) -> None:
    got = variables(user_facts(environment=environment), "--isolation", profile)
    changed = {"HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "HEXE_ISOLATION"}
    assert {k: v for k, v in got.items() if k not in changed} == {
        k: v for k, v in environment.items() if k not in changed
    }
    assert got["HOME"] == "/home/ada"
    assert "PWD" not in got


@given(environments, st.sampled_from(CLOSED + OPEN))
def test_an_empty_one_is_empty(environment: dict[str, str], profile: str) -> None:
    got = variables(user_facts(environment=environment), "--isolation", profile, "--clear-env", "--env", "A=b=c")
    assert got == {"A": "b=c", "HEXE_ISOLATION": profile}


@pytest.mark.parametrize("profile", CLOSED + OPEN)
def test_named_variables_pass_in_their_order(profile: str) -> None:
    facts = user_facts()
    assert variables(facts, "--isolation", profile, "--pass-env", "TOKEN")["TOKEN"] == "hunter2"
    assert "ABSENT" not in variables(facts, "--isolation", profile, "--pass-env", "ABSENT")
    assert variables(facts, "--isolation", profile, "--env", "TOKEN=1", "--pass-env", "TOKEN")["TOKEN"] == "hunter2"
    assert variables(facts, "--isolation", profile, "--pass-env", "TOKEN", "--env", "TOKEN=1")["TOKEN"] == "1"
    assert variables(facts, "--isolation", profile, "--env", "HOME=/x")["HOME"] == "/x"


@pytest.mark.parametrize("profile", CLOSED + OPEN)
def test_nobody_can_claim_another_profile(profile: str) -> None:
    words = ("--isolation", profile, "--env", "HEXE_ISOLATION=none")
    assert variables(user_facts(), *words)["HEXE_ISOLATION"] == profile


def test_a_nested_sandbox_isnt_taken_for_the_outer_one() -> None:
    facts = user_facts(environment={"HEXE_ISOLATION": "full", "PATH": "/bin"})
    assert variables(facts, "--isolation", "minimal")["HEXE_ISOLATION"] == "minimal"


@pytest.mark.parametrize(
    ("facts", "words", "user", "home"),
    [
        (root_facts(), (), "root", "/home/root"),
        (user_facts(), ("--uid", "root"), "root", "/home/ada"),
        (user_facts(), ("--uid", "77"), "77", "/home/ada"),
        (user_facts(names={"77": "eve"}), ("--uid", "77"), "eve", "/home/ada"),
        (user_facts(home="", home_real=""), (), "ada", "/home/ada"),
    ],
)
def test_user_and_home_agree_with_the_identity(facts: HostFacts, words: tuple[str, ...], user: str, home: str) -> None:
    got = variables(facts, *words)
    assert (got["USER"], got["LOGNAME"], got["HOME"]) == (user, user, home)
