"""Paths: what the host has and the sandbox doesn't show, and what it shows read-only."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable

from kit import STRONG, Control, Facts, Refused, attempt, buffer, call, found_secret, opened_for_writing, read

HIDDEN = "no mount shows it"
READ_ONLY = "the bind is read-only (and Landlock's rules mirror it in sandbox, full)"
WRITABLE = "default without read-only"
SET_ID = "seccomp refuses modes with that bit"
STRONG_WRITABLE = "sandbox without read-only, landlock"


@attempt("ENOENT", "minimal", by=HIDDEN)
def hidden_file(facts: Facts) -> str:
    """Read a file of the host that no bind shows."""
    return found_secret(read(f"{facts.elsewhere}/secret"), facts, "it")


@attempt("ENOENT", Control("minimal", needs="root"), by=HIDDEN)
def other_home(facts: Facts) -> str:
    """Read another user's home."""
    return found_secret(read(f"{facts.other_home}/secret"), facts, "it")


@attempt("ENOENT", "minimal", by="/ is the root of a mount: above it is nothing")
def above_the_root(facts: Facts) -> str:
    """Climb above the root with .. and down into the host."""
    os.chdir(facts.readonly)
    for _ in range(64):
        os.chdir("..")
    return found_secret(read("../../.." + facts.elsewhere + "/secret"), facts, "it")


@attempt("ENOENT", "minimal", by="a process's root is the sandbox's")
def through_proc_self_root(facts: Facts) -> str:
    """Go through /proc/self/root, /proc/self/cwd and .. to the host."""
    os.chdir("/")
    return found_secret(
        read("/proc/self/root/proc/self/cwd/../../../../../.." + facts.elsewhere + "/secret"), facts, "it"
    )


@attempt("ENOENT", "minimal", by="a link is followed in the sandbox's own root")
def through_own_link(facts: Facts) -> str:
    """Make a symbolic link to the host's file in a writable bind and read through it."""
    link = f"{facts.writable}/link-{os.getpid()}"
    os.symlink(f"{facts.elsewhere}/secret", link)
    try:
        return found_secret(read(link), facts, "it")
    finally:
        os.unlink(link)


@attempt("ENOENT", "minimal", by="the root isn't a matter of path lengths")
def beyond_the_longest_path(facts: Facts) -> str:
    """From a directory deeper than PATH_MAX, climb up further than the root is."""
    os.chdir(facts.writable)
    deep = f"deep-{os.getpid()}"
    name = "d" * 200
    os.mkdir(deep)
    os.chdir(deep)
    for _ in range(25):
        os.mkdir(name)
        os.chdir(name)
    for _ in range(25):
        os.chdir("..")
        os.rmdir(name)
    os.chdir("..")
    os.rmdir(deep)
    for _ in range(80):
        os.chdir("..")
    return found_secret(read(facts.elsewhere[1:] + "/secret"), facts, "it")


@attempt("EROFS", WRITABLE, STRONG_WRITABLE, by=READ_ONLY)
def write_read_only_bind(facts: Facts) -> str:
    """Open a file of a read-only bind for writing."""
    return opened_for_writing(f"{facts.readonly}/kept")


@attempt("EROFS|EACCES", WRITABLE, STRONG_WRITABLE, by=READ_ONLY)
def truncate_read_only_bind(facts: Facts) -> str:
    """Truncate a file of a read-only bind (to the length that it has)."""
    path = f"{facts.readonly}/kept"
    os.truncate(path, os.stat(path).st_size)
    return "it can be truncated"


@attempt("EROFS", WRITABLE, STRONG_WRITABLE, by=READ_ONLY)
def chmod_read_only_bind(facts: Facts) -> str:
    """Change the mode of a file of a read-only bind."""
    path = f"{facts.readonly}/kept"
    os.chmod(path, os.stat(path).st_mode & 0o7777)
    return "its mode can be changed"


@attempt("EROFS|EACCES", WRITABLE, STRONG_WRITABLE, by=READ_ONLY)
def delete_from_read_only_bind(facts: Facts) -> str:
    """Make and delete a file in a read-only bind."""
    path = f"{facts.readonly}/new"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    os.unlink(path)
    return "files can be made and deleted"


def made_set_user_id(facts: Facts, make: Callable[[str], object]) -> str:
    """Whether ``make`` leaves a set-user-id file in the writable bind, where the host would run it as its owner."""
    path = f"{facts.writable}/set-id-{os.getpid()}"
    try:
        make(path)
        mode = os.stat(path).st_mode
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if not mode & stat.S_ISUID:
        raise Refused("the bit is missing")
    return f"mode {mode:o}"


@attempt("EPERM", "sandbox without seccomp", "default", profiles=STRONG, by=SET_ID)
def set_user_id_by_chmod(facts: Facts) -> str:
    """Leave a set-user-id program in a writable bind with chmod(2): on the host it'd run as its owner, even root."""

    def make(path: str) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o755))
        os.chmod(path, 0o4755)

    return made_set_user_id(facts, make)


