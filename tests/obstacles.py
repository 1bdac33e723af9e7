"""Puts something in the way, then runs hexe: made-up containers, used-up limits, filters that say no.

Run as a script: ``python3 -I -c SOURCE JSON COMMAND...``. It needs nothing but Python, since
it may run as a user who can't read this checkout. The JSON has the keys of ``obstacle``.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

NEWNS, NEWUSER = 0x00020000, 0x10000000
NEW_ANY = 0x7E020000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
SIGKILL = 9
libc = ctypes.CDLL(None, use_errno=True)


def obstacle(command: list[str], **what: Any) -> list[str]:
    """The command line that puts this in the way of ``command``. Keys, all optional:

    ``user``: a user namespace around it, [first id inside, first outside, count]; ``limits``: user.max_KIND_namespaces
    there; ``occupy``: this many user namespaces are taken; ``mounts``: a mount namespace around it; ``cover``: paths
    of /proc to mount over; ``full``: a directory that becomes a tmpfs without room; ``chroot``: an empty directory
    that becomes the root; ``refuse``: [[number, errno, mask of argument 0], ...] for a seccomp filter (mask 0: always).
    """
    return ["/usr/bin/python3", "-I", "-c", Path(__file__).read_text(), json.dumps(what), *command]


def check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    check(libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()))


def enter_user_namespace(ids: list[int]) -> None:
    """Our own new user namespace; a child that stays outside writes its maps."""
    go_reader, go_writer = os.pipe()
    done_reader, done_writer = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.read(go_reader, 1)
        base = f"/proc/{os.getppid()}"
        if os.geteuid() != 0:
            Path(base, "setgroups").write_text("deny")
        Path(base, "uid_map").write_text(f"{ids[0]} {ids[1]} {ids[2]}\n")
        gid = ids[0] if ids[2] > 1 else os.getgid()
        Path(base, "gid_map").write_text(f"{gid} {gid} {ids[2]}\n")
        os.write(done_writer, b"x")
        os._exit(0)
    check(libc.unshare(NEWUSER))
    os.write(go_writer, b"x")
    os.close(done_writer)
    if os.read(done_reader, 1) != b"x":
        raise SystemExit("the maps could not be written")
    os.waitpid(writer, 0)
    for fd in (go_reader, go_writer, done_reader):
        os.close(fd)


def occupy() -> None:
    """A child with a user namespace of its own, as long as we live."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        check(libc.unshare(NEWUSER))
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL)  # after unshare, which resets it
        os.write(writer, b"x")
        os.close(writer)
        for fd in (0, 1, 2):
            os.close(fd)  # or whoever reads our output waits for this process too
        while True:
            libc.pause()
    os.close(writer)
    if os.read(reader, 1) != b"x":
        raise SystemExit("no namespace could be occupied")
    os.close(reader)


def change_root(new: str) -> None:
    """A plain chroot into a directory that shows everything of the old root."""
    for name in os.listdir("/"):
        old, there = f"/{name}", f"{new}/{name}"
        if os.path.islink(old):
            os.symlink(os.readlink(old), there)
        elif os.path.isdir(old):
            os.mkdir(there)
            mount(old, there, "", MS_BIND | MS_REC)
    os.chroot(new)
    os.chdir("/")


def fill(target: str) -> None:
    """A tmpfs in which no file can be made any more."""
    mount("tmpfs", target, "tmpfs", 0, "nr_inodes=3,mode=777")
    try:
        for number in range(10):
            os.mkdir(f"{target}/{number}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def refuse(calls: list[list[int]]) -> None:
    """A seccomp filter that answers these calls with an errno, as a container's does."""
    program = [struct.pack("<HBBI", 0x20, 0, 0, 0)]  # load the number
    for number, answer, mask in calls:
        returned = struct.pack("<HBBI", 0x06, 0, 0, 0x0005_0000 | answer)
        if mask:
            program += [
                struct.pack("<HBBI", 0x15, 0, 4, number),
                struct.pack("<HBBI", 0x20, 0, 0, 16),  # the low half of argument 0
                struct.pack("<HBBI", 0x45, 0, 1, mask),
                returned,
                struct.pack("<HBBI", 0x20, 0, 0, 0),
            ]
        else:
            program += [struct.pack("<HBBI", 0x15, 0, 1, number), returned]
    program.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF_0000))
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code)))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0))


def main(what: dict[str, Any], command: list[str]) -> None:
    if "user" in what:
        enter_user_namespace(what["user"])
    if {"mounts", "cover", "full", "chroot"} & set(what):
        check(libc.unshare(NEWNS))
        mount("", "/", "", MS_REC | MS_PRIVATE)
    for kind, limit in what.get("limits", {}).items():
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text(str(limit))
    for _ in range(what.get("occupy", 0)):
        occupy()
    for path in what.get("cover", ()):
        mount("/dev/null", path, "", MS_BIND)
    if "full" in what:
        fill(what["full"])
    if "chroot" in what:
        change_root(what["chroot"])
    if "refuse" in what:
        refuse(what["refuse"])
    os.execv(command[0], command)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
