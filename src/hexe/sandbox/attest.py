"""attest: read what the kernel says of a started process, and compare it with the plan. A plan isn't proof.

Init stands at the gate, sealed, before anything of the command exists. What is read
there from outside (/proc/PID/status, ns, mountinfo, cgroup) is what the command will
run with: it inherits all of it, and execve gives nothing back under no_new_privs with
empty capability sets. For a report the command's own status is read as well.
"""

from __future__ import annotations

import os
from errno import ESRCH

from hexe.linux.files import read_bytes
from hexe.records import Record
from hexe.sandbox.mount_operations import BindMount, MaskPath, MountTmpfs, ProtectPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.sandbox.plan import Plan

NAMESPACE_KINDS = ("user", "pid", "mnt", "uts", "ipc", "net", "cgroup")
_STATUS_FIELDS = frozenset(
    [
        "Uid",
        "Gid",
        "Groups",
        "NSpid",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ]
)
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


class Evidence(Record):
    """What /proc said of one process: fields of status, namespace ids, and mounts as (point, read-only)."""

    status: dict[str, str]
    namespaces: dict[str, str]
    mounts: tuple[tuple[str, bool], ...]
    cgroup: str


def read_evidence(pid: int) -> Evidence:
    """Read a process from outside. Raises OSError when it is gone or may not be read."""
    base = f"/proc/{pid}"
    mounts = []
    for line in _read(f"{base}/mountinfo").split("\n"):
        if line:
            # proc_pid_mountinfo(5): id, parent, device, root, mount point, mount options, ...
            fields = line.split(" ", 6)
            mounts.append((unescape(fields[4]), "ro" in fields[5].split(",")))
    return Evidence(read_status(pid), read_namespaces(pid), tuple(mounts), _read(f"{base}/cgroup"))


def read_status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status that are evidence. A dead process that isn't reaped still has them."""
    status: dict[str, str] = {}
    for line in _read(f"/proc/{pid}/status").split("\n"):
        name, _, value = line.partition(":")
        if name in _STATUS_FIELDS:
            status[name] = value.strip().replace("\t", " ")
    return status


def pid_of(pidfd: int) -> int:
    """The pid, on our side, of the process of a pidfd (pidfd_open(2), /proc/PID/fdinfo). Raises ProcessLookupError."""
    for line in _read(f"/proc/self/fdinfo/{pidfd}").split("\n"):
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError(ESRCH, "the process is gone", f"/proc/self/fdinfo/{pidfd}")


def read_namespaces(pid: int | str) -> dict[str, str]:
    """The identity of each namespace of a process, such as ``net:[4026531840]``."""
    found = {}
    for kind in NAMESPACE_KINDS:
        try:
            found[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")
        except FileNotFoundError:
            continue
    return found


def unescape(path: str) -> str:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    if "\\" not in path:
        return path
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _read(path: str) -> str:
    return read_bytes(path).decode("utf-8", "surrogateescape")


def compare(plan: Plan, facts: HostFacts, evidence: Evidence, own: dict[str, str]) -> tuple[str, ...]:
    """Every difference between the plan and the evidence; empty when the kernel agrees. ``own``: the caller's. Pure."""
    policy = plan.policy
    status = evidence.status
    wrong = []
    for kind in plan.namespaces.kinds:
        seen = evidence.namespaces.get(kind, "")
        if not seen or seen == own.get(kind):
            wrong.append(f"the {kind} namespace is the caller's")
    if policy.drop_privileges:
        for name in _CAPABILITY_SETS:
            if int(status.get(name, "1"), 16):
                wrong.append(f"{name} is {status.get(name, 'unknown')}, not empty")
        if status.get("NoNewPrivs") != "1":
            wrong.append("no_new_privs is not set")
    if policy.seccomp and status.get("Seccomp") != "2":
        wrong.append(f"Seccomp is {status.get('Seccomp', 'unknown')}, not 2 (filter)")
    elif policy.seccomp and int(status.get("Seccomp_filters", facts.own_filters + 1)) <= facts.own_filters:
        # Inside a container there is a filter already: only one more than the caller has is ours (since Linux 5.9).
        wrong.append(f"it has {status['Seccomp_filters']} seccomp filters, no more than the caller")
    if policy.user_namespace:
        uids = status.get("Uid", "").split()
        expected = str(plan.maps[0].host_uid)
        if not uids or set(uids) != {expected}:
            wrong.append(f"the host uid is {' '.join(uids)}, not {expected}")
        if facts.host_root and (not uids or "0" in uids):
            wrong.append("it runs with host uid 0")
        gids, expected = status.get("Gid", "").split(), str(plan.maps[0].host_gid)
        if not gids or set(gids) != {expected}:
            wrong.append(f"the host gid is {' '.join(gids)}, not {expected}")
        if facts.host_root and status.get("Groups"):
            wrong.append(f"it is in the host's groups {status['Groups']}")
    if policy.pid_namespace and len(status.get("NSpid", "").split()) < 2:
        wrong.append("it is in no pid namespace of its own")
    if policy.mount_namespace:
        wrong += _compare_mounts(plan, evidence)
    return tuple(wrong)


def _compare_mounts(plan: Plan, evidence: Evidence) -> list[str]:
    expected: dict[str, bool] = {"/": True, "/dev": True, "/proc": False}
    for operation in plan.outer:
        if isinstance(operation, (BindMount, MountTmpfs)):
            expected[operation.target] = not operation.writable
        elif isinstance(operation, ProtectPath):
            expected[operation.path] = True
        elif isinstance(operation, MaskPath):
            expected[operation.path] = operation.is_directory
    seen = dict(evidence.mounts)  # the last of several at one point is the visible one
    wrong = []
    for point, read_only in expected.items():
        if point not in seen:
            wrong.append(f"nothing is mounted at {point}")
        elif read_only and not seen[point]:
            wrong.append(f"{point} is mounted writable")
    for point, read_only in seen.items():
        above = _nearest(point, expected)
        if point not in expected and expected[above] and not read_only and not point.startswith("/dev/"):
            wrong.append(f"{point} is a writable mount that the plan doesn't have")
    return wrong


def _nearest(point: str, expected: dict[str, bool]) -> str:
    while point not in expected:
        point = point.rpartition("/")[0] or "/"
    return point
