"""The cache of seccomp filters: what is believed, what is passed over, and that reading it needs no import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hexe.errors import HexeError
from hexe.sandbox import filters

POISON = b"\x06\0\0\0\0\0\xff\x7f"  # return allow: all that an attacker wants


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private runtime directory; the path is where the cache of "sandbox" will lie."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", "/nonexistent/home")
    return runtime / "hexe" / filters._name("sandbox", filters._header("sandbox"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which variants were built, not read."""
    variants: list[str] = []
    real = filters._build

    def build(variant: str) -> bytes:
        variants.append(variant)
        return real(variant)

    monkeypatch.setattr(filters, "_build", build)
    return variants


def poisoned() -> bytes:
    """A file that is right in all but its program: what an attacker who can write here would leave."""
    return filters._header("sandbox") + filters._check(POISON) + POISON


def test_built_once_then_read(cache: Path, built: list[str]) -> None:
    assert not filters.is_cached("sandbox")
    first = filters.load_filter("sandbox")
    assert filters.is_cached("sandbox") and not filters.is_cached("full")
    assert filters.load_filter("sandbox") == first
    assert filters.load_filter("full") != first
    assert built == ["sandbox", "full"]
    names = {filters._name(variant, filters._header(variant)) for variant in ("full", "sandbox")}
    assert {path.name for path in cache.parent.iterdir()} == names
    assert cache.parent.stat().st_mode & 0o7777 == 0o700
    assert cache.stat().st_mode & 0o7777 == 0o600


def test_only_the_newest_few_are_kept(cache: Path) -> None:
    cache.parent.mkdir(mode=0o700)
    for number in range(40):
        old = cache.parent / f"sandbox-{number}"
        old.write_bytes(b"old")
        os.utime(old, (number, number))
    (cache.parent / "directory").mkdir()
    filters.load_filter("sandbox")
    names = {path.name for path in cache.parent.iterdir()} - {"directory"}
    assert names == {cache.name, *(f"sandbox-{number}" for number in range(40 - filters.KEPT + 1, 40))}


def test_a_poisoned_file_in_the_right_place_would_be_believed(cache: Path) -> None:
    # The control of the tests below: they fail for their own reason, not because the poison is malformed.
    filters.load_filter("sandbox")
    cache.write_bytes(poisoned())
    assert filters.load_filter("sandbox") == POISON


def _group_writable(cache: Path) -> None:
    cache.write_bytes(poisoned())
    cache.chmod(0o620)


def _writable_by_all(cache: Path) -> None:
    cache.write_bytes(poisoned())
    cache.chmod(0o602)


def _symlink(cache: Path) -> None:
    elsewhere = cache.parent.parent / "elsewhere"
    elsewhere.write_bytes(poisoned())
    cache.unlink()
    cache.symlink_to(elsewhere)


def _directory_writable(cache: Path) -> None:
    cache.write_bytes(poisoned())
    cache.parent.chmod(0o770)


def _directory_symlink(cache: Path) -> None:
    cache.write_bytes(poisoned())
    moved = cache.parent.rename(cache.parent.with_name("moved"))
    cache.parent.symlink_to(moved)


def _fifo(cache: Path) -> None:
    cache.unlink()
    os.mkfifo(cache, 0o600)


def _truncated(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[:-8])


def _truncated_within_an_instruction(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[:-3])


def _empty(cache: Path) -> None:
    cache.write_bytes(b"")


def _only_the_header(cache: Path) -> None:
    cache.write_bytes(filters._header("sandbox") + filters._check(b""))


def _one_bit(cache: Path) -> None:
    content = bytearray(cache.read_bytes())
    content[-100] ^= 1
    cache.write_bytes(content)


def _garbage(cache: Path) -> None:
    cache.write_bytes(b"garbage " * 100)


def _too_long(cache: Path) -> None:
    program = POISON * 5000
    cache.write_bytes(filters._header("sandbox") + filters._check(program) + program)


def _of_the_other_variant(cache: Path) -> None:
    cache.write_bytes(filters._header("full") + filters._check(POISON) + POISON)


@pytest.mark.parametrize(
    "spoil",
    [
        _group_writable,
        _writable_by_all,
        _symlink,
        _directory_writable,
        _directory_symlink,
        _fifo,
        _truncated,
        _truncated_within_an_instruction,
        _empty,
        _only_the_header,
        _one_bit,
        _garbage,
        _too_long,
        _of_the_other_variant,
    ],
)
def test_a_spoilt_cache_is_passed_over(spoil: Callable[[Path], None], cache: Path, built: list[str]) -> None:
    good = filters.load_filter("sandbox")
    spoil(cache)
    assert filters.load_filter("sandbox") == good
    assert built == ["sandbox", "sandbox"]


