"""The operations of a plan: small frozen facts, each able to describe itself and to lower itself to system calls.

``because`` says which promise a step keeps; ``hexe explain`` prints it. Every
stage has its own union type at the end of this file, so that an operation in the
wrong stage fails type-checking. Mounts are in ``mount_operations``.
"""

from __future__ import annotations

from errno import ENOSYS, EOPNOTSUPP

from hexe.linux import constants as c
from hexe.records import Record
from hexe.sandbox.mount_operations import (
    BindMount,
    CloneTree,
    CreateRoot,
    MakeSymlink,
    MaskPath,
    MountDev,
    MountProc,
    MountTmpfs,
    PivotRoot,
    ProtectPath,
    SealRoot,
    StopPropagation,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.program import Builder


class CreateNamespaces(Record):
    """clone3 with these kinds: performed by spawn, before any program runs."""

    kinds: tuple[str, ...]
    because: str

    def flags(self) -> int:
        return sum(NAMESPACE_FLAGS[kind] for kind in self.kinds)

    def describe(self) -> str:
        return "create the namespaces " + ", ".join(self.kinds)


NAMESPACE_FLAGS = {
    "user": c.CLONE_NEWUSER,
    "pid": c.CLONE_NEWPID,
    "mnt": c.CLONE_NEWNS,
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "cgroup": c.CLONE_NEWCGROUP,
    "net": c.CLONE_NEWNET,
}


class WriteIdMaps(Record):
    """The parent writes the child's one-line id maps; ``setgroups`` is denied where the kernel demands it."""

    uid: int
    host_uid: int
    gid: int
    host_gid: int
    deny_setgroups: bool
    because: str

    def describe(self) -> str:
        return f"map uid {self.uid} inside to {self.host_uid} on the host, gid {self.gid} to {self.host_gid}"

    def lower(self, b: Builder) -> None:
        files = [("uid_map", f"{self.uid} {self.host_uid} 1\n"), ("gid_map", f"{self.gid} {self.host_gid} 1\n")]
        if self.deny_setgroups:
            files.insert(0, ("setgroups", "deny"))
        for name, content in files:
            fd = b.slot(f"map.{name}")
            b.call("openat", b.slot("child_proc"), b.text(name), c.O_WRONLY | c.O_CLOEXEC, 0, out=fd, about=name)
            b.call("write", fd, b.text(content), len(content), about=f"{name} ({content.strip()})")
            b.call("close", fd, about=name)


class SwitchIdentity(Record):
    """Become the mapped ids; drop the supplementary groups where that is possible."""

    uid: int
    gid: int
    clear_groups: bool
    because: str

    def describe(self) -> str:
        groups = " and no other groups" if self.clear_groups else ""
        return f"become uid {self.uid}, gid {self.gid}{groups}"

    def lower(self, b: Builder) -> None:
        if self.clear_groups:
            b.call("setgroups", 0, 0)
        b.call("setresgid", self.gid, self.gid, self.gid, about=str(self.gid))
        b.call("setresuid", self.uid, self.uid, self.uid, about=str(self.uid))


class DieWithParent(Record):
    """Pid 1 dies with Hexe, and the kernel kills a pid namespace whose pid 1 is gone (pid_namespaces(7))."""

    because: str

    def describe(self) -> str:
        return "die when the caller dies, even by SIGKILL"

    def lower(self, b: Builder) -> None:
        b.call("prctl", c.PR_SET_PDEATHSIG, c.SIGKILL)


class AdoptOrphans(Record):
    """Without a pid namespace: be the subreaper, so that every descendant can be found and ended."""

    because: str

    def describe(self) -> str:
        return "adopt orphaned descendants"

    def lower(self, b: Builder) -> None:
        b.call("prctl", c.PR_SET_CHILD_SUBREAPER, 1)


class HideFromPeers(Record):
    """Be undumpable: no ptrace, no /proc/1/{root,fd,mem,environ} (ptrace(2), access mode checking)."""

    because: str

    def describe(self) -> str:
        return "make the init process untraceable and unreadable"

    def lower(self, b: Builder) -> None:
        b.call("prctl", c.PR_SET_DUMPABLE, 0)


class SetHostname(Record):
    """sethostname(2) in the new UTS namespace."""

    name: str
    because: str

    def describe(self) -> str:
        return f"set the hostname to {self.name}"

    def lower(self, b: Builder) -> None:
        b.call("sethostname", b.text(self.name), len(self.name.encode()), about=self.name)


class LoopbackUp(Record):
    """Bring ``lo`` up in the new, empty network namespace (netdevice(7))."""

    because: str

    def describe(self) -> str:
        return "bring up the loopback interface, the only one"

    def lower(self, b: Builder) -> None:
        sock = b.slot("loopback")
        request = b.struct(b"lo".ljust(16, b"\0") + (c.IFF_UP | c.IFF_RUNNING).to_bytes(2, "little") + bytes(22))
        b.call("socket", c.AF_INET, c.SOCK_DGRAM | c.SOCK_CLOEXEC, 0, out=sock)
        b.call("ioctl", sock, c.SIOCSIFFLAGS, request, about="SIOCSIFFLAGS lo up")
        b.call("close", sock)


class JoinSessionKeyring(Record):
    """Leave the caller's session keyring for a new, empty one: keyrings aren't namespaced (keyrings(7))."""

    because: str

    def describe(self) -> str:
        return "join a new, empty session keyring"

    def lower(self, b: Builder) -> None:
        # ENOSYS: a kernel without keys has none to leak. EPERM isn't tolerated: the caller's would stay readable.
        b.call("keyctl", c.KEYCTL_JOIN_SESSION_KEYRING, 0, tolerate=(ENOSYS, EOPNOTSUPP))


class ChangeDirectory(Record):
    """chdir(2) to the command's first directory, as seen inside."""

    path: str
    because: str

    def describe(self) -> str:
        return f"start in {self.path}"

    def lower(self, b: Builder) -> None:
        b.call("chdir", b.text(self.path), about=self.path)


class OpenTerminal(Record):
    """A pseudo-terminal from the sandbox's own devpts; its master goes to the caller, which relays it."""

    private: bool
    console: bool
    because: str

    def describe(self) -> str:
        where = "the sandbox's own devpts" if self.private else "the host's devpts"
        return f"open a terminal in {where}" + (" and show it as /dev/console" if self.console else "")

    def lower(self, b: Builder) -> None:
        master, peer = b.slot("terminal_master"), b.slot("terminal_peer")
        flags = c.O_RDWR | c.O_NOCTTY | c.O_CLOEXEC
        b.call("openat", c.AT_FDCWD, b.text("/dev/ptmx"), flags, 0, out=master, about="/dev/ptmx")
        b.call("ioctl", master, c.TIOCSPTLCK, b.struct(bytes(8)), about="TIOCSPTLCK")
        b.call("ioctl", master, c.TIOCGPTPEER, flags, out=peer, about="TIOCGPTPEER")
        if self.console:
            # The first terminal of a new devpts instance is number 0.
            tree = b.slot("console")
            empty = b.text("")
            how = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
            b.call("open_tree", c.AT_FDCWD, b.text("/dev/pts/0"), how, out=tree, about="/dev/pts/0")
            b.call("mknodat", c.AT_FDCWD, b.text("/dev/console"), c.S_IFREG | 0o600, 0, about="/dev/console")
            b.call(
                "move_mount", tree, empty, c.AT_FDCWD, b.text("/dev/console"), c.MOVE_MOUNT_F_EMPTY_PATH,
                about="/dev/console",
            )  # fmt: skip


class DropCapabilities(Record):
    """Empty every capability set: bounding and ambient too, and lock the securebits (capabilities(7))."""

    last: int
    lock: bool
    because: str

    def describe(self) -> str:
        return "drop every capability: bounding, ambient, permitted, effective, inheritable"

    def lower(self, b: Builder) -> None:
        if self.lock:
            b.call("prctl", c.PR_SET_SECUREBITS, c.SECUREBITS_LOCKED, about="PR_SET_SECUREBITS")
        b.call("prctl", c.PR_CAPBSET_DROP, 0, about=f"PR_CAPBSET_DROP 0 to {self.last}", repeat=self.last + 1)
        b.call("prctl", c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, about="PR_CAP_AMBIENT_CLEAR_ALL")
        header = b.struct(c.LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4))
        b.call("capset", header, b.struct(bytes(24)))


