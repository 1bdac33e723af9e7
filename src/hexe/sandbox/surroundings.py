"""What lies around Hexe: a container, filters, limits. Read only when something was refused, and by ``hexe doctor``."""

from __future__ import annotations

import os

from hexe.records import Record
from hexe.sandbox.attest import NAMESPACE_KINDS, unescape
from hexe.sandbox.probe import read_number, read_text

_OVERFLOW_ID = 65534


class Surroundings(Record):
    """Facts that no plan depends on, but that explain a refusal."""

    seccomp_mode: int = 0
    """Of Hexe itself: 0 none, 1 strict, 2 a filter that somebody put around it."""
    no_new_privs: bool = False
    container: str = ""
    """What marks this as a container, in words; empty without a mark. A hint, no proof."""
    inside_hexe: str = ""
    """The profile of the sandbox that Hexe itself runs in, if any."""
    chrooted: bool = False
    unmapped_ids: bool = False
    """The caller's uid or gid has no name in its own user namespace."""
    limits: dict[str, int] = {}  # noqa: RUF012 - never changed, as all of a Record
    """user.max_KIND_namespaces by kind, where the kernel has such a limit."""
    proc_covered: tuple[str, ...] = ()
    """Mount points below /proc: the host's own /proc isn't fully visible."""
    proc_mounted: bool = True

    def __hash__(self) -> int:
        return id(self)


def look_around() -> Surroundings:
    """Read it all. Never raises: what can't be read is left at its harmless value."""
    status = read_text("/proc/self/status")
    mounts = mount_points(read_text("/proc/self/mountinfo"))
    return Surroundings(
        seccomp_mode=int(status_value(status, "Seccomp") or 0),
        no_new_privs=status_value(status, "NoNewPrivs") == "1",
        container=container_marks(mounts),
        inside_hexe=os.environ.get("HEXE_ISOLATION", ""),
        chrooted=is_chroot(mounts),
        unmapped_ids=has_unmapped_ids(),
        limits={kind: limit for kind in NAMESPACE_KINDS if (limit := namespace_limit(kind)) >= 0},
        proc_covered=tuple(sorted({point for point in mounts if is_cover(point)})),
        proc_mounted="/proc" in mounts or not mounts,
    )


def status_value(status: str, name: str) -> str:
    """The value of one line of /proc/PID/status. Pure."""
    for line in status.split("\n"):
        if line.startswith(name + ":"):
            return line.partition(":")[2].strip()
    return ""


def mount_points(mountinfo: str) -> tuple[str, ...]:
    """Every mount point in the text of a mountinfo file. Pure."""
    return tuple(unescape(line.split(" ", 5)[4]) for line in mountinfo.split("\n") if line.count(" ") > 4)


def is_chroot(mounts: tuple[str, ...]) -> bool:
    """Whether the root directory is another than the mount namespace's own: a sure yes, not a sure no."""
    if mounts and "/" not in mounts:
        return True
    try:
        if os.readlink("/proc/1/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
            return False
        ours, first = os.stat("/"), os.stat("/proc/1/root")
    except OSError:
        return False  # only root may look
    return (ours.st_dev, ours.st_ino) != (first.st_dev, first.st_ino)


def is_cover(point: str) -> bool:
    """Whether a mount at this point hides a part of /proc. Pure.

    The kernel lets pass what is mounted on its own empty directories, and binfmt_misc is such a one on every host.
    """
    return point.startswith("/proc/") and point != "/proc/sys/fs/binfmt_misc"


def container_marks(mounts: tuple[str, ...]) -> str:
    """What says that this is a container: the marks that docker, podman, LXC and systemd-nspawn leave."""
    if os.path.exists("/.dockerenv"):
        return "docker: /.dockerenv exists"
    if os.path.exists("/run/.containerenv"):
        return "podman: /run/.containerenv exists"
    if named := os.environ.get("container"):  # noqa: SIM112 - systemd's container interface spells it so
        return f"{named}: the variable container is set"
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes: the variable KUBERNETES_SERVICE_HOST is set"
    if "/proc/kcore" in mounts and "/proc/sys" in mounts:
        return "a container runtime masked parts of /proc"
    return ""


def has_unmapped_ids() -> bool:
    """Whether the caller's ids are the overflow id because its user namespace has no map for them."""
    for name, own in (("uid_map", os.getuid()), ("gid_map", os.getgid())):
        text = read_text(f"/proc/self/{name}")
        if own == _OVERFLOW_ID and not covers_id(text, own):
            return True
    return False


def covers_id(id_map: str, number: int) -> bool:
    """Whether an id map's text has the id on its inside. Pure."""
    for line in id_map.split("\n"):
        fields = line.split()
        if len(fields) == 3 and int(fields[0]) <= number < int(fields[0]) + int(fields[2]):
            return True
    return False


def namespace_limit(kind: str) -> int:
    """user.max_KIND_namespaces, as it counts for this process; -1 when the kernel has no such limit."""
    return read_number(f"/proc/sys/user/max_{kind}_namespaces", -1)
