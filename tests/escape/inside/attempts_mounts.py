"""Making read-only writable, laying bare what is hidden, and getting a namespace in which one could."""

from __future__ import annotations

import os
import signal
import socket

from kit import (
    AT_FDCWD,
    CLONE_NEWUSER,
    FULL,
    MNT_DETACH,
    MS_BIND,
    MS_REMOUNT,
    STRONG,
    Control,
    Facts,
    Refused,
    attempt,
    become_privileged_in_a_nested_namespace,
    buffer,
    call,
    read,
    words,
)

NO_CAPABILITIES = "no capability in the user namespace that owns the mounts (and seccomp in sandbox, full)"
OWNER = "default without capabilities"
STRONG_OWNER = "sandbox without seccomp, capabilities, landlock"
FULL_OWNER = "full without seccomp, capabilities, landlock"
NESTED = "the mounts belong to the sandbox's user namespace: in a nested one they are locked"


def overwritten(facts: Facts) -> str:
    """Try to change a file of the read-only bind, and say so if it worked."""
    path = f"{facts.readonly}/kept"
    before = read(path)
    with open(path, "r+b") as file:
        file.write(b"changed")
    if read(path) == before:
        raise Refused("the file is unchanged")
    with open(path, "r+b") as file:
        file.write(before.encode())
    return f"{path} was changed"


def clear_read_only(path: str) -> None:
    """mount_setattr that takes MOUNT_ATTR_RDONLY away."""
    call("mount_setattr", AT_FDCWD, path.encode(), 0, buffer(words(0, 1, 0, 0)), 32)


@attempt("EPERM", OWNER, STRONG_OWNER, FULL_OWNER, by=NO_CAPABILITIES)
def remount_read_only_bind(facts: Facts) -> str:
    """Remount a read-only bind writable with mount(2), and change a file."""
    call("mount", b"none", facts.readonly.encode(), None, MS_REMOUNT | MS_BIND, None)
    return overwritten(facts)


@attempt("EPERM", OWNER, STRONG_OWNER, FULL_OWNER, by=NO_CAPABILITIES)
def setattr_read_only_bind(facts: Facts) -> str:
    """Take read-only off a bind with mount_setattr(2), and change a file."""
    clear_read_only(facts.readonly)
    return overwritten(facts)


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def remount_system_directory(facts: Facts) -> str:
    """Remount /usr writable."""
    call("mount", b"none", b"/usr", None, MS_REMOUNT | MS_BIND, None)
    return "/usr is mounted rw"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def remount_root(facts: Facts) -> str:
    """Take read-only off the root directory, and make a file in it."""
    clear_read_only("/")
    os.close(os.open("/made-by-an-escape", os.O_WRONLY | os.O_CREAT))
    return "/ takes new files"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def umount_read_only_bind(facts: Facts) -> str:
    """Unmount a read-only bind, to reach what lies below it."""
    call("umount2", facts.readonly.encode(), MNT_DETACH)
    return "it is unmounted"


@attempt("EPERM", STRONG_OWNER, FULL_OWNER, profiles=STRONG, by=NO_CAPABILITIES)
def umount_mask(facts: Facts) -> str:
    """Unmount the mask over /proc/kallsyms."""
    call("umount2", b"/proc/kallsyms", MNT_DETACH)
    return f"/proc/kallsyms shows {len(read('/proc/kallsyms'))} bytes"


@attempt("EPERM", STRONG_OWNER, FULL_OWNER, profiles=STRONG, by=NO_CAPABILITIES)
def umount_proc_sys(facts: Facts) -> str:
    """Unmount the read-only layer over /proc/sys."""
    call("umount2", b"/proc/sys", MNT_DETACH)
    return "/proc/sys is as it was"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def mount_tmpfs(facts: Facts) -> str:
    """Mount a tmpfs over /etc, to give programs another passwd."""
    call("mount", b"none", b"/etc", b"tmpfs", 0, None)
    return "/etc is another one"


@attempt("EPERM", OWNER, by=f"{NO_CAPABILITIES}; over a masked /proc the kernel refuses a second one to anybody")
def mount_proc(facts: Facts) -> str:
    """Mount a second /proc, without masks."""
    call("mount", b"none", b"/tmp", b"proc", 0, None)
    return "a fresh /proc"


@attempt("EPERM", "host-root", by="no capability over the network namespace's owner, no visible sysfs")
def mount_sysfs(facts: Facts) -> str:
    """Mount /sys."""
    call("mount", b"none", b"/tmp", b"sysfs", 1, None)
    return "/sys is visible"


@attempt("EPERM", STRONG_OWNER, profiles=STRONG, by=NO_CAPABILITIES)
def mount_cgroup(facts: Facts) -> str:
    """Mount the cgroup file system, to raise one's own limits."""
    call("mount", b"none", b"/tmp", b"cgroup2", 0, None)
    return "cgroup files: " + " ".join(sorted(os.listdir("/tmp"))[:3])


@attempt("EPERM", STRONG_OWNER, profiles=STRONG, by=NO_CAPABILITIES)
def fsopen(facts: Facts) -> str:
    """The new mount interface: a file system context (CVE-2022-0185)."""
    call("fsopen", b"tmpfs", 0)
    return "a file system context"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def open_tree_clone(facts: Facts) -> str:
    """Clone the mount tree of / with open_tree(2)."""
    call("open_tree", AT_FDCWD, b"/", 1 | 0x8000)
    return "a detached copy of the root"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def bind_root_without_its_mounts(facts: Facts) -> str:
    """Bind / alone elsewhere, to see the directories below the mounts."""
    call("mount", b"/", b"/tmp", None, MS_BIND, None)
    return "below the mounts: " + " ".join(os.listdir("/tmp"))


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def move_mount(facts: Facts) -> str:
    """Move the read-only bind away with move_mount(2)."""
    call("move_mount", AT_FDCWD, facts.readonly.encode(), AT_FDCWD, b"/tmp", 0)
    return "it moved"


