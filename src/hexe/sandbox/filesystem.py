"""Which mounts make a sandbox's root, in which order, and where a host path is seen inside. Pure."""

from __future__ import annotations

from hexe.linux import constants as c
from hexe.policy.host import Entry
from hexe.policy.model import normalize
from hexe.sandbox.mount_operations import BIND_ATTRS, BindMount, MakeSymlink, MountTmpfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.policy.model import Mount, Policy

    Placed = BindMount | MountTmpfs

READ_ONLY = BIND_ATTRS | c.MOUNT_ATTR_RDONLY
PROC_READ_ONLY = ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/sysrq-trigger")
PROC_MASKED = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/asound",
)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def covers(parent: str, path: str) -> bool:
    """Whether ``path`` is ``parent`` or lies below it."""
    return parent in (path, "/") or path.startswith(parent + "/")


def inside_home(policy: Policy, facts: HostFacts) -> str:
    """Where home is inside: the caller's own under /home, or /home/NAME, private."""
    if not policy.mount_namespace:
        return ""
    return facts.home or f"/home/{facts.user}"


def system_mounts(policy: Policy, facts: HostFacts) -> tuple[list[Placed], list[MakeSymlink]]:
    """The read-only system directories of the profile and what DNS needs; a link of the host stays a link."""
    mounts: list[Placed] = []
    links: list[MakeSymlink] = []
    profile = policy.profile
    for path in policy.read_only:
        entry = facts.entries.get(path)
        if entry is None or entry.kind == "missing":
            continue
        if entry.kind == "link" and path.count("/") == 1:
            links.append(MakeSymlink(path, entry.link, f"profile {profile}: as on the host"))
        else:
            because = f"profile {profile}: read-only system directories"
            mounts.append(BindMount(path, path, True, READ_ONLY, because))
    if facts.resolv_conf and policy.network == "host":
        because = "DNS: /etc/resolv.conf points there"
        mounts.append(BindMount(facts.resolv_conf, facts.resolv_conf, False, READ_ONLY, because))
    return mounts, links


def home_mount(policy: Policy, facts: HostFacts) -> Placed:
    """The home: the caller's own, or a private one when it lies elsewhere or the policy says so."""
    home = inside_home(policy, facts)
    if policy.home == "private":
        return MountTmpfs(home, "700", "--home private: an empty home")
    if not facts.home:
        because = "the caller's home isn't under /home: an empty one instead"
        return MountTmpfs(home, "700", because, writable=policy.home != "ro")
    attrs = READ_ONLY if policy.home == "ro" else BIND_ATTRS
    because = f"profile {policy.profile}: the caller's home ({policy.home})"
    return BindMount(home, home, True, attrs, because, slot_for(home, facts))


def slot_for(target: str, facts: HostFacts) -> str:
    """The slot of the tree that the parent clones for this target when it is host root; else empty."""
    return f"tree {target}" if facts.host_root else ""


def user_mount(mount: Mount, facts: HostFacts) -> Placed:
    """What the user asked for with --bind, --ro-bind or --tmpfs."""
    if mount.kind == "tmpfs":
        return MountTmpfs(mount.target, "1777" if mount.target == "/tmp" else "755", f"--tmpfs {mount.target}")
    entry = facts.entries.get(mount.source, Entry("dir"))
    attrs = READ_ONLY if mount.kind == "ro-bind" else BIND_ATTRS
    because = f"--{mount.kind} {mount.source}" + (f":{mount.target}" if mount.target != mount.source else "")
    return BindMount(mount.source, mount.target, entry.kind == "dir", attrs, because, slot_for(mount.target, facts))


def order(mounts: list[Placed]) -> list[Placed]:
    """Drop what a later mount hides, whole; what is left has parents before children."""
    kept: list[Placed] = []
    for index, mount in enumerate(mounts):
        if not any(covers(later.target, mount.target) for later in mounts[index + 1 :]):
            kept.append(mount)
    return kept


def real_source(mount: BindMount, facts: HostFacts) -> str:
    """A bind's source with its symbolic links resolved, as far as it was probed."""
    entry = facts.entries.get(mount.source)
    return (entry.real if entry else "") or mount.source


def follow_links(target: str, links: list[MakeSymlink]) -> str:
    """Where a target lies when its first component is one of the root's own links: /bin/x is /usr/bin/x."""
    for link in links:
        if target.startswith(link.path + "/"):
            to = link.to if link.to.startswith("/") else "/" + link.to
            return normalize(to + target[len(link.path) :])
    return target


