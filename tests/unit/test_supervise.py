"""The supervisor's corners that a real run seldom reaches: a slow reader, an init that is gone or stopped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hexe.linux import signals
from hexe.linux.constants import SIGWINCH
from hexe.linux.packets import packet_pair, receive, send
from hexe.sandbox import init, supervise
from hexe.sandbox.relay import Pump
from hexe.sandbox.supervise import Supervisor

PATIENCE = 20.0
FILLING = b"x" * 65536  # what a pipe holds
OUTPUT = b"0123456789abcdef" * 4096


class Pair:
    """A supervisor of nothing, and the other end of its socket."""

    def __init__(self) -> None:
        ours, self.theirs = packet_pair()
        policy = SimpleNamespace(profile="sandbox", timeout=0.0, pid_namespace=True)
        signal_fd = signals.open_signalfd((SIGWINCH,))
        spawned: Any = SimpleNamespace(
            plan=SimpleNamespace(policy=policy), pumps=[], control=ours, signals=signal_fd, pid=-1
        )
        self.supervisor = Supervisor(spawned)
        self.open = [ours, self.theirs, signal_fd]

    def shut(self, fd: int) -> None:
        self.open.remove(fd)
        os.close(fd)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    for fd in made.open:
        os.close(fd)


def read_to_end(fd: int, into: list[bytes]) -> None:
    while part := os.read(fd, 65536):
        into.append(part)


def test_a_slow_reader_gets_all_that_was_written(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    """No clock cuts off the output of a command that has ended: it ends when its reader has taken it."""
    monkeypatch.setattr(supervise, "DRAIN_SECONDS", 0.0)
    source, feed = os.pipe()
    drain, target = os.pipe()
    os.set_blocking(target, False)
    os.write(feed, OUTPUT)
    os.close(feed)
    os.write(target, FILLING)  # the pump has to wait for the reader
    pair.supervisor.pumps = [Pump(source, target, close_target=True)]
    got: list[bytes] = []
    reader = threading.Thread(target=read_to_end, args=(drain, got))
    reader.start()
    pair.supervisor._drain()
    if pair.supervisor.pumps:
        os.close(target)
    reader.join(PATIENCE)
    assert b"".join(got) == FILLING + OUTPUT
    assert not pair.supervisor.timed_out
    os.close(source)
    os.close(drain)


def test_the_timeout_ends_the_wait_for_a_reader(pair: Pair) -> None:
    source, feed = os.pipe()
    drain, target = os.pipe()
    os.set_blocking(target, False)
    os.write(feed, OUTPUT)
    os.write(target, FILLING)
    pair.supervisor.pumps = [Pump(source, target, close_target=False)]
    pair.supervisor.pumps[0].step()
    pair.supervisor.deadline = time.monotonic()
    pair.supervisor._drain()
    assert pair.supervisor.timed_out
    for fd in (source, feed, drain, target):
        os.close(fd)


def test_the_longest_timeout_is_one_that_poll_takes(pair: Pair) -> None:
    pair.supervisor.deadline = time.monotonic() + 365 * 86400
    patience = pair.supervisor._patience()
    assert patience is not None and 0 < patience < 2**31


def test_an_init_that_is_gone_is_heard_of_in_the_loop_only(pair: Pair) -> None:
    """Killed between its word and the answer. A BrokenPipeError would end hexe as if its own reader had gone."""
    pair.shut(pair.theirs)
    pair.supervisor._tell(b"G")
    pair.supervisor._hear_control()
    assert not pair.supervisor.control_open


def test_a_stopped_init_does_not_stop_the_loop(pair: Pair) -> None:
    pair.supervisor.executed = True
    for _ in range(5000):
        pair.supervisor._send("N", SIGWINCH)
    assert receive(pair.theirs) == b"N %d" % SIGWINCH


def test_what_init_said_before_it_was_timed_out_counts_no_more(pair: Pair) -> None:
    """The gate's word may wait in the socket already: the process that it is about is gone."""
    pair.supervisor.timed_out = True
    send(pair.theirs, b"D")
    pair.supervisor._hear_control()
    assert pair.supervisor.failure is None and not pair.supervisor.executed
    send(pair.theirs, b"X 9 0 0 0")
    pair.supervisor._hear_control()
    assert pair.supervisor.ended == ["9", "0", "0", "0"]


def test_init_outlives_a_signal_that_it_may_not_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """In profile none the command can have become root (sudo): the kernel's no must not end init."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    child: Any = SimpleNamespace(control=-1, plan=SimpleNamespace(policy=SimpleNamespace(witness=False)))
    init.Init(child, 12345, -1)._signal(15)
