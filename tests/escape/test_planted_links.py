"""Links that code inside planted in a writable bind, for the next launch to follow out of its root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shooting_range import Range

pytest_plugins = ("range_fixture",)
WHO = ("root", "user")
PROFILES = ("default", "sandbox", "full")
# Name: (what is planted where, the target of the next launch's mount). {out} is a directory of the host.
PLANTS: dict[str, tuple[dict[str, str], str]] = {
    "absolute": ({"cache": "{out}"}, "cache/made/deep"),
    "the link itself is the target": ({"cache": "{out}"}, "cache"),
    "upwards": ({"cache": "../../../../../../../../..{out}"}, "cache/made/deep"),
    "old root": ({"cache": "/oldroot{out}"}, "cache/made/deep"),
    "through proc": ({"cache": "/proc/self/root{out}"}, "cache/made/deep"),
    "through init": ({"cache": "/proc/1/root{out}"}, "cache/made/deep"),
    "in the middle": ({"cache/below": "{out}"}, "cache/below/made/deep"),
    "a chain": ({"cache": "second", "second": "third", "third": "{out}"}, "cache/made/deep"),
    "dangling": ({"cache": "{out}/made"}, "cache/deep"),
    "a loop": ({"cache": "second", "second": "cache"}, "cache/made"),
}
FILES: dict[str, str] = {
    "in place of a file": "{out}/untouched",
    "in place of a file, dangling": "{out}/made",
}
# Those that a launcher which opens its mount points by plain paths follows out.
FOLLOWED = ("absolute", "in the middle", "a chain", "through proc")


@pytest.fixture
def places(request: pytest.FixtureRequest, range_of: Callable[[str], Range]) -> Iterator[tuple[Range, Path, Path]]:
    """The caller's range, a directory that is bound writable, and one of the host that no bind shows."""
    shooting = range_of(request.param)
    writable, outside = shooting.base / "planted", shooting.base / "outside"
    for path in (writable, outside):
        shooting.caller.mkdir(path)
        path.chmod(0o777)  # in the control root's stand-in must be able to do harm
    shooting.caller.write(outside / "untouched", "as it was\n")
    yield shooting, writable, outside
    shutil.rmtree(writable)
    shutil.rmtree(outside)


def plant(writable: Path, links: dict[str, str], outside: Path) -> None:
    for name, text in links.items():
        (writable / name).parent.mkdir(exist_ok=True)
        (writable / name).symlink_to(text.format(out=outside))


def state_of(directory: Path) -> list[tuple[str, int, int, str]]:
    """Everything that could be seen to change: names, modes, times, contents."""
    found = []
    for path in [directory, *sorted(directory.rglob("*"))]:
        info = path.lstat()
        content = path.read_text() if path.is_file() else ""
        found.append((str(path), info.st_mode, info.st_mtime_ns, content))
    return found


@pytest.mark.parametrize("places", WHO, indirect=True)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", PLANTS)
def test_planted_link_is_not_followed(places: tuple[Range, Path, Path], profile: str, name: str) -> None:
    """The next launch mounts inside its own root, or refuses; the host's directory stays as it is."""
    shooting, writable, outside = places
    links, target = PLANTS[name]
    plant(writable, links, outside)
    before = state_of(outside)
    options = ["--bind", str(writable), "--ro-bind", f"{shooting.facts.readonly}:{writable}/{target}"]
    status, _, err = shooting.run(profile, options, ["/bin/true"])
    assert state_of(outside) == before
    assert status in (0, 125), err
    assert (status == 125) == ("hexe: " in err), err


@pytest.mark.parametrize("places", WHO, indirect=True)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", FILES)
def test_link_in_place_of_a_file_is_not_followed(places: tuple[Range, Path, Path], profile: str, name: str) -> None:
    """A file is bound where a link lies: neither is the link's target made, nor covered, nor changed."""
    shooting, writable, outside = places
    plant(writable, {"config": FILES[name]}, outside)
    before = state_of(outside)
    options = ["--bind", str(writable), "--ro-bind", f"{shooting.facts.readonly}/kept:{writable}/config"]
    status, _, err = shooting.run(profile, options, ["/bin/true"])
    assert state_of(outside) == before
    assert status in (0, 125), err


@pytest.mark.parametrize("places", WHO, indirect=True)
@pytest.mark.parametrize("name", FOLLOWED)
def test_the_link_would_be_followed(places: tuple[Range, Path, Path], name: str) -> None:
    """Control: without the resolution inside the new root the same launch makes directories on the host."""
    shooting, writable, outside = places
    links, target = PLANTS[name]
    plant(writable, links, outside)
    before = state_of(outside)
    options = ["--bind", str(writable), "--ro-bind", f"{shooting.facts.readonly}:{writable}/{target}"]
    shooting.run("default without resolving", options, ["/bin/true"])
    assert state_of(outside) != before


@pytest.mark.parametrize("places", WHO, indirect=True)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("text", ["{out}", "../../../../../../../../..{out}", "/proc/self/root{out}"])
def test_planted_link_is_no_source(places: tuple[Range, Path, Path], profile: str, text: str) -> None:
    """A bind's source that was replaced by a link shows nothing of the host: its writable bind holds it beneath."""
    shooting, writable, outside = places
    plant(writable, {"cache": text}, outside)
    options = ["--bind", str(writable), "--bind", f"{writable}/cache:/cache"]
    status, out, err = shooting.run(profile, options, ["/bin/ls", "/cache"])
    assert status == 125, err
    assert "untouched" not in out
    assert "EXDEV" in err, err


@pytest.mark.parametrize("places", WHO, indirect=True)
def test_the_source_would_be_shown(places: tuple[Range, Path, Path]) -> None:
    """Control: the same link in a directory that no sandbox can write is followed, as the user means it."""
    shooting, writable, outside = places
    plant(writable, {"cache": "{out}"}, outside)
    status, out, err = shooting.run("full", ["--bind", f"{writable}/cache:/cache"], ["/bin/ls", "/cache"])
    assert (status, out) == (0, "untouched\n"), err


def test_every_followed_plant_exists() -> None:
    """The control's names are the table's."""
    assert set(FOLLOWED) <= set(PLANTS)
    assert os.sep not in "".join(PLANTS)
