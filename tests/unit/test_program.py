"""Lowering plans to programs, and the runner on harmless ones: files and directories of a temporary directory."""

from __future__ import annotations

import ctypes
import os
import re
from errno import EBADF, EEXIST, ENOENT
from pathlib import Path

import pytest
from factories import plan_of, policy_of, root_facts, user_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import command_lines, hosts, with_sources

from hexe.errors import Unsatisfiable, UsageError
from hexe.linux import constants as c
from hexe.linux.syscalls import NUMBERS, address_of
from hexe.policy.host import HostFacts, Stream
from hexe.sandbox.explain import step_as_text
from hexe.sandbox.program import STAGES, Builder, Program, Ptr, Step, Val, lower
from hexe.sandbox.runner import prepare, run

PARAMETERS = {"child_proc"}
"""Slots that spawn sets before the stage runs."""
TTYS = (Stream("tty"), Stream("tty"), Stream("tty"))


# -- what lower makes of plans


@settings(deadline=None)
@given(command_lines, hosts(), st.data())
def test_every_lowered_plan_is_well_formed(words: list[str], facts: HostFacts, data: st.DataObject) -> None:
    try:
        facts = data.draw(with_sources(facts, policy_of(facts, *words)))
        plan = plan_of(facts, *words)
    except (UsageError, Unsatisfiable):
        return
    program = lower(plan)
    again = lower(plan)
    assert program.data == again.data and program.relocations == again.relocations
    well_formed(program)
    for stage in STAGES:
        steps = program.stages[stage]
        # Every operation does something, in the order of the plan.
        assert sorted({step.operation for step in steps}) == list(range(len(plan.stage(stage))))
        assert [step.operation for step in steps] == sorted(step.operation for step in steps)


@pytest.mark.parametrize("facts", [user_facts(streams=TTYS), root_facts(streams=TTYS)], ids=["user", "root"])
def test_the_fullest_plan_is_well_formed(facts: HostFacts) -> None:
    well_formed(lower(plan_of(facts, "--isolation", "full", "--tmpfs", "/a/b", "--ro-bind", "/usr:/a/b/c/d", "--tty")))


def well_formed(program: Program) -> None:
    size = len(program.data)
    names = {at: name for name, at in program.slots.items()}
    assert len(names) == len(program.slots), "two names for one slot"
    fields = {at for places in program.fields.values() for at in places}
    # A descriptor of an earlier stage is still there: the child is a copy of the caller.
    stored = {program.slots[name] for name in PARAMETERS if name in program.slots}
    for stage in STAGES:
        for step in program.stages[stage]:
            text = step_as_text(program, step)
            assert len(step.args) <= 6, text
            assert step.number == NUMBERS[step.name]
            for value in step.args:
                assert type(value) in (int, Ptr, Val)
                if isinstance(value, Ptr):
                    assert 0 <= value < size, text
                elif isinstance(value, Val):
                    assert int(value) in names and int(value) in stored, f"{text} uses what nothing has stored"
                else:
                    assert -(2**63) <= value < 2**64
            for position in STRINGS.get(step.name, ()):
                value = step.args[position]
                if isinstance(value, Ptr):
                    assert 0 in program.data[value:], f"{text}: a string without an end"
            if step.name == "close":
                stored.discard(int(step.args[0]))
            if step.out >= 0:
                assert 0 <= step.out <= size - 4, text
                stored.add(step.out)
    for at, target in program.relocations:
        assert 0 <= at <= size - 8 and at % 8 == 0 and 0 <= target < size
    assert all(0 <= at <= size - 4 for at in fields)


# Written again from the manual pages, apart from what explain knows.
STRINGS = {
    "openat": (1,), "openat2": (1,), "open_tree": (1,), "mkdirat": (1,), "mknodat": (1,), "symlinkat": (0, 2),
    "move_mount": (1, 3), "mount_setattr": (1,), "mount": (1,), "fsopen": (0,), "pivot_root": (0, 1),
    "umount2": (0,), "chdir": (0,),
}  # fmt: skip


