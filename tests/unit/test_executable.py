"""Which interpreter a first line names, as the kernel reads it, and which chains of interpreters are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hexe.sandbox.executable import LONGEST_CHAIN, interpreter_of, leads_through_proc


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"#!/bin/sh", b"/bin/sh"),
        (b"#! \t /bin/sh -e", b"/bin/sh"),
        (b"#!/bin/sh\t-e", b"/bin/sh"),
        (b"#!/bin/sh\0x", b"/bin/sh"),
        (b"#!/bin/a\x0bb -e", b"/bin/a\x0bb"),
        (b"#!/bin/a\rb", b"/bin/a\rb"),
        (b"#!\x0c/bin/sh", b"\x0c/bin/sh"),
        (b"#!", b""),
        (b"#! \t", b""),
        (b"\x7fELF", b""),
        (b"", b""),
    ],
)
def test_the_interpreter_is_what_the_kernel_takes(line: bytes, name: bytes) -> None:
    assert interpreter_of(line) == name


def chain(directory: Path, length: int, end: str) -> str:
    """The first of ``length`` scripts, each naming the next as its interpreter and the last one ``end``."""
    following = end
    for number in range(length):
        script = directory / str(number)
        script.write_text(f"#!{following}\n")
        following = str(script)
    return following


@pytest.mark.parametrize("length", range(1, LONGEST_CHAIN + 3))
def test_every_chain_that_leads_through_proc_is_found(tmp_path: Path, length: int) -> None:
    assert leads_through_proc(chain(tmp_path, length, "/proc/self/exe"))


def test_a_chain_as_long_as_linux_follows_is_let_through_and_a_longer_one_is_not(tmp_path: Path) -> None:
    assert not leads_through_proc(chain(tmp_path, LONGEST_CHAIN - 1, "/bin/true"))
    assert leads_through_proc(chain(tmp_path, LONGEST_CHAIN, "/bin/true"))


def test_what_cannot_be_opened_is_left_to_execve(tmp_path: Path) -> None:
    assert not leads_through_proc(str(tmp_path / "missing"))
    assert not leads_through_proc(str(tmp_path))
