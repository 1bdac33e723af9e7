"""Finding and starting the command's file: the search along PATH, and what may not be executed first.

The file that is executed first must not lead back, through /proc, to the program that
Hexe itself runs. Until its execve the process that becomes the command is a copy of
init, so its /proc/self/exe is Hexe's own interpreter, reached through the host's mounts
and not through the read-only ones inside. A script that begins with
``#!/proc/self/exe``, or a link to it, would run that interpreter and then find it at
/proc/self/exe again, to change it: what CVE-2019-5736 was for runc. Later programs have
no such way: theirs are seen through the mounts inside.
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENOENT, ENOTDIR

from hexe.linux import constants as c
from hexe.linux.syscalls import address_of, syscall
from hexe.sandbox.environment import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# With these a search along PATH goes on to the next directory, as execvp(3) does.
SEARCH_ON = (ENOENT, ENOTDIR, EACCES)
# Linux opens the file itself and at most five interpreters, each named by the one before (exec_binprm, fs/exec.c).
LONGEST_CHAIN = 6
_LINE = 256  # BINPRM_BUF_SIZE: what the kernel reads of a file to see what it is


def safe_files(name: str, environment: dict[str, str]) -> frozenset[str]:
    """The paths to try for a command that don't lead through /proc.

    To be asked before the seal: the filter refuses openat2, whose arguments no filter can see.
    """
    return frozenset(path for path in candidates(name, environment) if not leads_through_proc(path))


def start_first(
    name: str, environment: dict[str, str], start: Callable[[str], int], safe: frozenset[str] | None
) -> int:
    """``start`` the first file that a command's name finds, and return what it returns.

    What isn't among ``safe``, if that is given, is refused with ELOOP. Raises the OSError that a
    shell would report: a file that may not be executed tells more than one that isn't there.
    """
    worst = ENOENT
    for path in candidates(name, environment):
        if safe is not None and path not in safe:
            raise OSError(ELOOP, "it leads through /proc", path)
        try:
            return start(path)
        except OSError as error:
            if error.errno not in SEARCH_ON:
                raise
            if error.errno == EACCES:
                worst = EACCES
    raise OSError(worst, os.strerror(worst), name)


def candidates(name: str, environment: dict[str, str]) -> list[str]:
    """The paths to try for a command: itself with a slash in it, else what there is in the directories of PATH."""
    if not name:
        return []  # "" names nothing, although PATH's directories followed by it exist
    if "/" in name:
        return [name]
    places = environment.get("PATH", DEFAULT_PATH).split(":")
    # A directory that may not even be searched has nothing, as for a shell.
    return [path for path in (f"{place or '.'}/{name}" for place in places) if os.path.exists(path)]


def leads_through_proc(path: str) -> bool:
    """Whether executing ``path`` would go through a magic link of /proc, itself or by its chain of interpreters.

    A file of the caller's own that can't be read counts as one: what it names isn't known.
    So does a chain that is longer than Linux follows. A path that can't be opened for
    another reason doesn't: execve will say why.
    """
    for _ in range(LONGEST_CHAIN):
        try:
            line = first_line(path)
        except OSError as error:
            return error.errno == ELOOP
        if line is None:
            return True
        interpreter = interpreter_of(line)
        if not interpreter:
            return False
        path = os.fsdecode(interpreter)
    return True


def interpreter_of(line: bytes) -> bytes:
    """The interpreter that a first line names, empty when it names none. Pure.

    As load_script (fs/binfmt_script.c) takes it: blanks are space and tab, and a NUL ends the name too. Any
    other character belongs to it, also what Python would call white space.
    """
    if not line.startswith(b"#!"):
        return b""
    name = line[2:].lstrip(b" \t")
    for end in (b" ", b"\t", b"\0"):
        name = name.partition(end)[0]
    return name


def first_line(path: str) -> bytes | None:
    """The first line of a file, opened without magic links; None for one of our own that can't be read.

    Raises OSError, with ELOOP when the path goes through a magic link (openat2(2)).
    """
    how = bytearray(24)
    how[0:8] = (c.O_PATH | c.O_CLOEXEC).to_bytes(8, "little")
    how[16:24] = c.RESOLVE_NO_MAGICLINKS.to_bytes(8, "little")
    name = bytearray(os.fsencode(path) + b"\0")
    fd = syscall("openat2", c.AT_FDCWD, address_of(name), address_of(how), 24, path=path)
    try:
        owner = os.fstat(fd).st_uid
        try:
            readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            return None if owner == os.getuid() else b""
    finally:
        os.close(fd)
    try:
        return os.read(readable, _LINE).split(b"\n", 1)[0]
    except IsADirectoryError:
        return b""
    finally:
        os.close(readable)
