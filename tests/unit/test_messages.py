"""The packets between init and the caller."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import anything

from hexe.linux.constants import LONGEST_PACKET
from hexe.sandbox.messages import pack, unpack

letters = st.sampled_from("GENTDFSXPCK")


@given(letters, st.lists(st.integers() | st.floats(allow_nan=False), max_size=4))
def test_numbers_come_back(letter: str, numbers: list[float]) -> None:
    got, values = unpack(pack(letter, *numbers))
    assert got == letter
    assert [type(number)(value) for number, value in zip(numbers, values, strict=True)] == numbers


@given(letters, st.text(max_size=3000))
def test_any_text_fits_into_one_packet(letter: str, text: str) -> None:
    packet = pack(letter, text)
    assert len(packet) <= LONGEST_PACKET
    assert unpack(packet)[0] == letter


@given(letters, anything)
def test_text_comes_back_when_joined(letter: str, text: str) -> None:
    assert " ".join(unpack(pack(letter, text))[1]) == text


@given(st.binary(max_size=100))
def test_any_bytes_are_understood_somehow(packet: bytes) -> None:
    letter, values = unpack(packet)
    assert isinstance(letter, str) and all(isinstance(value, str) for value in values)


def test_the_end_of_the_stream() -> None:
    assert unpack(b"") == ("", [])
    assert unpack(b"G") == ("G", [])
