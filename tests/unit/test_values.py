"""The parsers of what people type: good values come back, bad ones are refused with an example."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import anything, paths

from hexe.errors import UsageError
from hexe.policy import values
from hexe.policy.model import Mount, normalize
from hexe.policy.suggest import did_you_mean

CWD, HOME = "/home/ada/work", "/home/ada"

PARSERS: dict[str, Callable[[str, str], object]] = {
    "--timeout": values.parse_duration,
    "--uid": values.parse_id,
    "--hostname": values.parse_hostname,
    "--pass-env": values.parse_env_name,
    "--env": values.parse_env,
    "--tmpfs": lambda option, value: values.parse_target(option, value, HOME),
    "--bind": lambda option, value: values.parse_bind(option, value, CWD, HOME),
    "--cwd": lambda option, value: values.parse_directory(option, value, CWD, HOME),
    "--home": lambda option, value: values.parse_choice(option, value, ("rw", "ro", "private")),
}


@pytest.mark.parametrize("option", PARSERS)
@given(value=anything | st.text("0123456789.smhd-:/~\\=\0 ", max_size=20))
def test_any_text_is_parsed_or_refused_with_help(option: str, value: str) -> None:
    try:
        PARSERS[option](option, value)
    except UsageError as error:
        assert option in error.message
        assert "for example" in error.hint or "rw, ro, private" in error.message
        example = error.hint.rpartition("for example ")[2].removeprefix(option).strip()
        if example:
            PARSERS[option](option, example)  # the example is a good one


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5), ("1d", 86400), (".5", 0.5), (" 3s ", 3)],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.parse_duration("--timeout", text) == seconds


@given(st.integers(1, 365 * 86400 * 1000))
def test_every_duration_of_whole_milliseconds_comes_back(milliseconds: int) -> None:
    assert values.parse_duration("--timeout", f"{milliseconds}ms") == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1", "1e3", "inf", "nan", "5.", ".", "s", "1 s", "1ss", "0.1ms", "366d", "٣", "1_0", "0x1"]
)
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_duration("--timeout", text)


@given(st.integers(0, 2**32 - 2))
def test_every_id_comes_back(number: int) -> None:
    assert values.parse_id("--uid", str(number)) == str(number)


@pytest.mark.parametrize("text", ["", "-1", "4294967295", "99999999999", "1.0", "Root", "²", "caller", "nobody"])
def test_bad_ids(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_id("--uid", text)


def test_words_for_ids() -> None:
    assert values.parse_id("--uid", "keep") == "caller"
    assert values.parse_id("--uid", "root") == "root"
    assert values.parse_id("--uid", "007") == "7"


@given(st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?", fullmatch=True))
def test_every_hostname_comes_back(name: str) -> None:
    assert values.parse_hostname("--hostname", name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", ".a", "a.", "a" * 65, "a b", "ä", "a_b", "a\n", "a/b", "a\0b"])
def test_bad_hostnames(name: str) -> None:
    with pytest.raises(UsageError):
        values.parse_hostname("--hostname", name)


names_of_variables = anything.filter(lambda name: name and "=" not in name and "\0" not in name)


@given(names_of_variables, anything.filter(lambda text: "\0" not in text))
def test_every_variable_comes_back(name: str, content: str) -> None:
    assert values.parse_env("--env", f"{name}={content}") == (name, content)
    assert values.parse_env_name("--pass-env", name) == name


@pytest.mark.parametrize("text", ["", "A", "=1", "A=\0"])
def test_bad_variables(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_env("--env", text)


# -- paths


@given(anything)
def test_normalize_is_what_the_standard_library_says(text: str) -> None:
    path = normalize("/" + text)
    assert path == posixpath.normpath("/" + text.lstrip("/"))
    assert normalize(path) == path
    assert path.startswith("/") and (path == "/" or not path.endswith("/"))
    assert not {"", ".", ".."} & set(path[1:].split("/")) or path == "/"


@given(anything)
def test_absolute(text: str) -> None:
    path = values.absolute(text, CWD, HOME)
    if text == "~" or text.startswith("~/"):
        assert path == os.path.normpath(HOME + text[1:])
    elif text.startswith("/"):
        assert path == normalize(text)
    else:
        assert path == posixpath.normpath(posixpath.join(CWD, text))


def escaped(path: str) -> str:
    return path.replace(":", "\\:")


path_with_colons = st.text(st.sampled_from("ab:. ~é"), min_size=1).map(lambda text: normalize("/srv/" + text))


@given(path_with_colons, path_with_colons, st.sampled_from(["--bind", "--ro-bind"]))
def test_every_bind_comes_back(source: str, target: str, option: str) -> None:
    if target == "/":
        target = "/srv"
    text = f"{escaped(source)}:{escaped(target)}"
    assert values.parse_bind(option, text, CWD, HOME) == Mount(option[2:], source, target)
    if source != "/":
        assert values.parse_bind(option, escaped(source), CWD, HOME) == Mount(option[2:], source, source)


@pytest.mark.parametrize(
    ("text", "source", "target"),
    [
        (".", CWD, CWD),
        ("..", HOME, HOME),
        ("~", HOME, HOME),
        ("~/x:/y", "/home/ada/x", "/y"),
        ("data:~/data/", "/home/ada/work/data", "/home/ada/data"),
        ("/:/host", "/", "/host"),
        ("//a/../b/:/c//d/.", "/b", "/c/d"),
    ],
)
def test_binds(text: str, source: str, target: str) -> None:
    assert values.parse_bind("--bind", text, CWD, HOME) == Mount("bind", source, target)


@pytest.mark.parametrize("text", ["", ":", "a:", ":/a", "/a:/b:/c", "/a:b", "/a\0", "/", "/a:/", "/a:/b/.."])
def test_bad_binds(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_bind("--bind", text, CWD, HOME)


@given(paths, st.sampled_from(["/proc", "/dev"]))
def test_nothing_replaces_what_the_sandbox_keeps_fresh(path: str, kept: str) -> None:
    for target in (kept, kept + path, f"/x/..{kept}/", f"/{kept}//{path}"):
        with pytest.raises(UsageError, match=kept):
            values.parse_target("--tmpfs", target, HOME)
    assert values.parse_target("--tmpfs", f"{kept}x{path}", HOME) == f"{kept}x{path}"


def test_a_target_is_no_longer_than_a_path() -> None:
    longest = "/é" * (4095 // 3)
    assert values.parse_target("--tmpfs", longest, HOME) == longest
    with pytest.raises(UsageError, match="longer than any path"):
        values.parse_target("--tmpfs", longest + "/x", HOME)


def test_a_guess_is_near_or_missing() -> None:
    assert did_you_mean("ful", ("full", "none")) == "; did you mean 'full'?"
    assert did_you_mean("FULL", ("full", "none")) == "; did you mean 'full'?"
    assert did_you_mean("xyzzy", ("full", "none")) == ""