def confine_sources(mounts: list[Placed], facts: HostFacts) -> list[Placed]:
    """Hold every source that lies in a directory which code inside can write beneath that directory."""
    writable: list[str] = []
    for mount in mounts:
        if isinstance(mount, BindMount) and mount.writable:
            writable += {mount.source, real_source(mount, facts)}
    confined: list[Placed] = []
    for mount in mounts:
        if isinstance(mount, BindMount):
            above = [source for source in writable if covers(source, mount.source) and source != mount.source]
            confined.append(mount.replace(beneath=min(above, key=len)) if above else mount)
        else:
            confined.append(mount)
    return confined


def protect(mounts: list[Placed], facts: HostFacts) -> list[Placed]:
    """The mounts, and right behind each writable one what keeps the read-only places in it from being renamed away,
    and read-only binds of those of Hexe's own files that it would show.

    Right behind it, not at the end: what a later mount covers must stay covered.
    """
    found: list[Placed] = []
    for index, mount in enumerate(mounts):
        found.append(mount)
        if isinstance(mount, BindMount) and mount.writable:
            found += _guards(mount, mounts[index + 1 :], facts)
    return order(found)


def _pins(mount: BindMount, later: list[Placed], facts: HostFacts) -> list[BindMount]:
    """The directories between a writable bind and the read-only binds of its own parts, as mount points of their own.

    A mount point can't be renamed. A directory above it could be, and then the next
    launch would show the same files in another place, writable.
    """
    found: list[BindMount] = []
    source = real_source(mount, facts)
    for part in later:
        if not isinstance(part, BindMount) or part.writable:
            continue
        path = real_source(part, facts)
        if not covers(source, path) or _shown_at(path, source, mount.target) != part.target:
            continue
        because = f"{part.target} lies below, read-only: it can't be renamed away"
        found += _pins_above(path, source, mount, because, found, facts)
    return found


def _pins_above(
    path: str, source: str, mount: BindMount, because: str, pinned: list[BindMount], facts: HostFacts
) -> list[BindMount]:
    """The directories between a bind's source and ``path`` as mount points, but for those that are pinned already."""
    taken = {other.target for other in pinned}
    places = [(above, _shown_at(above, source, mount.target)) for above in ancestors(path, source)]
    return [
        BindMount(above, place, True, BIND_ATTRS, because, slot_for(place, facts))
        for above, place in places
        if place not in taken
    ]


def _guards(mount: BindMount, later: list[Placed], facts: HostFacts) -> list[BindMount]:
    """What keeps code inside from changing Hexe's own files, and read-only binds, through one writable bind."""
    # First the pins: what comes behind covers nothing of them, since its own directories above are among them.
    found = _pins(mount, later, facts)
    source = real_source(mount, facts)
    why = "Hexe's own files: code inside must not change the next sandbox"
    for path in facts.protected:
        if covers(path, source):
            return [mount.replace(attrs=READ_ONLY, because=why)]
        if not covers(source, path):
            continue
        target = _shown_at(path, source, mount.target)
        # A mount point can't be renamed, but a directory above it can: so those become mount points too. Also where
        # a later mount covers the files (`order` drops what it hides): the directories above that are still the host's.
        because = "Hexe's own files lie below: it can't be renamed away"
        found += _pins_above(path, source, mount, because, found, facts)
        found.append(BindMount(path, target, True, READ_ONLY, why, slot_for(target, facts)))
    return found


def _shown_at(path: str, source: str, target: str) -> str:
    """Where a bind of ``source`` at ``target`` shows ``path``."""
    return normalize(target + path[len(source.rstrip("/")) :])


def only_written_beside(path: str, mounts: list[Placed], facts: HostFacts) -> bool:
    """Whether the host's file at ``path`` lies in a writable bind's source, but can't be written where that shows it.

    A read-only mount or a tmpfs lies over it there. Landlock goes by inodes: for a descriptor from the host, it
    finds the rule of the directory above, and nothing of the mount that is in between inside.
    """
    inside = False
    for index, mount in enumerate(mounts):
        if isinstance(mount, BindMount) and mount.writable and covers(real_source(mount, facts), path):
            target = _shown_at(path, real_source(mount, facts), mount.target)
            if not any(covers(later.target, target) for later in mounts[index + 1 :]):
                return False
            inside = True
    return inside


def ancestors(path: str, top: str) -> list[str]:
    """The directories strictly between ``top`` and ``path``, outermost first."""
    found: list[str] = []
    above = path.rpartition("/")[0]
    while above and above != top and covers(top, above):
        found.insert(0, above)
        above = above.rpartition("/")[0]
    return found


def seen_inside(path: str, mounts: list[Placed]) -> str:
    """Where the host's ``path`` is seen inside: the path there, or an empty string when no mount shows it."""
    for index in range(len(mounts) - 1, -1, -1):
        mount = mounts[index]
        if isinstance(mount, BindMount) and covers(mount.source, path):
            target = _shown_at(path, mount.source, mount.target)
            if not any(covers(later.target, target) for later in mounts[index + 1 :]):
                return target
    return ""
