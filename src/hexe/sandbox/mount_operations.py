"""The operations that build a sandbox's root: mounts through the new mount API, resolved inside the new root.

No step uses a plain path for where a mount goes. Code that ran in an earlier
sandbox may have planted a symbolic link in a directory that is bound again, so
every destination is opened with openat2(RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS) below
the new root and mounted on through that descriptor: a link can neither lead out nor
choose another place inside.
"""

from __future__ import annotations

from errno import EEXIST

from hexe.linux import constants as c
from hexe.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.program import Builder, Val

_ATTR_NAMES = (
    (c.MOUNT_ATTR_RDONLY, "ro"),
    (c.MOUNT_ATTR_NOSUID, "nosuid"),
    (c.MOUNT_ATTR_NODEV, "nodev"),
    (c.MOUNT_ATTR_NOEXEC, "noexec"),
)
BIND_ATTRS = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV
_BOTH_EMPTY = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH


def attr_names(attrs: int) -> str:
    """``ro,nosuid,nodev`` for MOUNT_ATTR_* bits."""
    return ",".join(name for bit, name in _ATTR_NAMES if attrs & bit)


def _mount_attr(attrs: int) -> bytes:
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd. Private, because a tree that the parent cloned is
    # still a peer of the host's mount, which systemd makes shared: what is mounted in it inside would appear on the
    # host, and what the host mounts there later would appear inside, without these attributes.
    return attrs.to_bytes(8, "little") + bytes(8) + c.MS_PRIVATE.to_bytes(8, "little") + bytes(8)


def _set_attrs(b: Builder, tree: int, attrs: int, about: str) -> None:
    # Recursive: submounts of a bind are covered too, and flags that the host locked stay as they are.
    attr = b.struct(_mount_attr(attrs))
    b.call("mount_setattr", tree, b.text(""), c.AT_EMPTY_PATH | c.AT_RECURSIVE, attr, 32, about=about)


def _open_inside(b: Builder, path: str, slot: Val, flags: int = 0) -> None:
    """openat2 of an absolute inside path, below the new root. A link on the way may be planted, and is refused."""
    how = b.struct(
        (c.O_PATH | c.O_CLOEXEC | flags).to_bytes(8, "little")
        + bytes(8)
        + (c.RESOLVE_IN_ROOT | c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_MAGICLINKS).to_bytes(8, "little")
    )
    b.call("openat2", b.slot("root"), b.text(path.lstrip("/") or "."), how, 24, out=slot, about=path)


def _clone_source(b: Builder, source: str, beneath: str, tree: Val) -> None:
    """open_tree of a source. ``beneath`` is a directory above it that code inside can write: no link may lead out.

    Otherwise a link planted there by an earlier sandbox would choose what this one is shown.
    """
    how = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_RECURSIVE
    if not beneath:
        b.call("open_tree", c.AT_FDCWD, b.text(source), how, out=tree, about=source)
        return
    above, found = b.slot(b.fresh_slot("above")), b.slot(b.fresh_slot("source"))
    flags = c.O_PATH | c.O_CLOEXEC
    b.call("openat", c.AT_FDCWD, b.text(beneath), flags | c.O_DIRECTORY, 0, out=above, about=beneath)
    resolve = c.RESOLVE_BENEATH | c.RESOLVE_NO_MAGICLINKS
    how2 = b.struct(flags.to_bytes(8, "little") + bytes(8) + resolve.to_bytes(8, "little"))
    b.call("openat2", above, b.text(source[len(beneath) :].lstrip("/")), how2, 24, out=found, about=source)
    b.call("open_tree", found, b.text(""), how | c.AT_EMPTY_PATH, out=tree, about=source)
    b.call("close", found)
    b.call("close", above)