class ForbidNewPrivileges(Record):
    """no_new_privs: no execve gains anything, setuid or file capabilities included (PR_SET_NO_NEW_PRIVS(2const))."""

    because: str

    def describe(self) -> str:
        return "set no_new_privs"

    def lower(self, b: Builder) -> None:
        b.call("prctl", c.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, about="PR_SET_NO_NEW_PRIVS")


class LandlockRule(Record):
    """``rights`` beneath a path, or on a standard descriptor when ``fd`` isn't negative."""

    path: str
    rights: int
    fd: int = -1


class RestrictFiles(Record):
    """Landlock: file rules that mirror the mounts, and scopes for abstract sockets and signals (landlock(7))."""

    abi: int
    handled: int
    scopes: int
    rules: tuple[LandlockRule, ...]
    because: str

    def describe(self) -> str:
        scoped = " and scopes for abstract sockets and signals" if self.scopes else ""
        return f"restrict files with Landlock (ABI {self.abi}): {len(self.rules)} rules{scoped}"

    def lower(self, b: Builder) -> None:
        # struct landlock_ruleset_attr grew: handled_access_fs, then _net (ABI 4), then scoped (ABI 6)
        size = 8 if self.abi < 4 else 16 if self.abi < 6 else 24
        attr = self.handled.to_bytes(8, "little") + bytes(8) + self.scopes.to_bytes(8, "little")
        ruleset = b.slot("landlock")
        b.call("landlock_create_ruleset", b.struct(attr[:size]), size, 0, out=ruleset)
        for rule in self.rules:
            # struct landlock_path_beneath_attr is packed: allowed_access, parent_fd
            beneath = b.struct(rule.rights.to_bytes(8, "little") + (rule.fd & 0xFFFFFFFF).to_bytes(4, "little"))
            about = rule.path or f"descriptor {rule.fd}"
            if rule.fd < 0:
                field = int(beneath) + 8
                flags = c.O_PATH | c.O_CLOEXEC
                b.call("openat", c.AT_FDCWD, b.text(rule.path), flags, 0, out=field, about=rule.path)
            b.call("landlock_add_rule", ruleset, c.LANDLOCK_RULE_PATH_BENEATH, beneath, 0, about=about)
        b.call("landlock_restrict_self", ruleset, 0)


