"""``hexe run`` with parts of the protection taken out: what the controls run.

usage: python variant.py PART,PART OPTIONS... -- COMMAND [ARG...]

The policy is built and the plan compiled as ``hexe run`` does it. Then the named parts
are removed from the plan, and the rest is spawned and supervised by Hexe's own code. Only
the comparison with the kernel's account is switched off: it would refuse to go on.
"""

from __future__ import annotations

import sys

from hexe.cli.options import RUN_OPTIONS, parse
from hexe.cli.run import open_missing_streams, plan_for
from hexe.linux import constants as c
from hexe.linux.process import prctl
from hexe.records import Record
from hexe.sandbox import init, mount_operations, supervise
from hexe.sandbox.mount_operations import BindMount, CloneTree
from hexe.sandbox.plan import Plan
from hexe.sandbox.program import Builder, Val
from hexe.sandbox.spawn import spawn

DROPPED = {
    "seccomp": ("InstallSeccomp",),
    "landlock": ("RestrictFiles",),
    "masks": ("MaskPath", "ProtectPath"),
    "capabilities": ("DropCapabilities",),
    "no-new-privs": ("ForbidNewPrivileges",),
    "keyring": ("JoinSessionKeyring",),
    "dumpable": ("HideFromPeers",),
    "dying": ("DieWithParent",),
    "read-only": ("SealRoot",),
}
OTHERS = ("closing", "wiping", "relaying", "resolving", "protecting", "pinning", "tracing")
PR_CAP_AMBIENT_RAISE = 2


class KeepCapabilities(Record):
    """The opposite of DropCapabilities: every capability survives the exec, as an ambient one."""

    last: int
    because: str

    def describe(self) -> str:
        return "keep every capability"

    def lower(self, b: Builder) -> None:
        everything = (1 << (self.last + 1)) - 1
        low, high = everything & 0xFFFFFFFF, everything >> 32
        header = b.struct(c.LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4))
        sets = b"".join(value.to_bytes(4, "little") for value in (low, low, low, high, high, high))
        b.call("capset", header, b.struct(sets))
        for capability in range(self.last + 1):
            b.call("prctl", c.PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def without(plan: Plan, parts: set[str]) -> Plan:
    """The plan without these parts."""
    dropped = {name for part in parts for name in DROPPED.get(part, ())}
    changes: dict[str, object] = {}
    for stage in ("host", "outer", "inner", "seal"):
        kept: list[object] = []
        for operation in plan.stage(stage):
            name = type(operation).__name__
            if name == "DropCapabilities" and name in dropped:
                kept.append(KeepCapabilities(operation.as_dict()["last"], "a control of the tests"))
            elif name not in dropped:
                if "read-only" in parts and isinstance(operation, (BindMount, CloneTree)):
                    operation = operation.replace(attrs=operation.attrs & ~c.MOUNT_ATTR_RDONLY)  # noqa: PLW2901
                kept.append(operation)
        changes[stage] = tuple(kept)
    if "relaying" in parts:
        changes["streams"] = ("pass", "pass", "pass")
    return plan.replace(**changes)


def open_anywhere(b: Builder, path: str, slot: Val, flags: int = 0) -> None:
    """What a launcher does that opens its mount points by their plain paths: links lead where they like.

    The new root is stacked on the old one, where path lookups don't find it. So the path is
    walked from the new root's descriptor, and an absolute link on the way leaves it.
    """
    about = path
    how = (c.O_PATH | c.O_CLOEXEC | flags).to_bytes(8, "little") + bytes(16)
    b.call("openat2", b.slot("root"), b.text(path.lstrip("/") or "."), b.struct(how), 24, out=slot, about=about)


def stay_dumpable(option: int, *values: int) -> int:
    """prctl(2), but for the one that makes init undumpable."""
    return 0 if (option, *values) == (c.PR_SET_DUMPABLE, 0) else prctl(option, *values)


def main() -> int:
    parts = {part for part in sys.argv[1].split(",") if part}
    unknown = parts - set(DROPPED) - set(OTHERS)
    if unknown:
        raise SystemExit(f"no such part: {unknown}")
    open_missing_streams()
    if "closing" in parts:
        init.close_all_but = lambda keep: None  # type: ignore[attr-defined]
    if "wiping" in parts:
        init.forget_arguments_and_environment = lambda label: None  # type: ignore[attr-defined]
    if "dumpable" in parts:
        init.prctl = stay_dumpable  # type: ignore[attr-defined]
    if "resolving" in parts:
        mount_operations._open_inside = open_anywhere
    if "protecting" in parts:
        from hexe.sandbox import probe

        probe.protected_paths = lambda: ()
    if "tracing" in parts:
        from hexe.sandbox import executable

        executable.leads_through_proc = lambda path: False
    if "pinning" in parts:
        from hexe.sandbox import filesystem

        filesystem._pins = lambda mount, later, facts: []
    supervise.compare = lambda *_: ()  # type: ignore[attr-defined]
    _, facts, plan = plan_for(parse(sys.argv[2:], RUN_OPTIONS, "run"))
    return supervise.Supervisor(spawn(without(plan, parts), facts)).run().status


if __name__ == "__main__":
    sys.exit(main())