def test_a_plan_with_nothing_to_do_still_has_a_buffer() -> None:
    program = lower(plan_of(user_facts(), "--isolation", "none"))
    assert program.data
    assert address_of(prepare(program))


# -- the builder


def build() -> tuple[Builder, list[Step]]:
    builder = Builder()
    builder.lower("outer", ())
    return builder, builder.program.stages["outer"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=10))
def test_strings_are_whole_and_shared(texts: list[str]) -> None:
    builder, _ = build()
    pointers = [builder.text(text) for text in texts]
    data = builder.program.data
    for text, pointer in zip(texts, pointers, strict=True):
        assert data[pointer : data.index(0, pointer)].decode() == text
        assert builder.text(text) == pointer


def test_a_path_that_is_no_unicode_is_passed_as_it_is() -> None:
    builder, _ = build()
    pointer = builder.text(os.fsdecode(b"/srv/\xff"))
    assert builder.program.data[pointer:].startswith(b"/srv/\xff\0")


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_structures_are_aligned(values: list[bytes]) -> None:
    builder, _ = build()
    pointers = [builder.struct(value) for value in values]
    for value, pointer in zip(values, pointers, strict=True):
        assert pointer % 8 == 0
        assert builder.program.data[pointer : pointer + len(value)] == value


def test_parameters_are_set_wherever_they_are_used() -> None:
    builder, _ = build()
    slot, structure = builder.slot("p"), builder.struct(bytes(16))
    builder.name_field("p", int(structure) + 8)
    program = builder.program
    buffer = prepare(program)
    assert program.value(buffer, "p") == -1
    program.set(buffer, "p", 77)
    assert program.value(buffer, "p") == 77
    assert buffer[slot : slot + 4] == buffer[structure + 8 : structure + 12] == (77).to_bytes(4, "little")
    assert program.value(buffer, "unheard of") == -1
    assert program.data[slot : slot + 4] == b"\xff\xff\xff\xff", "the program itself is not changed"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_relocations_become_addresses(targets: list[int]) -> None:
    builder, _ = build()
    strings = [builder.text(f"string {number}") for number in range(6)]
    places = [builder.struct(bytes(8)) for _ in targets]
    for place, target in zip(places, targets, strict=True):
        builder.relocate(int(place), strings[target])
    buffer = prepare(builder.program)
    for place, target in zip(places, targets, strict=True):
        address = int.from_bytes(buffer[place : place + 8], "little")
        assert address == address_of(buffer) + strings[target]
        assert ctypes.string_at(address) == f"string {target}".encode()


# -- the runner


def write_file(builder: Builder, path: Path, content: str, slot: str) -> None:
    fd = builder.slot(slot)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | c.O_CLOEXEC
    builder.call("openat", c.AT_FDCWD, builder.text(str(path)), flags, 0o600, out=fd, about=str(path))
    builder.call("write", fd, builder.text(content), len(content.encode()))
    builder.call("close", fd)