def _directory(b: Builder, path: str) -> Val:
    """A descriptor of the directory ``path`` inside, made with its parents where it is missing."""
    missing = []
    above = path
    while above != "/" and above not in b.directories:
        missing.append(above)
        above = above.rpartition("/")[0] or "/"
    at = b.slot("root") if above == "/" else b.slot(b.directories[above])
    for each in reversed(missing):
        b.call("mkdirat", at, b.text(each.rpartition("/")[2]), 0o755, tolerate=(EEXIST,), about=each)
        slot = b.fresh_slot("dir")
        at = b.slot(slot)
        _open_inside(b, each, at, c.O_DIRECTORY)
        b.directories[each] = slot
    return at


def _mount_point(b: Builder, target: str, is_directory: bool) -> Val:
    """A descriptor to mount on; remembered directories at and below ``target`` are forgotten: they get covered."""
    if is_directory:
        slot = _directory(b, target)
    else:
        parent, _, name = target.rpartition("/")
        parent_fd = _directory(b, parent or "/")
        b.call("mknodat", parent_fd, b.text(name), c.S_IFREG | 0o644, 0, tolerate=(EEXIST,), about=target)
        slot = b.slot(b.fresh_slot("file"))
        _open_inside(b, target, slot)
    for path in [path for path in b.directories if path == target or path.startswith(target + "/")]:
        del b.directories[path]
    return slot


def _attach(b: Builder, tree: Val, target: str, is_directory: bool) -> None:
    empty = b.text("")
    point = _mount_point(b, target, is_directory)
    b.call("move_mount", tree, empty, point, empty, _BOTH_EMPTY, about=target)
    b.call("close", point)


def _new_filesystem(b: Builder, kind: str, options: tuple[tuple[str, str], ...], attrs: int, about: str) -> Val:
    """fsopen, fsconfig, fsmount: a detached mount of a new instance."""
    context, mount = b.slot(b.fresh_slot("fs")), b.slot(b.fresh_slot("mount"))
    b.call("fsopen", b.text(kind), c.FSOPEN_CLOEXEC, out=context, about=kind)
    for key, value in options:
        text = f"{key}={value}"
        b.call("fsconfig", context, c.FSCONFIG_SET_STRING, b.text(key), b.text(value), 0, about=text)
    b.call("fsconfig", context, c.FSCONFIG_CMD_CREATE, 0, 0, 0, about=f"{kind} for {about}")
    b.call("fsmount", context, c.FSMOUNT_CLOEXEC, attrs, out=mount, about=about)
    b.call("close", context)
    return mount


class CloneTree(Record):
    """The parent, as host root, clones the tree of a bind: the child may be unable to reach it, or to map its ids.

    ``idmap`` names the owner whose files appear as the sandbox's own. ``required``
    false lets a filesystem without idmapped mounts go on with a plain (weaker) view.
    """

    source: str
    slot: str
    attrs: int
    idmap: tuple[int, int] | None
    required: bool
    because: str
    beneath: str = ""

    def describe(self) -> str:
        mapped = f", files of {self.idmap[0]}:{self.idmap[1]} shown as the sandbox's own" if self.idmap else ""
        return f"clone the tree of {self.source} ({attr_names(self.attrs)}){mapped}"

    def lower(self, b: Builder) -> None:
        from errno import EINVAL

        tree = b.slot(self.slot)
        _clone_source(b, self.source, self.beneath, tree)
        if self.idmap:
            attr = b.struct(_mount_attr(c.MOUNT_ATTR_IDMAP))
            b.name_field(f"idmap.{self.idmap[0]}.{self.idmap[1]}", int(attr) + 24)
            tolerate = () if self.required else (EINVAL,)
            flags = c.AT_EMPTY_PATH | c.AT_RECURSIVE
            about = f"{self.source} (idmapped mount)"
            b.call("mount_setattr", tree, b.text(""), flags, attr, 32, tolerate=tolerate, about=about)
        _set_attrs(b, tree, self.attrs, self.source)


class StopPropagation(Record):
    """Nothing mounted inside may appear outside, or the other way round (mount_namespaces(7), shared subtrees)."""

    because: str

    def describe(self) -> str:
        return "make every mount private"

    def lower(self, b: Builder) -> None:
        b.call("mount", 0, b.text("/"), 0, c.MS_REC | c.MS_PRIVATE, 0, about="/")