@pytest.mark.parametrize("spoil", [_symlink, _group_writable, _truncated, _garbage])
def test_a_spoilt_file_is_replaced(spoil: Callable[[Path], None], cache: Path, built: list[str]) -> None:
    good = filters.load_filter("sandbox")
    spoil(cache)
    filters.load_filter("sandbox")
    assert filters.load_filter("sandbox") == good
    assert built == ["sandbox", "sandbox"]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user can't give a file away, and neither can an attacker")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_foreign_cache_is_passed_over(what: str, cache: Path, built: list[str]) -> None:
    good = filters.load_filter("sandbox")
    cache.write_bytes(poisoned())
    os.chown(cache if what == "file" else cache.parent, 12345, 12345)
    assert filters.load_filter("sandbox") == good
    assert built == ["sandbox", "sandbox"]


@pytest.mark.parametrize("index", range(len(filters._SOURCES)))
def test_an_edited_rule_never_meets_an_old_filter(
    index: int, cache: Path, built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.py"
    source.write_text("before")
    paths = list(filters._SOURCES)
    paths[index] = str(source)
    monkeypatch.setattr(filters, "_SOURCES", tuple(paths))
    filters.load_filter("sandbox")
    os.utime(source, ns=(1, 1))
    filters.load_filter("sandbox")
    source.write_text("after!")
    os.utime(source, ns=(1, 1))
    filters.load_filter("sandbox")
    source.write_text("longer than that")
    os.utime(source, ns=(1, 1))
    filters.load_filter("sandbox")
    # The third isn't noticed: same length and a forged time. Whoever edits Hexe can do more than that.
    assert built == ["sandbox"] * 3
    assert all(Path(path).is_file() for path in paths)


def test_the_version_and_the_machine_count(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    filters.load_filter("sandbox")
    monkeypatch.setattr("hexe.__version__", "9.9")
    filters.load_filter("sandbox")
    assert built == ["sandbox", "sandbox"]
    assert os.uname().machine in filters._header("sandbox").decode().split()
    assert len(filters._header("sandbox")) % 8 == 0


def test_a_cache_that_cant_be_written_is_no_error(cache: Path, built: list[str]) -> None:
    cache.parent.write_text("a file where the directory should be")
    assert filters.load_filter("sandbox") == filters.load_filter("sandbox")
    assert built == ["sandbox", "sandbox"]


def test_a_full_disk_is_no_error_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def short(file: int, content: bytes) -> int:
        return real(file, content[:64])

    monkeypatch.setattr(os, "write", short)
    assert len(filters.load_filter("sandbox")) > 1000
    monkeypatch.undo()
    assert list(cache.parent.iterdir()) == []


def test_a_missing_library_is_said_with_its_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None if name == "seccomp" else "libc.so.6")
    monkeypatch.delitem(sys.modules, "pyseccomp", raising=False)
    with pytest.raises(HexeError, match="libseccomp is missing") as caught:
        filters.load_filter("sandbox")
    assert "apt install libseccomp2" in caught.value.hint


# --- where it lies ---


def test_the_runtime_directory_is_taken_when_it_is_private(cache: Path) -> None:
    assert filters.cache_directory() == str(cache.parent)


def test_never_in_the_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cache.parent.parent.parent) + "/")
    assert not filters.cache_directory().startswith(str(cache.parent.parent))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent))
    assert not filters.cache_directory().startswith(str(cache.parent.parent))


@pytest.mark.parametrize("runtime", ["", "relative/run", "/nonexistent/run", "/etc/passwd", "/tmp"])
def test_a_strange_runtime_directory_is_not_taken(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    user = os.geteuid()
    expected = ("/run/hexe",) if user == 0 else (f"/run/user/{user}/hexe", f"/dev/shm/hexe-{user}", "")
    assert filters.cache_directory() in expected
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(loose))
    assert filters.cache_directory() in expected


# --- what it costs ---


def test_reading_imports_nothing(cache: Path) -> None:
    filters.load_filter("sandbox")
    script = (
        "import sys, os, stat; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "from hexe.sandbox.filters import load_filter; load_filter('sandbox');"
        "print(*sorted(set(sys.modules) - before))"
    )
    source = str(Path(filters.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, source], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["__future__", "hexe", "hexe.sandbox", "hexe.sandbox.filters"]
