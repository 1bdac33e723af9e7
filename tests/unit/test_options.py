"""The command line: options in any order and both spellings, all before the command only, and the Policy they make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import anything, command_lines

from hexe.cli.options import EXPLAIN_OPTIONS, RUN_OPTIONS, Parsed, build_policy, help_text, parse
from hexe.errors import UsageError
from hexe.policy.model import Mount, Policy
from hexe.policy.profiles import PROFILES

WITH_VALUE = [option.name for option in RUN_OPTIONS if option.value]
SWITCHES = [option.name for option in RUN_OPTIONS if not option.value]


def run_options(*words: str) -> Parsed:
    return parse(list(words), RUN_OPTIONS, "run")


def policy(*words: str) -> Policy:
    return build_policy(run_options(*words), "/home/ada/work", "/home/ada")


given_options = st.lists(
    st.tuples(st.sampled_from(WITH_VALUE), anything) | st.tuples(st.sampled_from(SWITCHES), st.just("")), max_size=6
)


@given(given_options, st.lists(anything, max_size=4), st.data())
def test_both_spellings_come_back_and_the_command_is_left_alone(
    options: list[tuple[str, str]], command: list[str], data: st.DataObject
) -> None:
    words: list[str] = []
    for name, value in options:
        if name in SWITCHES:
            words.append(name)
        elif data.draw(st.booleans()):
            words.append(f"{name}={value}")
        else:
            words += [name, value]
    assert run_options(*words, "--", *command) == Parsed(tuple(options), tuple(command))


@given(st.lists(anything, max_size=5))
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    try:
        build_policy(run_options(*words), "/", "/home/ada")
    except UsageError as error:
        assert error.message


@given(command_lines)
def test_options_make_a_policy_or_are_refused(words: list[str]) -> None:
    try:
        made = policy(*words)
    except UsageError as error:
        assert error.message and error.hint
    else:
        assert made.profile == words[1]


def test_the_first_word_begins_the_command() -> None:
    parsed = run_options("--verbose", "ls", "--tty", "--", "--isolation=none")
    assert parsed.command == ("ls", "--tty", "--", "--isolation=none")
    assert parsed.has("--verbose") and not parsed.has("--tty")
    assert run_options("-").command == ("-",)
    assert run_options("--", "--").command == ("--",)
    assert run_options("--env", "--", "x").given == (("--env", "--"),)


def test_the_default_profile_is_sandbox() -> None:
    assert policy() == PROFILES["sandbox"]
    assert policy("--verbose", "--report", "-").profile == "sandbox"


@pytest.mark.parametrize("profile", PROFILES)
def test_both_ways_to_name_a_profile(profile: str) -> None:
    assert policy(f"--isolation={profile}") == policy("--isolation", profile) == PROFILES[profile]


def test_later_ones_win() -> None:
    assert policy("--isolation", "none", "--isolation", "full").profile == "full"
    assert policy("--home", "ro", "--home", "private").home == "private"
    assert policy("--tty", "--no-tty").tty == "no"
    assert policy("--timeout", "3", "--timeout", "2m").timeout == 120


def test_every_option_has_its_effect() -> None:
    made = policy(
        *("--bind", "x:/x", "--tmpfs", "/t", "--ro-bind=~/y", "--env", "A=1=2", "--pass-env", "B", "--clear-env"),
        *("--cwd", "sub", "--home", "ro", "--hostname", "h", "--uid", "root", "--gid", "5", "--timeout", "1s", "--tty"),
    )
    assert made == PROFILES["sandbox"].replace(
        mounts=(
            Mount("bind", "/home/ada/work/x", "/x"),
            Mount("tmpfs", "", "/t"),
            Mount("ro-bind", "/home/ada/y", "/home/ada/y"),
        ),
        set_env=(("A", "1=2"), ("B", None)),
        clear_env=True,
        cwd="/home/ada/work/sub",
        home="ro",
        hostname="h",
        identity="root",
        group="5",
        timeout=1.0,
        tty="yes",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--isolatoin", "full"], "did you mean '--isolation'"),
        (["-x"], "unknown option -x"),
        (["--isolation", "ful"], "did you mean 'full'"),
        (["--isolation", ""], "unknown profile ''"),
        (["--isolation=FULL"], "did you mean 'full'"),
        (["--bind"], "--bind needs a value"),
        (["--tty=yes"], "--tty takes no value"),
        (["--home", "rx"], "--home: 'rx' is none of rw, ro, private"),
        (["--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        (["--report", ""], "--report"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        policy(*words)
    assert message in refusal.value.message
    assert refusal.value.exit_code == 125


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as refusal:
        policy("--isolation", "strongest")
    for name in PROFILES:
        assert name in refusal.value.hint


def test_help_names_every_option() -> None:
    text = help_text("explain", "USAGE", "ABOUT", EXPLAIN_OPTIONS)
    for option in EXPLAIN_OPTIONS:
        assert option.name in text and option.help in text
    assert max(map(len, text.splitlines())) <= 120