class CreateRoot(Record):
    """An empty tmpfs that will be the root. It is stacked on ``/``, where it hides nothing from path lookups yet."""

    because: str

    def describe(self) -> str:
        return "make an empty root on tmpfs"

    def lower(self, b: Builder) -> None:
        root = _new_filesystem(b, "tmpfs", (("mode", "755"), ("size", "16m")), BIND_ATTRS, "the new root")
        b.program.slots["root"] = b.program.slots.pop(b.slot_name(root))
        flags = c.MOVE_MOUNT_F_EMPTY_PATH
        b.call("move_mount", root, b.text(""), c.AT_FDCWD, b.text("/"), flags, about="the new root")


class MakeSymlink(Record):
    """A symbolic link of the host's root that stays one (merged /usr)."""

    path: str
    to: str
    because: str

    def describe(self) -> str:
        return f"link {self.path} -> {self.to}"

    def lower(self, b: Builder) -> None:
        parent, _, name = self.path.rpartition("/")
        b.call("symlinkat", b.text(self.to), _directory(b, parent or "/"), b.text(name), about=self.path)


class BindMount(Record):
    """Show ``source`` of the host at ``target``, submounts included.

    ``slot`` names a tree that the parent cloned; ``beneath`` a directory that the source must not leave.
    """

    source: str
    target: str
    is_directory: bool
    attrs: int
    because: str
    slot: str = ""
    beneath: str = ""

    @property
    def writable(self) -> bool:
        return not self.attrs & c.MOUNT_ATTR_RDONLY

    def describe(self) -> str:
        place = self.source if self.source == self.target else f"{self.source} at {self.target}"
        return f"bind {place} ({'rw,' if self.writable else ''}{attr_names(self.attrs)})"

    def lower(self, b: Builder) -> None:
        if self.slot:
            tree = b.slot(self.slot)
        else:
            tree = b.slot(b.fresh_slot("tree"))
            _clone_source(b, self.source, self.beneath, tree)
            _set_attrs(b, tree, self.attrs, self.source)
        _attach(b, tree, self.target, self.is_directory)
        b.call("close", tree)


class MountTmpfs(Record):
    """A fresh, empty tmpfs."""

    target: str
    mode: str
    because: str
    writable: bool = True

    def describe(self) -> str:
        return f"mount a fresh tmpfs at {self.target} (mode {self.mode}{'' if self.writable else ', read-only'})"

    def lower(self, b: Builder) -> None:
        attrs = BIND_ATTRS if self.writable else BIND_ATTRS | c.MOUNT_ATTR_RDONLY
        mount = _new_filesystem(b, "tmpfs", (("mode", self.mode),), attrs, self.target)
        _attach(b, mount, self.target, True)
        b.call("close", mount)


class MountProc(Record):
    """The proc of the new pid namespace. Mounted before the pivot: the kernel demands a fully visible one beside it."""

    because: str

    def describe(self) -> str:
        return "mount /proc of the new pid namespace"

    def lower(self, b: Builder) -> None:
        attrs = BIND_ATTRS | c.MOUNT_ATTR_NOEXEC
        mount = _new_filesystem(b, "proc", (), attrs, "/proc")
        _attach(b, mount, "/proc", True)
        b.program.slots["proc"] = b.program.slots.pop(b.slot_name(mount))


