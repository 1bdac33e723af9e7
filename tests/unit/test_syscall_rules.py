"""The seccomp policy as data, and the BPF program made of it, run in a small BPF machine.

No privilege is needed: nothing is installed. The machine below runs the very bytes that the
kernel would get, for every system call of both machines and their 32-bit siblings.
"""

from __future__ import annotations

import errno
import struct
from functools import cache

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexe.errors import HexeError
from hexe.linux import seccomp
from hexe.policy import syscall_rules
from hexe.policy.syscall_rules import ALLOWED, DEBUGGING, REFUSED, VARIANTS, rules
from hexe.sandbox import filters

ARCHES = {
    "x86_64": pyseccomp.Arch.X86_64,
    "x86": pyseccomp.Arch.X86,
    "aarch64": pyseccomp.Arch.AARCH64,
    "arm": pyseccomp.Arch.ARM,
}
MACHINE_OF = {"x86_64": "x86_64", "x86": "x86_64", "aarch64": "aarch64", "arm": "aarch64"}
ARM_PRIVATE = range(0xF0000, 0xF0008)
NUMBERS = (*range(700), *ARM_PRIVATE)

# Known to newer kernels than some libseccomp in use: there they stay ENOSYS until it is upgraded.
NEWER = {
    *("cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue"),
    *("statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal"),
    *("setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr", "file_getattr", "file_setattr"),
    *("listns", "uretprobe", "uprobe"),
}


@cache
def names(arch: str) -> dict[int, str]:
    """What this libseccomp calls each number of the architecture."""
    found = {}
    for number in NUMBERS:
        try:
            found[number] = pyseccomp.resolve_syscall(ARCHES[arch], number).decode()
        except ValueError:
            continue
    return found


@cache
def numbers(arch: str) -> dict[str, int]:
    return {name: number for number, name in names(arch).items()}


@cache
def program(variant: str, machine: str) -> tuple[tuple[int, int, int, int], ...]:
    decided = rules(variant)
    decisions = dict.fromkeys(decided.allowed, 0) | {item.name: item.errno for item in decided.refused}
    specials = [
        (item.syscall, answer, tuple((c.argument, c.mask, c.value) for c in item.where))
        for answer, group in ((0, decided.allowed_where), (errno.EPERM, decided.refused_where))
        for item in group
    ]
    return tuple(struct.iter_unpack("<HBBI", seccomp.compile_filter(decisions, specials, machine)))


