"""Landlock's rules say what the mounts say: a model of both, asked about the same paths."""

from __future__ import annotations

from functools import reduce
from operator import or_

import pytest
from factories import plan_of, policy_of, user_facts
from hypothesis import given
from hypothesis import strategies as st
from test_filesystem_plan import WORLD, Placed, mounts_in_any_order, top

from hexe.linux import constants as c
from hexe.policy.host import Stream
from hexe.sandbox.check import WRITES
from hexe.sandbox.file_rules import FILE_ONLY, handled_rights, restrict_files
from hexe.sandbox.filesystem import covers, order
from hexe.sandbox.mount_operations import BindMount
from hexe.sandbox.operations import RestrictFiles

PASSED = ("pass", "pass", "pass")


def rights_at(rules: RestrictFiles, path: str) -> int:
    """What Landlock grants at a path: the rules at it and above it add up."""
    return reduce(or_, (rule.rights for rule in rules.rules if rule.path and covers(rule.path, path)), 0)


def is_writable(mount: Placed | None) -> bool:
    return mount is not None and mount.writable


@given(mounts_in_any_order, st.integers(2, 7))
def test_writing_is_granted_where_the_mounts_allow_it_and_nowhere_else(mounts: list[Placed], abi: int) -> None:
    placed = order(mounts)
    facts = user_facts(landlock_abi=abi)
    rules = restrict_files(policy_of(facts), facts, placed, PASSED)
    for path in WORLD:
        rights = rights_at(rules, path)
        seen = top(placed, path)
        assert rights & c.LL_EXECUTE and rights & c.LL_READ_FILE and rights & c.LL_READ_DIR
        if is_writable(seen):
            assert rights & WRITES == rules.handled & WRITES & ~(c.LL_MAKE_CHAR | c.LL_MAKE_BLOCK)
        elif not any(is_writable(mount) and covers(mount.target, path) for mount in placed):
            assert not rights & WRITES


@given(mounts_in_any_order, st.integers(2, 7))
def test_every_rule_is_one_that_the_kernel_takes(mounts: list[Placed], abi: int) -> None:
    facts = user_facts(landlock_abi=abi, streams=(Stream("file", True, False), Stream("tty"), Stream("fifo", False)))
    placed = [
        mount.replace(is_directory=False) if isinstance(mount, BindMount) and index % 2 else mount
        for index, mount in enumerate(order(mounts))
    ]
    rules = restrict_files(policy_of(facts), facts, placed, ("pass", "write-only", "pass"))
    files = {mount.target for mount in placed if isinstance(mount, BindMount) and not mount.is_directory}
    for rule in rules.rules:
        assert rule.rights and not rule.rights & ~rules.handled
        assert (rule.fd >= 0) != bool(rule.path)
        if rule.path in files or rule.fd >= 0:
            assert not rule.rights & ~FILE_ONLY


@pytest.mark.parametrize(("abi", "bits"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (7, 16)])
def test_rights_by_abi(abi: int, bits: int) -> None:
    assert handled_rights(abi) == (1 << bits) - 1


def landlock_of(abi: int, *words: str) -> tuple[RestrictFiles | None, str]:
    plan = plan_of(user_facts(landlock_abi=abi), *words)
    found = [each for each in plan.seal if isinstance(each, RestrictFiles)]
    return (found[0] if found else None), " ".join(plan.notes)


@pytest.mark.parametrize("abi", range(8))
@pytest.mark.parametrize("profile", ["sandbox", "full"])
def test_it_is_there_or_a_note_says_why_not(abi: int, profile: str) -> None:
    rules, notes = landlock_of(abi, "--isolation", profile)
    assert (rules is not None) == (abi >= 2)
    assert ("Landlock" in notes) == (abi < 6)
    if rules:
        assert rules.abi == abi
        assert rules.scopes == (3 if abi >= 6 else 0)


@pytest.mark.parametrize("profile", ["none", "minimal", "default", "balanced"])
def test_other_profiles_have_none(profile: str) -> None:
    assert landlock_of(7, "--isolation", profile) == (None, "")


def test_devices_can_be_used_but_not_made() -> None:
    rules, _ = landlock_of(7)
    assert rules
    assert rights_at(rules, "/dev/null") & (c.LL_WRITE_FILE | c.LL_IOCTL_DEV)
    for path in ("/dev/x", "/dev/shm/x", "/tmp/x", "/home/ada/x"):
        assert not rights_at(rules, path) & (c.LL_MAKE_CHAR | c.LL_MAKE_BLOCK)
    assert not rights_at(rules, "/dev/x") & c.LL_MAKE_REG
    assert rights_at(rules, "/dev/shm/x") & c.LL_MAKE_REG
    assert not rights_at(rules, "/proc/x") & (c.LL_MAKE_REG | c.LL_REMOVE_FILE)


@pytest.mark.parametrize(
    ("stream", "becomes", "rights"),
    [
        (Stream("file", True, False), "pass", c.LL_READ_FILE),
        (Stream("file", False, True), "pass", c.LL_WRITE_FILE | c.LL_TRUNCATE),
        (Stream("fifo", True, True), "pass", c.LL_READ_FILE | c.LL_WRITE_FILE | c.LL_TRUNCATE),
        (Stream("tty", True, True), "write-only", c.LL_WRITE_FILE | c.LL_IOCTL_DEV),
        (Stream("other", True, False), "pass", None),
        (Stream("file", True, False), "relay", None),
        (Stream("tty", True, True), "terminal", None),
    ],
)
def test_a_standard_stream_keeps_the_rights_it_came_with(stream: Stream, becomes: str, rights: int | None) -> None:
    other = Stream("other")
    facts = user_facts(streams=(other, stream, other))
    rules = restrict_files(policy_of(facts), facts, [], ("pass", becomes, "pass"))
    assert [(rule.fd, rule.rights) for rule in rules.rules if rule.fd >= 0] == ([(1, rights)] if rights else [])
