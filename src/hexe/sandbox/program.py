"""The Program: a plan as flat system calls over one buffer, and the builder that operations lower themselves with.

An argument of a step is a plain integer, a ``Ptr`` (the address of an offset in
the buffer) or a ``Val`` (the 32-bit integer that lies at an offset: the stored
result of an earlier step, or a parameter). A step may store its result. Pointers
inside structures are relocations. A runner needs to know nothing else.
"""

from __future__ import annotations

from hexe.linux.syscalls import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.operations import Operation
    from hexe.sandbox.plan import Plan

STAGES = ("host", "maps", "outer", "inner", "seal")


class Ptr(int):
    """The address of this offset in the buffer."""

    def __repr__(self) -> str:
        return f"&{int(self)}"


class Val(int):
    """The 32-bit integer stored at this offset of the buffer."""

    def __repr__(self) -> str:
        return f"*{int(self)}"


class Step:
    """One system call. ``operation`` is its index in the stage; ``about`` the path or value as the user knows it.

    With ``repeat`` above 1 the call is made that often, its second argument counting up.
    A plain class: a launch makes two hundred of these.
    """

    __slots__ = ("about", "args", "name", "number", "operation", "out", "repeat", "tolerate")

    def __init__(
        self,
        name: str,
        number: int,
        args: tuple[int, ...],
        out: int,
        tolerate: tuple[int, ...],
        operation: int,
        about: str,
        repeat: int = 1,
    ) -> None:
        self.name = name
        self.number = number
        self.args = args
        self.out = out
        self.tolerate = tolerate
        self.operation = operation
        self.about = about
        self.repeat = repeat


class Program:
    """Steps by stage, the buffer they share, its relocations and its named parameters (offsets)."""

    def __init__(self) -> None:
        self.stages: dict[str, list[Step]] = {stage: [] for stage in STAGES}
        self.data = bytearray(8)  # never empty: a buffer needs an address
        self.relocations: list[tuple[int, int]] = []
        self.slots: dict[str, int] = {}
        self.fields: dict[str, list[int]] = {}
        """32-bit fields of structures that are parameters: name -> offsets."""

    def set(self, buffer: bytearray, name: str, value: int) -> None:
        """Set a parameter, wherever it is used, in a buffer made from this program."""
        places = list(self.fields.get(name, ()))
        if name in self.slots:
            places.append(self.slots[name])
        for at in places:
            buffer[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    def value(self, buffer: bytearray, slot: str) -> int:
        """The integer that a run left in a named slot of its buffer; -1 when nothing wrote it."""
        at = self.slots.get(slot)
        return -1 if at is None else int.from_bytes(buffer[at : at + 4], "little", signed=True)


class Builder:
    """What an operation is given to lower itself: it adds steps and data to the program."""

    def __init__(self) -> None:
        self.program = Program()
        self._steps: list[Step] = []
        self._operation = 0
        self._strings: dict[str, int] = {}
        self._fresh = 0
        self.directories: dict[str, str] = {}
        """Directories of the new root that have a descriptor already: inside path -> slot."""

    def lower(self, stage: str, operations: tuple[Operation, ...]) -> None:
        """Lower a stage's operations in their order."""
        self._steps = self.program.stages[stage]
        for index, operation in enumerate(operations):
            self._operation = index
            operation.lower(self)

    def text(self, value: str) -> Ptr:
        """A NUL-terminated string in the buffer."""
        at = self._strings.get(value)
        if at is None:
            at = self._strings[value] = len(self.program.data)
            self.program.data += value.encode("utf-8", "surrogateescape") + b"\0"
        return Ptr(at)

    def struct(self, value: bytes) -> Ptr:
        """A structure in the buffer, aligned to 8 bytes."""
        data = self.program.data
        data += bytes(-len(data) % 8)
        at = len(data)
        data += value
        return Ptr(at)

    def relocate(self, at: int, target: Ptr) -> None:
        """At run time the 64-bit word at offset ``at`` becomes the address of ``target``."""
        self.program.relocations.append((at, int(target)))

    def slot(self, name: str) -> Val:
        """A named 32-bit integer in the buffer, -1 until a step or a parameter sets it."""
        slots = self.program.slots
        if name not in slots:
            slots[name] = int(self.struct(b"\xff\xff\xff\xff\0\0\0\0"))
        return Val(slots[name])

    def fresh_slot(self, prefix: str) -> str:
        """A slot name that nobody has yet."""
        self._fresh += 1
        return f"{prefix}.{self._fresh}"

    def slot_name(self, slot: Val) -> str:
        """The name of a slot."""
        return next(name for name, at in self.program.slots.items() if at == slot)

    def name_field(self, name: str, at: int) -> None:
        """Name a 32-bit field of a structure, so that it can be set as a parameter."""
        self.program.fields.setdefault(name, []).append(at)

    def call(
        self, name: str, *args: int, out: int = -1, tolerate: tuple[int, ...] = (), about: str = "", repeat: int = 1
    ) -> None:
        """Add one system call; ``out`` is the offset (a slot, or a field of a structure) that gets its result.

        ``repeat`` makes it that often, the second argument counting up from what is given.
        """
        self._steps.append(Step(name, NUMBERS[name], args, int(out), tolerate, self._operation, about, repeat))


def lower(plan: Plan) -> Program:
    """lower: a plan's operations of all stages become system calls over one buffer. Pure."""
    builder = Builder()
    for stage in STAGES:
        builder.lower(stage, plan.stage(stage))
    return builder.program
