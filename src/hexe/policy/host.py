"""HostFacts: everything about this host and this caller that compiling a plan depends on, probed once before."""

from __future__ import annotations

from hexe.records import Record

NOBODY = 65534
"""The id of nobody and nogroup, which is what root's sandboxes run as where root has no range of its own."""


class Entry(Record):
    """A path of the host: ``kind`` is dir, file, link or missing. For a link ``link`` is its text."""

    kind: str
    link: str = ""
    uid: int = 0
    gid: int = 0
    nearest: str = ""
    """For a missing path, its nearest existing parent."""
    real: str = ""
    """The path with its symbolic links resolved, for a source of a bind."""
    error: str = ""
    """The errno's name when the path could not even be looked at."""


class Stream(Record):
    """One of the standard descriptors: ``kind`` is tty, file, dir, block, device, null, fifo, memory, other or closed.

    null is /dev/null, zero, full, random or urandom; other a socket or a pipe without a name.
    """

    kind: str
    readable: bool = True
    writable: bool = True
    append: bool = False
    path: str = ""
    """Where a file lies, as far as the kernel can say."""


class HostFacts(Record):
    """The host and the caller, as data. ``hexe doctor --json`` prints it; tests make their own."""

    kernel: tuple[int, int]
    machine: str
    uid: int
    gid: int
    user: str
    home: str
    """The caller's own home if it lies under /home, else empty."""
    home_real: str
    """The home with its symbolic links resolved."""
    cwd: str
    host_root: bool
    """The caller is the real root: ids must be mapped to ``root_stand_in`` and trees cloned by the parent."""
    capable: bool
    """The caller holds CAP_SYS_ADMIN, CAP_SETUID and CAP_SETGID."""
    root_stand_in: int
    environment: dict[str, str]
    entries: dict[str, Entry]
    """The system directories, and the sources of the policy's binds."""
    resolv_conf: str
    """The target of /etc/resolv.conf when that lies outside /etc, else empty."""
    namespaces: frozenset[str]
    """The kinds in /proc/self/ns."""
    max_user_namespaces: int
    userns_clone: int
    """kernel.unprivileged_userns_clone; -1 where the kernel has no such switch."""
    apparmor_restricts: bool
    landlock_abi: int
    """0 where the kernel has no Landlock, or it is switched off; minus an errno where the question was refused."""
    seccomp: bool
    proc_entries: frozenset[str]
    """Which of the paths that are masked or made read-only exist in this kernel's /proc."""
    last_capability: int
    streams: tuple[Stream, Stream, Stream]
    protected: tuple[str, ...]
    """Hexe's own files: read-only inside, wherever a writable mount would show them."""
    names: dict[str, str]
    """User names by numeric id, for the identities that the policy names."""
    own_filters: int = 0
    """How many seccomp filters are on the caller already: more than 0 inside a container."""

    def __hash__(self) -> int:
        return id(self)