class InstallSeccomp(Record):
    """The seccomp filter, as its BPF program. Last: it refuses much of what comes before (seccomp(2))."""

    variant: str
    filter: bytes
    because: str

    def describe(self) -> str:
        return f"install the seccomp filter {self.variant} ({len(self.filter) // 8} instructions)"

    def lower(self, b: Builder) -> None:
        code = b.struct(self.filter)
        program = b.struct((len(self.filter) // 8).to_bytes(8, "little") + bytes(8))
        b.relocate(int(program) + 8, code)
        b.call("seccomp", c.SECCOMP_SET_MODE_FILTER, 0, program, about=self.variant)


class Execute(Record):
    """execve(2) of the command, with the environment that the policy allows. Only the command does this."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    because: str

    def describe(self) -> str:
        import shlex

        return "execute " + shlex.join(self.argv)


if TYPE_CHECKING:
    HostOperation = CloneTree
    MapsOperation = WriteIdMaps
    OuterOperation = (
        SwitchIdentity
        | DieWithParent
        | AdoptOrphans
        | HideFromPeers
        | StopPropagation
        | CreateRoot
        | MakeSymlink
        | BindMount
        | MountTmpfs
        | MountProc
        | MountDev
        | MaskPath
        | ProtectPath
    )
    InnerOperation = (
        PivotRoot | SetHostname | LoopbackUp | JoinSessionKeyring | OpenTerminal | SealRoot | ChangeDirectory
    )
    SealOperation = DropCapabilities | ForbidNewPrivileges | RestrictFiles | InstallSeccomp
    Operation = HostOperation | MapsOperation | OuterOperation | InnerOperation | SealOperation