@attempt("EPERM", "sandbox without seccomp", "default", profiles=STRONG, by=SET_ID)
def set_user_id_by_open(facts: Facts) -> str:
    """The same with the mode that open(2) gives a new file."""
    return made_set_user_id(facts, lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o4755)))


@attempt("EPERM", "sandbox without seccomp", "default", profiles=STRONG, by=SET_ID)
def set_user_id_by_tmpfile(facts: Facts) -> str:
    """The same with a file that has no name at first (O_TMPFILE), and gets one by linkat(2)."""

    def make(path: str) -> None:
        fd = os.open(facts.writable, os.O_WRONLY | os.O_TMPFILE, 0o4755)
        # A directory's descriptor makes os.link call linkat(2), which follows the link.
        os.link(f"/proc/self/fd/{fd}", path, dst_dir_fd=os.open("/", os.O_PATH))

    return made_set_user_id(facts, make)


@attempt("EPERM", "sandbox without seccomp", "default", profiles=STRONG, by=SET_ID)
def set_user_id_by_mknod(facts: Facts) -> str:
    """The same with mknod(2), which makes ordinary files too."""
    return made_set_user_id(facts, lambda path: os.mknod(path, stat.S_IFREG | 0o4755))


@attempt("ENOSYS", "sandbox without seccomp", "default", profiles=STRONG, by="seccomp answers ENOSYS")
def set_user_id_by_openat2(facts: Facts) -> str:
    """The same with openat2(2), whose mode lies in memory."""
    how = b"".join(value.to_bytes(8, "little") for value in (os.O_WRONLY | os.O_CREAT, 0o4755, 0))
    return made_set_user_id(facts, lambda path: call("openat2", -100, path.encode(), buffer(how), 24))


@attempt("EXDEV", "host", by="two mounts of one file system are two places: links and renames don't cross")
def hard_link_out_of_read_only_bind(facts: Facts) -> str:
    """Hard-link a file of the read-only bind into the writable one, and write to it there."""
    link = f"{facts.writable}/linked-{os.getpid()}"
    os.link(f"{facts.readonly}/kept", link)
    try:
        return opened_for_writing(link)
    finally:
        os.unlink(link)


@attempt("EXDEV", "host", by="two mounts of one file system are two places: links and renames don't cross")
def rename_out_of_read_only_bind(facts: Facts) -> str:
    """Rename a file of the read-only bind into the writable one."""
    there = f"{facts.writable}/renamed-{os.getpid()}"
    os.rename(f"{facts.readonly}/kept", there)
    os.rename(there, f"{facts.readonly}/kept")
    return "it moved"


@attempt(
    "EBUSY",
    "default without pinning",
    "full without pinning",
    by="the directories above a read-only bind in a writable one are mount points too",
)
def rename_above_read_only_bind(facts: Facts) -> str:
    """Rename a directory above a read-only bind that lies in a writable one: at the next launch it'd be writable."""
    os.rename(f"{facts.writable}/middle", f"{facts.writable}/moved")
    os.rename(f"{facts.writable}/moved", f"{facts.writable}/middle")
    return "the directory above it moved"


@attempt("EROFS", WRITABLE, by="/ itself is read-only")
def new_file_in_root(facts: Facts) -> str:
    """Make a file in /."""
    os.close(os.open("/mine", os.O_WRONLY | os.O_CREAT))
    return "/ takes new files"


@attempt("EROFS|EACCES", Control("host-root"), by="/usr is read-only, and not the caller's")
def replace_system_program(facts: Facts) -> str:
    """Open a system program for writing."""
    return opened_for_writing("/usr/bin/id")


@attempt("ENOENT", Control("minimal", needs="file /sys/fs/cgroup"), by="there is no /sys")
def cgroup_files(facts: Facts) -> str:
    """Look at the cgroup files."""
    return " ".join(os.listdir("/sys/fs/cgroup")[:3])


@attempt("ENOENT", "host", by="the cache lies where no sandbox sees it")
def filter_cache(facts: Facts) -> str:
    """Open the cache of seccomp filters for writing: the next launch would install what it finds there."""
    (name, *_) = (name for name in os.listdir(facts.cache) if name.startswith("sandbox"))
    return opened_for_writing(f"{facts.cache}/{name}")


@attempt("ENOENT", Control("host-root", needs="file /root"), by=HIDDEN)
def home_of_root(facts: Facts) -> str:
    """List /root."""
    os.listdir("/root")
    return "it can be listed"


@attempt("its root is /", "default", profiles=STRONG, by="the cgroup namespace")
def own_cgroup_path(facts: Facts) -> str:
    """Learn one's place in the host's cgroups."""
    paths = {line.split(":", 2)[2] for line in read("/proc/self/cgroup").splitlines()}
    if paths == {"/"}:
        raise Refused("its root is /")
    return " ".join(sorted(paths))
