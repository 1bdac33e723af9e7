"""The seccomp filters, each built once and then read from a cache.

Building costs some tens of milliseconds and imports; reading costs some tens of
microseconds and no import. The cache decides what a sandbox may do, so it must never lie
where sandboxed code could write: not in the home directory, which is bound read-write.
(A read-only bind over the cache alone would not do there: sandboxed code could rename the
directory above it and put its own in its place, for the next launch to read.)
The places that are taken, `cache_directory`, are in no sandbox's view.
"""

from __future__ import annotations

import os
import stat

import hexe

FORMAT = 1
KEPT = 16
"""How many filters the cache keeps, of all versions and installations together."""
_HERE = os.path.dirname(os.path.abspath(__file__))
_SOURCES = (
    os.path.join(_HERE, "../policy/syscall_rules.py"),
    os.path.join(_HERE, "../linux/seccomp.py"),
    os.path.join(_HERE, "filters.py"),
)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LONGEST = 4096 * 8 + 1024  # BPF_MAXINSNS instructions and the header
_CHECK_MODULUS = (1 << 61) - 1  # a prime


def load_filter(variant: str) -> bytes:
    """The BPF program of the variant, "sandbox" or "full", for seccomp(2): from the cache, else built and stored.

    A cache that is missing, foreign, damaged or older than the rules is passed over, and so is one that
    can't be written. Raises HexeError where a filter must be built and libseccomp or pyseccomp is missing,
    and ValueError for an unknown variant.
    """
    header = _header(variant)
    directory = cache_directory()
    if directory:
        program = _read(directory, _name(variant, header), header)
        if program is not None:
            return program
    program = _build(variant)
    if directory:
        _store(directory, _name(variant, header), header, program)
    return program


def is_cached(variant: str) -> bool:
    """Whether the cache has the variant's filter, so that neither libseccomp nor pyseccomp is needed for it."""
    header, directory = _header(variant), cache_directory()
    return bool(directory) and _read(directory, _name(variant, header), header) is not None


def cache_directory() -> str:
    """Where the filters are kept, whether or not it exists yet; "" where this host has no safe place.

    $XDG_RUNTIME_DIR/hexe (unless that is inside the home); root: /run/hexe; else /run/user/UID/hexe, or
    /dev/shm/hexe-UID, where the sticky bit keeps others from replacing it.
    """
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    home = os.environ.get("HOME", "").rstrip("/") + "/"
    inside_home = len(home) > 1 and (runtime + "/").startswith(home)
    if runtime.startswith("/") and not inside_home and _is_private(runtime, user):
        return runtime + "/hexe"
    if user == 0:
        return "/run/hexe"
    runtime = f"/run/user/{user}"
    if _is_private(runtime, user):
        return runtime + "/hexe"
    try:
        shared = os.lstat("/dev/shm")
    except OSError:
        return ""
    if stat.S_ISDIR(shared.st_mode) and shared.st_mode & stat.S_ISVTX and shared.st_uid in {0, 65534}:
        return f"/dev/shm/hexe-{user}"  # 65534 is what root's uid looks like in a container's user namespace
    return ""


def _is_private(directory: str, user: int) -> bool:
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & _OTHERS_WRITE


def _header(variant: str) -> bytes:
    # All that the program depends on; padded so that the file stays a multiple of an instruction.
    words = ["hexe-filter", str(FORMAT), hexe.__version__, variant, os.uname().machine]
    for path in _SOURCES:
        try:
            found = os.stat(path)
        except OSError:  # an installation without sources: its version must do
            words.append("-")
        else:
            words.append(f"{found.st_mtime_ns}:{found.st_size}")
    text = " ".join(words)
    return (text + " " * (-(len(text) + 1) % 8) + "\n").encode()


def _name(variant: str, header: bytes) -> str:
    # Two installations, each with rules of its own, must not keep replacing each other's file.
    return f"{variant}-{int.from_bytes(header, 'little') % _CHECK_MODULUS:x}"


def _check(program: bytes) -> bytes:
    # Against damage, not against malice. The remainder is cheap and, unlike a CRC, needs no import.
    return (int.from_bytes(program, "little") % _CHECK_MODULUS).to_bytes(8, "little")


def _read(directory: str, name: str, header: bytes) -> bytes | None:
    """The stored program, None for any reason to distrust it."""
    try:
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not _is_ours(os.fstat(at), stat.S_IFDIR):
            return None
        # O_NONBLOCK: opening a planted fifo must not hang.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        try:
            found = os.fstat(file)
            if not _is_ours(found, stat.S_IFREG) or found.st_size > _LONGEST or found.st_size % 8:
                return None
            stored = os.read(file, _LONGEST)
        finally:
            os.close(file)
    except OSError:
        return None
    finally:
        os.close(at)
    begin = len(header) + 8
    if len(stored) != found.st_size or len(stored) <= begin or not stored.startswith(header):
        return None
    program = stored[begin:]
    return program if stored[len(header) : begin] == _check(program) else None


def _is_ours(found: os.stat_result, kind: int) -> bool:
    return stat.S_IFMT(found.st_mode) == kind and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _build(variant: str) -> bytes:
    # Imported here: with a filled cache neither the rules nor libseccomp are needed.
    from hexe.linux.seccomp import ALLOW, EPERM, compile_filter
    from hexe.policy.syscall_rules import rules

    wanted = rules(variant)
    decisions = dict.fromkeys(wanted.allowed, ALLOW)
    decisions.update((refusal.name, refusal.errno) for refusal in wanted.refused)
    specials = [
        (special.syscall, answer, tuple((test.argument, test.mask, test.value) for test in special.where))
        for answer, group in ((ALLOW, wanted.allowed_where), (EPERM, wanted.refused_where))
        for special in group
    ]
    return compile_filter(decisions, specials, os.uname().machine)


def _store(directory: str, name: str, header: bytes, program: bytes) -> None:
    """Put the program into the cache, whole or not at all. A failure costs the next launch time, nothing else."""
    try:
        try:  # contextlib would be an import
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    new = f".{name}.{os.getpid()}"
    try:
        if _is_ours(os.fstat(at), stat.S_IFDIR):
            _write(at, new, header + _check(program) + program)
            os.rename(new, name, src_dir_fd=at, dst_dir_fd=at)
            _prune(at)
    except OSError:
        try:  # contextlib would be an import
            os.unlink(new, dir_fd=at)
        except OSError:
            pass
    finally:
        os.close(at)


def _prune(at: int) -> None:
    # Filters of versions and installations that are gone: the newest few stay.
    ages = []
    for name in os.listdir(at):
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            ages.append((found.st_mtime_ns, name))
    for _, name in sorted(ages)[:-KEPT]:
        os.unlink(name, dir_fd=at)


def _write(at: int, name: str, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    try:
        if os.write(file, content) != len(content):
            raise OSError("the disk is full")
    finally:
        os.close(file)