@attempt("EPERM", OWNER, STRONG_OWNER, by=NO_CAPABILITIES)
def pivot_root(facts: Facts) -> str:
    """pivot_root(2) into /tmp, and look at the old root."""
    os.mkdir("/tmp/old")
    call("pivot_root", b"/tmp", b"/tmp/old")
    return "another root"


@attempt("EPERM", OWNER, STRONG_OWNER, by="no CAP_SYS_CHROOT (and seccomp in sandbox, full); / is a mount root anyway")
def chroot_twice(facts: Facts) -> str:
    """The double chroot: keep a directory open, chroot below it, and climb out of the first root."""
    os.makedirs("/tmp/one/two", exist_ok=True)
    os.chdir("/tmp/one")
    call("chroot", b".")
    call("chroot", b"two")
    for _ in range(64):
        os.chdir("..")
    call("chroot", b".")
    return "at the top: " + " ".join(sorted(os.listdir("/")))


@attempt("EPERM", "sandbox without seccomp", "full without seccomp", profiles=STRONG, by="seccomp refuses the flag")
def nested_userns_by_unshare(facts: Facts) -> str:
    """A nested user namespace, with every capability in it, by unshare(2)."""
    call("unshare", CLONE_NEWUSER)
    return "a new user namespace"


@attempt("EPERM", "sandbox without seccomp", "full without seccomp", profiles=STRONG, by="seccomp refuses the flag")
def nested_userns_by_clone(facts: Facts) -> str:
    """A nested user namespace by clone(2)."""
    pid = call("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a new user namespace"


@attempt("ENOSYS", "sandbox without seccomp", "full without seccomp", profiles=STRONG, by="seccomp answers ENOSYS")
def nested_userns_by_clone3(facts: Facts) -> str:
    """A nested user namespace by clone3(2), whose flags lie in memory."""
    pid = call("clone3", buffer(words(CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "a child in a new user namespace"


@attempt("EPERM", OWNER, STRONG_OWNER, by="no CAP_SYS_ADMIN (and seccomp in sandbox, full)")
def setns(facts: Facts) -> str:
    """Join a mount namespace with setns(2)."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    call("setns", fd, 0)
    return "joined a mount namespace"


@attempt(
    {"default": "EACCES", "sandbox": "EACCES", "full": "EACCES"},
    Control("default without dumpable", needs="no yama"),
    by="init is undumpable",
)
def open_namespace_of_init(facts: Facts) -> str:
    """Open pid 1's namespaces."""
    fds = [os.open(f"/proc/1/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "pid", "user")]
    return f"{len(fds)} namespace descriptors"


@attempt({"default": "EPERM"}, OWNER, by=NESTED)
def nested_userns_remount(facts: Facts) -> str:
    """In a nested user namespace, remount a read-only bind writable."""
    become_privileged_in_a_nested_namespace()
    call("mount", b"none", facts.readonly.encode(), None, MS_REMOUNT | MS_BIND, None)
    return overwritten(facts)


@attempt({"default": "EPERM"}, OWNER, by=NESTED)
def nested_userns_setattr(facts: Facts) -> str:
    """In a nested user namespace, take read-only off a bind with mount_setattr(2)."""
    become_privileged_in_a_nested_namespace()
    clear_read_only(facts.readonly)
    return overwritten(facts)


@attempt({"default": "EPERM"}, OWNER, by=NESTED)
def nested_userns_remount_copy(facts: Facts) -> str:
    """In a nested user namespace, bind the read-only bind once more and make the copy writable."""
    become_privileged_in_a_nested_namespace()
    call("mount", facts.readonly.encode(), b"/tmp", None, MS_BIND, None)
    call("mount", b"none", b"/tmp", None, MS_REMOUNT | MS_BIND, None)
    return overwritten(facts._replace(readonly="/tmp"))


@attempt({"default": "EINVAL"}, OWNER, by=NESTED)
def nested_userns_umount(facts: Facts) -> str:
    """In a nested user namespace, unmount a read-only bind."""
    become_privileged_in_a_nested_namespace()
    call("umount2", facts.readonly.encode(), MNT_DETACH)
    return "it is unmounted"


@attempt({"default": "EINVAL"}, OWNER, by=NESTED)
def nested_userns_bind_root(facts: Facts) -> str:
    """In a nested user namespace, bind / without its mounts, to see what they cover."""
    become_privileged_in_a_nested_namespace()
    call("mount", b"/", b"/tmp", None, MS_BIND, None)
    return "below the mounts: " + " ".join(os.listdir("/tmp"))


@attempt({"default": "EPERM"}, OWNER, by=NESTED)
def nested_userns_root(facts: Facts) -> str:
    """In a nested user namespace, take read-only off / and make a file in it."""
    become_privileged_in_a_nested_namespace()
    clear_read_only("/")
    os.close(os.open("/made-by-an-escape", os.O_WRONLY | os.O_CREAT))
    return "/ takes new files"


@attempt(
    "EPERM",
    Control("full without capabilities", needs=""),
    profiles=FULL,
    by="no CAP_NET_RAW in the network namespace",
)
def raw_socket(facts: Facts) -> str:
    """A raw IP socket."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "a raw socket"
