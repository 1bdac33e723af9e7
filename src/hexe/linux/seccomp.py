"""Decisions about system calls, compiled into a BPF program by libseccomp.

It is built only, never installed here: the caller hands the bytes (an array of
``struct sock_filter``) to seccomp(2). libseccomp knows the numbers, the machines and
their oddities; two things are ours:

- libseccomp can't say "allowed, except where": one action for a name, another for some
  of its arguments. So there are two programs, first the arguments, then the names, and
  `_chain` makes one of them: "undecided" of the first becomes a jump into the second.
- i386 has a second door to the socket calls, socketcall(2), whose arguments lie in memory.
  When libseccomp is told to allow socket(AF_UNIX) it also allows socketcall(SYS_SOCKET)
  for *any* family. `_MULTIPLEXERS` are decided in the first program, as a whole.

Sources: seccomp_rule_add(3), seccomp_attr_set(3), seccomp(2), the kernel's
include/uapi/linux/{filter,seccomp}.h and Documentation/networking/filter.rst.
"""

from __future__ import annotations

import os
from contextlib import suppress

from hexe.errors import HexeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    # (argument, mask, value): it holds where argument & mask == value
    Comparison = tuple[int, int, int]
    # (system call, errno or 0 for allowed, comparisons that must all hold)
    Special = tuple[str, int, tuple[Comparison, ...]]

ALLOW = 0
EPERM = 1
ENOSYS = 38

# The native machine and its 32-bit sibling, by what uname(2) calls the machine.
_MACHINES = {"x86_64": ("X86_64", "X86"), "aarch64": ("AARCH64", "ARM")}
_MULTIPLEXERS = ("socketcall", "ipc")

# Stands for "not decided here" while the programs are built. It is an errno that no rule uses, so that a
# program in which it was forgotten refuses.
_UNDECIDED = 4094

_INSTRUCTION = 8
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_BPF_JMP_JA = 0x05
_BPF_RET_K = 0x06
_RET_ERRNO = 0x0005_0000


def compile_filter(decisions: Mapping[str, int], specials: Iterable[Special], machine: str) -> bytes:
    """The BPF program that answers each name as ``decisions`` says (0: allowed, else an errno).

    ``specials`` come first: where all of one's comparisons hold, its answer counts. Numbers
    that no name stands for get ENOSYS; so do names that this libseccomp doesn't know yet.
    On x86_64 the x32 numbers (bit 30 set) get EPERM. Raises HexeError without libseccomp or
    pyseccomp, and for a machine that Hexe doesn't know.
    """
    if machine not in _MACHINES:
        raise HexeError(
            f"no seccomp filter for the machine {machine!r}", hint=f"Hexe knows {' and '.join(sorted(_MACHINES))}"
        )
    library = _libseccomp()
    first = [(name, decisions[name], ()) for name in _MULTIPLEXERS if name in decisions]
    try:
        arguments = _program(library, machine, [*first, *specials])
        names = _program(library, machine, [(name, errno, ()) for name, errno in decisions.items()])
    except OSError as error:
        raise HexeError(
            f"libseccomp can't build the filter: {error}", hint="libseccomp 2.5 or newer is needed: upgrade it"
        ) from error
    program = _chain(arguments, names)
    if len(program) > _MOST_INSTRUCTIONS * _INSTRUCTION:
        raise HexeError(f"the seccomp filter has {len(program) // _INSTRUCTION} instructions, the kernel takes 4096")
    return program


def library_version() -> str:
    """libseccomp's version, such as ``2.5.4``. Raises HexeError where it, or pyseccomp, is missing."""
    import ctypes

    library = _libseccomp()._libseccomp
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)  # struct scmp_version: major, minor, micro
    return ".".join(str(part) for part in library.seccomp_version().contents)


def _libseccomp() -> ModuleType:
    # pyseccomp looks for the library when it is imported: it raises RuntimeError where there is none.
    hint = "apt install libseccomp2, or dnf install libseccomp"
    try:
        import pyseccomp
    except ImportError as error:
        raise HexeError("the Python package pyseccomp is missing", hint="pip install pyseccomp") from error
    except (RuntimeError, OSError) as error:
        raise HexeError("the library libseccomp is missing: no seccomp filter can be built", hint=hint) from error
    except AttributeError as error:  # a function of it isn't there
        raise HexeError(f"the library libseccomp is too old: {error}", hint=hint) from error
    module: ModuleType = pyseccomp
    return module


def _program(library: ModuleType, machine: str, rules: Iterable[Special]) -> bytes:
    """One program for the machine and its sibling; what no rule matches gets _UNDECIDED."""
    building = library.SyscallFilter(library.ERRNO(_UNDECIDED))
    wanted = [getattr(library.Arch, name) for name in _MACHINES[machine]]
    native = library.system_arch()
    for arch in wanted:
        if arch != native:
            building.add_arch(arch)
    if native not in wanted:
        building.remove_arch(native)
    # x32 calls have the x86_64 arch and another number: libseccomp counts them as a wrong architecture.
    building.set_attr(library.Attr.ACT_BADARCH, library.ERRNO(EPERM))
    with suppress(OSError):  # before libseccomp 2.5: the same decisions, found more slowly
        building.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a binary tree of numbers instead of a list
    for name, errno, comparisons in rules:
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        if number == -1:  # __NR_SCMP_ERROR: this libseccomp has never heard of it
            continue
        compared = [library.Arg(at, library.MASKED_EQ, mask, value) for at, mask, value in comparisons]
        building.add_rule(library.ERRNO(errno) if errno else library.ALLOW, number, *compared)
    return _exported(building)


def _exported(building: object) -> bytes:
    with open(os.memfd_create("hexe-filter", os.MFD_CLOEXEC), "r+b") as file:
        building.export_bpf(file)  # type: ignore[attr-defined]  # pyseccomp has no types
        file.seek(0)
        return file.read()


def _chain(first: bytes, second: bytes) -> bytes:
    """Both programs as one: where the first is undecided the second decides, where that one is too it is ENOSYS.

    Jumps in BPF are relative, so that the second program works at any place.
    """
    undecided = _returning(_RET_ERRNO | _UNDECIDED)
    count = len(first) // _INSTRUCTION
    linked = bytearray()
    jumps = 0
    for index in range(count):
        instruction = first[index * _INSTRUCTION : (index + 1) * _INSTRUCTION]
        if instruction == undecided:
            jumps += 1
            instruction = _instruction(_BPF_JMP_JA, count - index - 1)
        linked += instruction
    if not jumps:
        raise HexeError("libseccomp built a filter without a default: it can't be used", hint="upgrade libseccomp")
    refused = _returning(_RET_ERRNO | ENOSYS)
    for at in range(0, len(second), _INSTRUCTION):
        instruction = second[at : at + _INSTRUCTION]
        linked += refused if instruction == undecided else instruction
    return bytes(linked)


def _returning(value: int) -> bytes:
    return _instruction(_BPF_RET_K, value)


def _instruction(code: int, k: int) -> bytes:
    # struct sock_filter without a conditional jump. Both machines are little-endian.
    return code.to_bytes(2, "little") + b"\0\0" + k.to_bytes(4, "little")