def answer(variant: str, arch: str, number: int, *args: int) -> int:
    """Run the program as the kernel's BPF machine would. 0 for allowed, else the errno."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    if arch in ("x86", "arm"):
        padded = [value & 0xFFFF_FFFF for value in padded]  # the registers of a 32-bit program
    data = struct.pack("<IIQ6Q", number & 0xFFFF_FFFF, ARCHES[arch], 0, *(v & (2**64 - 1) for v in padded))
    code = program(variant, MACHINE_OF[arch])
    accumulator, at = 0, 0
    tests = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__, 0x45: int.__and__}
    while True:
        op, jump_true, jump_false, k = code[at]
        at += 1
        if op == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        elif op in tests:
            at += jump_true if tests[op](accumulator, k) else jump_false
        elif op == 0x06:
            assert k == 0x7FFF_0000 or k >> 16 == 5, hex(k)
            return 0 if k == 0x7FFF_0000 else k & 0xFFFF
        else:
            raise AssertionError(f"an instruction that libseccomp didn't use before: {op:#x}")


def by_policy(variant: str, arch: str, name: str, *args: int) -> int:
    """What the data says, worked out without any BPF."""
    decided = rules(variant)
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    width = 0xFFFF_FFFF if arch in ("x86", "arm") else 2**64 - 1
    for result, group in ((0, decided.allowed_where), (errno.EPERM, decided.refused_where)):
        for item in group:
            if item.syscall == name and all(
                padded[c.argument] & width & c.mask == c.value & width & c.mask for c in item.where
            ):
                return result
    if name in decided.allowed:
        return 0
    return next(item.errno for item in decided.refused if item.name == name)


# --- the data ---


def all_decided() -> list[str]:
    grouped = [name for group in (*ALLOWED, DEBUGGING) for name in group.names]
    return grouped + [item.name for item in REFUSED]


def test_each_name_is_decided_once() -> None:
    decided = all_decided()
    assert sorted(decided) == sorted(set(decided))


@pytest.mark.parametrize("arch", ARCHES)
def test_no_known_call_is_left_to_the_default(arch: str) -> None:
    assert set(names(arch).values()) - set(all_decided()) == set()
    assert len(names(arch)) > 300


def test_no_name_is_misspelt() -> None:
    known = {name for arch in ARCHES for name in names(arch).values()}
    assert set(all_decided()) - known - NEWER == set()


def test_every_decision_has_a_reason() -> None:
    specials = (
        *syscall_rules.ALLOWED_WHERE,
        *syscall_rules.ALLOWED_WHERE_DEBUGGING,
        *syscall_rules.REFUSED_WHERE,
    )
    assert all(group.reason and group.subject for group in (*ALLOWED, DEBUGGING))
    assert all(item.reason and item.errno in (errno.EPERM, errno.ENOSYS) for item in REFUSED)
    assert all(item.reason and item.where for item in specials)


@pytest.mark.parametrize("variant", VARIANTS)
def test_special_cases_turn_the_decision_round(variant: str) -> None:
    decided = rules(variant)
    refused = {item.name for item in decided.refused}
    assert {item.syscall for item in decided.allowed_where} <= refused
    assert {item.syscall for item in decided.refused_where} <= set(decided.allowed)


def test_full_is_stricter_than_sandbox() -> None:
    sandbox, full = rules("sandbox"), rules("full")
    assert set(sandbox.allowed) - set(full.allowed) == set(DEBUGGING.names)
    assert set(full.allowed) < set(sandbox.allowed)
    assert set(full.allowed_where) < set(sandbox.allowed_where)
    assert full.refused_where == sandbox.refused_where


def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="unknown filter 'none'"):
        rules("none")
    with pytest.raises(ValueError, match="unknown filter"):
        filters.load_filter("../sandbox")


# --- the compiled program ---


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("arch", ARCHES)
def test_program_says_what_the_data_says(arch: str, variant: str) -> None:
    wrong = {}
    for number in NUMBERS:
        name = names(arch).get(number)
        expected = by_policy(variant, arch, name) if name else errno.ENOSYS
        if answer(variant, arch, number) != expected:
            wrong[name or number] = answer(variant, arch, number)
    assert wrong == {}


EDGES = (
    *(0, 1, 2, 3, 5, 8, 10, 16, 17, 40, 0x5412, 0x541C, 0x541D, 0x5423, 0x5401, 0x20000, 0x20008, 0x40000, 0x400000),
    *(0xFFFF_FFFF, 2**64 - 1, 0x1000_0000, 0x7E02_0080, 0x600, 0x0080_0002, 0x0008_0001),
)
high = st.sampled_from((0, 0, 1 << 32, 1 << 63, 0xFFFF_FFFF << 32))
argument = st.builds(int.__or__, st.sampled_from(EDGES) | st.integers(0, 2**32 - 1), high)
special_names = sorted(
    {item.syscall for item in (*syscall_rules.ALLOWED_WHERE, *syscall_rules.REFUSED_WHERE)} | {"socketcall"}
)


@given(
    variant=st.sampled_from(VARIANTS),
    arch=st.sampled_from(sorted(ARCHES)),
    name=st.sampled_from(special_names),
    args=st.tuples(argument, argument, argument),
)
def test_arguments_are_judged_as_the_data_says(variant: str, arch: str, name: str, args: tuple[int, int, int]) -> None:
    if name in numbers(arch):
        assert answer(variant, arch, numbers(arch)[name], *args) == by_policy(variant, arch, name, *args)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("above", [0, 1 << 32, 0xFFFF_FFFF << 32])
def test_high_halves_hide_nothing(arch: str, above: int) -> None:
    of = numbers(arch)
    for request in (0x5412, 0x541C, 0x541D, 0x5423):
        assert answer("sandbox", arch, of["ioctl"], 0, above | request) == errno.EPERM
    assert answer("sandbox", arch, of["ioctl"], 0, above | 0x5401) == 0
    assert answer("sandbox", arch, of["clone"], above | 0x1000_0011) == errno.EPERM
    assert answer("sandbox", arch, of["clone"], above | 0x0120_0011) == 0
    assert answer("sandbox", arch, of["unshare"], above | 0x1000_0000) == errno.EPERM
    assert answer("sandbox", arch, of["socket"], above | 40, 1, 0) == errno.EPERM
    assert answer("sandbox", arch, of["socket"], above | 1, 1, 0) == 0
    assert answer("sandbox", arch, of["socket"], above | 2, 10, 0) == errno.EPERM  # becomes AF_PACKET
    assert answer("sandbox", arch, of["socket"], above | 16, 3, above | 4) == errno.EPERM
    assert answer("sandbox", arch, of["personality"], above | 0x40_0000) == errno.EPERM


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_unshare_takes_no_flag_that_it_does_not_know(arch: str) -> None:
    assert answer("sandbox", arch, numbers(arch)["unshare"], 0x600) == 0  # CLONE_FS, CLONE_FILES
    for bit in set(range(64)) - {8, 9, 10, 11, 16, 18}:
        assert answer("sandbox", arch, numbers(arch)["unshare"], 1 << bit) == errno.EPERM


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_second_door_of_i386_is_closed(variant: str) -> None:
    for call in range(21):
        assert answer(variant, "x86", numbers("x86")["socketcall"], call, 1) == errno.ENOSYS
        assert answer(variant, "x86", numbers("x86")["ipc"], call) == 0


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_call_makes_a_set_user_id_file(variant: str, arch: str) -> None:
    create, tmpfile, text, mode = 0o100, 0o20000000, 0x7000_0000, 0o4755
    calls = {
        "chmod": (text, mode), "fchmod": (3, mode), "fchmodat": (3, text, mode), "fchmodat2": (3, text, mode, 0),
        "creat": (text, mode), "mknod": (text, 0o100000 | mode), "mknodat": (3, text, 0o100000 | mode),
        "open": (text, create | 1, mode), "openat": (3, text, tmpfile | 1, mode),
    }  # fmt: skip
    for name, args in calls.items():
        if name in numbers(arch):
            number = numbers(arch)[name]
            assert answer(variant, arch, number, *args) == errno.EPERM, name
            assert answer(variant, arch, number, *(arg - 0o4000 if arg & 0o4000 else arg for arg in args)) == 0, name
    assert answer(variant, arch, numbers(arch)["openat"], 3, text, 0, 0xFFFF_FFFF) == 0, "without O_CREAT: no mode"
    assert answer(variant, arch, numbers(arch)["openat2"], 3, text, text, 24) == errno.ENOSYS


@pytest.mark.parametrize("variant", VARIANTS)
def test_x32_is_refused(variant: str) -> None:
    for number in range(700):
        assert answer(variant, "x86_64", 0x4000_0000 | number) == errno.EPERM
    assert answer(variant, "x86_64", 0xFFFF_FFFF) == errno.ENOSYS


def test_unknown_machine() -> None:
    with pytest.raises(HexeError, match="no seccomp filter for the machine 'vax'"):
        seccomp.compile_filter({}, (), "vax")


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyseccomp", None)
    with pytest.raises(HexeError, match="pyseccomp is missing") as caught:
        seccomp.compile_filter({"read": 0}, (), "x86_64")
    assert caught.value.hint == "pip install pyseccomp"
