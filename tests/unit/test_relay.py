"""Pump on real pipes: everything arrives in order, the end is passed on, a reader that leaves stops it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexe.errors import OutputError
from hexe.sandbox.relay import CHUNK, SAFE_WRITE, Pump, unblocking


class Pipes:
    """A pump between two pipes: what is written to ``feed`` comes out of ``drain``."""

    def __init__(self, *, close_target: bool = True, at_end: bytes = b"") -> None:
        source, self.feed = os.pipe()
        self.drain, target = os.pipe()
        self.pump = Pump(source, target, close_target=close_target, at_end=at_end)
        self.target = target
        self.open = {source, self.feed, self.drain, target}

    def shut(self, fd: int) -> None:
        """Close one end, as the process that has it would."""
        self.open.remove(fd)
        os.close(fd)

    def step_while_ready(self) -> None:
        """Step as a poll loop would, until the pump has to wait or wants nothing more."""
        while (wanted := self.pump.wanted()) is not None:
            fd, writing = wanted
            poll = select.poll()
            poll.register(fd, select.POLLOUT if writing else select.POLLIN)
            if not poll.poll(0):
                return
            self.pump.step()

    def close(self) -> None:
        """Close what is still open."""
        if self.pump.target == -1:
            self.open.discard(self.target)
        for fd in self.open:
            os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


@given(st.lists(st.binary(max_size=300), max_size=8), st.binary(max_size=2))
def test_everything_arrives_in_order_and_then_the_end(chunks: list[bytes], at_end: bytes) -> None:
    pipes = Pipes(at_end=at_end)
    try:
        for chunk in chunks:
            os.write(pipes.feed, chunk)
            pipes.step_while_ready()
        pipes.shut(pipes.feed)
        pipes.step_while_ready()
        assert pipes.pump.wanted() is None
        got = b""
        while part := os.read(pipes.drain, CHUNK):
            got += part
        assert got == b"".join(chunks) + at_end
    finally:
        pipes.close()


def test_a_full_pipe_makes_it_wait_and_nothing_is_lost(pipes: Pipes) -> None:
    os.set_blocking(pipes.feed, False)
    sent = received = b""
    number = 0
    while len(sent) < 10 * CHUNK:
        try:
            piece = number.to_bytes(4, "big") * 1024
            sent += piece[: os.write(pipes.feed, piece)]
            number += 1
        except BlockingIOError:
            pipes.step_while_ready()
            wanted = pipes.pump.wanted()
            if wanted == (pipes.target, True):  # the other side is full as well
                received += os.read(pipes.drain, SAFE_WRITE)
    pipes.shut(pipes.feed)
    while pipes.pump.wanted() is not None:
        pipes.step_while_ready()
        received += os.read(pipes.drain, CHUNK)
    while part := os.read(pipes.drain, CHUNK):
        received += part
    assert received == sent


def test_it_reads_no_more_before_all_is_written(pipes: Pipes) -> None:
    os.write(pipes.feed, b"a" * (SAFE_WRITE + 1))
    assert pipes.pump.wanted() == (pipes.pump.source, False)
    pipes.pump.step()
    assert pipes.pump.wanted() == (pipes.target, True)
    pipes.pump.step()
    assert pipes.pump.wanted() == (pipes.target, True)
    pipes.pump.step()
    assert pipes.pump.wanted() == (pipes.pump.source, False)


def test_a_reader_that_leaves_ends_it(pipes: Pipes) -> None:
    pipes.shut(pipes.drain)
    os.write(pipes.feed, b"x")
    pipes.pump.step()
    pipes.pump.step()
    assert pipes.pump.finished and pipes.pump.abandoned
    assert pipes.pump.wanted() is None
    assert pipes.pump.target == -1


def test_a_pause(pipes: Pipes) -> None:
    os.write(pipes.feed, b"x")
    pipes.pump.paused = True
    assert pipes.pump.wanted() is None
    pipes.pump.paused = False
    pipes.step_while_ready()
    assert os.read(pipes.drain, 10) == b"x"


def test_the_callers_own_stream_is_not_closed() -> None:
    pipes = Pipes(close_target=False)
    try:
        pipes.shut(pipes.feed)
        pipes.step_while_ready()
        assert pipes.pump.finished and not pipes.pump.abandoned
        os.write(pipes.target, b"still open")
        assert os.read(pipes.drain, 20) == b"still open"
    finally:
        pipes.close()


def test_a_terminal_whose_other_side_is_closed_is_at_its_end() -> None:
    master, peer = os.openpty()
    reader, writer = os.pipe()
    os.close(peer)
    pump = Pump(master, writer, close_target=True)
    pump.step()  # EIO
    assert pump.finished
    assert os.read(reader, 1) == b""
    os.close(reader)
    os.close(master)


def test_nothing_to_read_yet_is_no_end() -> None:
    pipes = Pipes()
    os.set_blocking(pipes.pump.source, False)
    pipes.pump.step()
    assert not pipes.pump.finished
    pipes.close()


def test_a_full_pipe_does_not_block_a_step() -> None:
    """Another process fills the pipe after poll called it writable: the step must come back, and lose nothing."""
    reader, writer = os.pipe()
    source, feed = os.pipe()
    saved = os.dup(1)
    os.dup2(writer, 1)
    try:
        pump = Pump(source, 1, close_target=False)
        os.write(feed, b"x" * 10)
        pump.step()
        filler = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
        os.write(filler, b"y" * (1 << 20))
        pump.step()
        assert pump.buffer == b"x" * 10
        assert os.get_blocking(1), "what is shared with the caller was changed"
        os.close(filler)
        os.close(pump._writer)
    finally:
        os.dup2(saved, 1)
        for fd in (saved, reader, writer, source, feed):
            os.close(fd)


def test_what_cannot_be_written_is_an_error_that_says_so() -> None:
    source, feed = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        pump = Pump(source, full, close_target=False)
        os.write(feed, b"x")
        pump.step()
        with pytest.raises(OutputError, match=f"write to descriptor {full}: ENOSPC"):
            pump.step()
    finally:
        for fd in (source, feed, full):
            os.close(fd)


def test_a_terminal_is_opened_again_and_its_master_is_not() -> None:
    master, slave = os.openpty()
    again = unblocking(slave, os.O_WRONLY)
    try:
        assert again != slave
        assert os.ttyname(again) == os.ttyname(slave)
        assert not os.get_blocking(again) and os.get_blocking(slave)
        assert unblocking(master, os.O_WRONLY) == master
    finally:
        for fd in (master, slave, again):
            os.close(fd)