class MountDev(Record):
    """A minimal /dev: a few harmless devices bound from the host (mknod is refused in a user namespace), own devpts."""

    devices: tuple[str, ...]
    because: str

    def describe(self) -> str:
        return f"make a minimal /dev: {' '.join(self.devices)}, own pts, shm, fd, stdin, stdout, stderr"

    def lower(self, b: Builder) -> None:
        empty = b.text("")
        noexec = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NOEXEC
        dev = _new_filesystem(b, "tmpfs", (("mode", "755"), ("size", "1m")), noexec, "/dev")
        _attach(b, dev, "/dev", True)
        for name in self.devices:
            tree = b.slot(b.fresh_slot("device"))
            source = f"/dev/{name}"
            how = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
            b.call("open_tree", c.AT_FDCWD, b.text(source), how, out=tree, about=source)
            b.call("mknodat", dev, b.text(name), c.S_IFREG | 0o666, 0, about=source)
            b.call("move_mount", tree, empty, dev, b.text(name), c.MOVE_MOUNT_F_EMPTY_PATH, about=source)
        pts_options = (("ptmxmode", "0666"), ("mode", "0620"))
        pts = _new_filesystem(b, "devpts", pts_options, noexec, "/dev/pts")
        shm = _new_filesystem(b, "tmpfs", (("mode", "1777"),), BIND_ATTRS, "/dev/shm")
        for name, mount in (("pts", pts), ("shm", shm)):
            b.call("mkdirat", dev, b.text(name), 0o755, about=f"/dev/{name}")
            b.call("move_mount", mount, empty, dev, b.text(name), c.MOVE_MOUNT_F_EMPTY_PATH, about=f"/dev/{name}")
        for name, to in (
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ):
            b.call("symlinkat", b.text(to), dev, b.text(name), about=f"/dev/{name}")
        b.program.slots["dev"] = b.program.slots.pop(b.slot_name(dev))


class ProtectPath(Record):
    """Make a part of the new /proc read-only, by a read-only mount of itself on itself."""

    path: str
    because: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def lower(self, b: Builder) -> None:
        tree = b.slot(b.fresh_slot("tree"))
        name, empty = b.text(self.path.removeprefix("/proc/")), b.text("")
        how = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
        b.call("open_tree", b.slot("proc"), name, how, out=tree, about=self.path)
        _set_attrs(b, tree, BIND_ATTRS | c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOEXEC, self.path)
        b.call("move_mount", tree, empty, b.slot("proc"), name, c.MOVE_MOUNT_F_EMPTY_PATH, about=self.path)
        b.call("close", tree)


class MaskPath(Record):
    """Hide a file of the new /proc behind /dev/null, a directory behind an empty read-only tmpfs."""

    path: str
    is_directory: bool
    because: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def lower(self, b: Builder) -> None:
        name = b.text(self.path.removeprefix("/proc/"))
        if self.is_directory:
            attrs = BIND_ATTRS | c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOEXEC
            tree = _new_filesystem(b, "tmpfs", (("mode", "755"), ("size", "4k")), attrs, self.path)
        else:
            tree = b.slot(b.fresh_slot("tree"))
            how = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
            b.call("open_tree", b.slot("dev"), b.text("null"), how, out=tree, about="/dev/null")
        proc, flags = b.slot("proc"), c.MOVE_MOUNT_F_EMPTY_PATH
        b.call("move_mount", tree, b.text(""), proc, name, flags, about=self.path)
        b.call("close", tree)


class PivotRoot(Record):
    """pivot_root(2) onto itself, then detach the old root, which is then nowhere: no path leads back."""

    because: str

    def describe(self) -> str:
        return "pivot into the new root and detach the old one"

    def lower(self, b: Builder) -> None:
        here = b.text(".")
        b.call("fchdir", b.slot("root"), about="the new root")
        b.call("pivot_root", here, here, about="the new root")
        b.call("umount2", here, c.MNT_DETACH, about="the old root")
        b.call("chdir", b.text("/"), about="/")


class SealRoot(Record):
    """Make the root and /dev themselves read-only: only what is mounted on them stays writable."""

    because: str

    def describe(self) -> str:
        return "make / and /dev read-only"

    def lower(self, b: Builder) -> None:
        attr = b.struct(c.MOUNT_ATTR_RDONLY.to_bytes(8, "little") + bytes(24))
        for path in ("/", "/dev"):
            b.call("mount_setattr", c.AT_FDCWD, b.text(path), 0, attr, 32, about=path)