def test_results_are_stored_and_used(tmp_path: Path) -> None:
    builder, steps = build()
    write_file(builder, tmp_path / "a", "one ä", "first")
    write_file(builder, tmp_path / "b", "two", "second")
    buffer = prepare(builder.program)
    assert run(steps, buffer) is None
    assert (tmp_path / "a").read_text() == "one ä"
    assert (tmp_path / "b").read_text() == "two"
    fd = builder.program.value(buffer, "first")
    assert fd > 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_it_stops_at_the_first_failure_and_says_which(tmp_path: Path) -> None:
    builder, steps = build()
    for name in ("a", "missing/b", "c"):
        builder.call("mkdirat", c.AT_FDCWD, builder.text(str(tmp_path / name)), 0o755)
    assert run(steps, prepare(builder.program)) == (1, ENOENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(("tolerated", "result"), [((), (1, EEXIST)), ((ENOENT,), (1, EEXIST)), ((EEXIST,), None)])
def test_what_is_tolerated_is_no_failure(
    tmp_path: Path, tolerated: tuple[int, ...], result: tuple[int, int] | None
) -> None:
    builder, steps = build()
    for name in ("a", "a", "b"):
        builder.call("mkdirat", c.AT_FDCWD, builder.text(str(tmp_path / name)), 0o755, tolerate=tolerated)
    assert run(steps, prepare(builder.program)) == result
    assert (tmp_path / "b").exists() == (result is None)


def test_a_tolerated_failure_stores_nothing(tmp_path: Path) -> None:
    builder, steps = build()
    fd = builder.slot("fd")
    path = builder.text(str(tmp_path / "none"))
    builder.call("openat", c.AT_FDCWD, path, os.O_RDONLY, 0, out=fd, tolerate=(ENOENT,))
    builder.call("close", fd)
    buffer = prepare(builder.program)
    # What nothing has stored is -1, which is no descriptor of anything.
    assert run(steps, buffer) == (1, EBADF)
    assert builder.program.value(buffer, "fd") == -1


def test_a_result_can_go_into_a_structure(tmp_path: Path) -> None:
    builder, steps = build()
    structure = builder.struct(b"\xaa" * 16)
    path = builder.text(str(tmp_path))
    builder.call("openat", c.AT_FDCWD, path, os.O_RDONLY | c.O_CLOEXEC, 0, out=int(structure) + 8)
    buffer = prepare(builder.program)
    assert run(steps, buffer) is None
    fd = int.from_bytes(buffer[structure + 8 : structure + 12], "little")
    assert os.fstat(fd).st_ino == tmp_path.stat().st_ino
    assert buffer[structure : structure + 8] == b"\xaa" * 8 == buffer[structure + 12 : structure + 16] + b"\xaa" * 4
    os.close(fd)


def test_a_parameter_is_used_like_a_result(tmp_path: Path) -> None:
    builder, steps = build()
    builder.call("mkdirat", builder.slot("directory"), builder.text("inside"), 0o755)
    buffer = prepare(builder.program)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        builder.program.set(buffer, "directory", directory)
        assert run(steps, buffer) is None
    finally:
        os.close(directory)
    assert (tmp_path / "inside").is_dir()


def test_a_structure_is_read_by_the_kernel(tmp_path: Path) -> None:
    builder, steps = build()
    (tmp_path / "link").symlink_to("/")
    how = builder.struct(os.O_RDONLY.to_bytes(8, "little") + bytes(8) + c.RESOLVE_BENEATH.to_bytes(8, "little"))
    directory, fd = builder.slot("directory"), builder.slot("fd")
    builder.call("openat", c.AT_FDCWD, builder.text(str(tmp_path)), os.O_RDONLY | os.O_CLOEXEC, 0, out=directory)
    builder.call("openat2", directory, builder.text("link"), how, 24, out=fd)
    buffer = prepare(builder.program)
    failed = run(steps, buffer)
    os.close(builder.program.value(buffer, "directory"))
    assert failed is not None and failed[0] == 1  # EXDEV: the link leads out


def test_a_program_can_be_run_twice(tmp_path: Path) -> None:
    builder, steps = build()
    builder.call("mkdirat", c.AT_FDCWD, builder.text(str(tmp_path / "a")), 0o755, tolerate=(EEXIST,))
    assert run(steps, prepare(builder.program)) is None
    assert run(steps, prepare(builder.program)) is None


def test_nothing_to_do_is_done() -> None:
    assert run([], bytearray(8)) is None


def test_steps_are_shown_as_strace_would(tmp_path: Path) -> None:
    builder, steps = build()
    write_file(builder, Path("/tmp/x"), "line\n", "file")
    builder.call("mkdirat", builder.slot("file"), builder.text("d"), 0o755, tolerate=(EEXIST,))
    shown = [step_as_text(builder.program, step) for step in steps]
    assert shown[0].startswith('openat(-100, "/tmp/x", 0x') and shown[0].endswith(", 384) -> $file")
    assert shown[1:] == ['write($file, "line\\n", 5)', "close($file)", 'mkdirat($file, "d", 493) or EEXIST']
    assert all(re.fullmatch(r"\w+\(.*\)( -> .+)?( or .+)?", text) for text in shown)
