"""The runner, in Python: walk the steps, call, check, next. It knows nothing of sandboxes."""

from __future__ import annotations

from hexe.linux.syscalls import address_of, get_errno, raw
from hexe.sandbox.program import Ptr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.program import Program, Step

# A system call is always given six arguments: those that a step doesn't have are zeros.
_PADDING = tuple((0,) * (6 - count) for count in range(7))


def prepare(program: Program) -> bytearray:
    """A buffer to run the program in: its data, with every relocation applied. It must not be resized."""
    buffer = bytearray(program.data)
    base = address_of(buffer)
    for at, target in program.relocations:
        buffer[at : at + 8] = (base + target).to_bytes(8, "little")
    return buffer


def run(steps: list[Step], buffer: bytearray) -> tuple[int, int] | None:
    """Make the calls in order. None when all went well, else (index of the step, errno); later ones aren't made."""
    base = address_of(buffer)
    for index, step in enumerate(steps):
        args = [
            value
            if type(value) is int
            else base + value
            if type(value) is Ptr
            else int.from_bytes(buffer[value : value + 4], "little", signed=True)
            for value in step.args
        ]
        result = raw(step.number, *args, *_PADDING[len(args)])
        for _ in range(1, step.repeat):
            if result == -1:
                break
            args[1] += 1
            result = raw(step.number, *args, *_PADDING[len(args)])
        if result == -1:
            errno = get_errno()
            if errno not in step.tolerate:
                return index, errno
        elif step.out >= 0:
            buffer[step.out : step.out + 4] = (result & 0xFFFFFFFF).to_bytes(4, "little")
    return None
