"""The report of a run, as JSON. Imported only when one was asked for."""

from __future__ import annotations

import json
import os

from hexe.errors import HexeError, OutputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hexe.policy.host import HostFacts
    from hexe.sandbox.outcome import Outcome
    from hexe.sandbox.plan import Plan


def outcome_report(plan: Plan, facts: HostFacts, outcome: Outcome) -> dict[str, Any]:
    """The report of a command that ran. Sizes are bytes, times seconds, namespaces inode numbers."""
    report: dict[str, Any] = {
        "started": True,
        "command": list(plan.execute.argv),
        "profile": plan.policy.profile,
        "exit_code": None if outcome.signal else outcome.exit_code,
        "signal": outcome.signal or None,
        "status": outcome.status,
        "timed_out": outcome.timed_out,
        "wall_seconds": round(outcome.wall, 6),
        "user_seconds": round(outcome.user, 6),
        "system_seconds": round(outcome.system, 6),
        "peak_memory_bytes": outcome.peak,
        "namespaces": {},
        "protections": protections(plan, facts, outcome),
        "notes": list(plan.notes),
    }
    if outcome.evidence is not None:
        report["namespaces"] = {kind: inode(text) for kind, text in outcome.evidence.namespaces.items()}
    return report


def protections(plan: Plan, facts: HostFacts, outcome: Outcome) -> dict[str, Any]:
    """Each protection: whether the profile asks for it, and what the kernel said of the command."""
    policy = plan.policy
    status = outcome.evidence.status if outcome.evidence else {}
    capabilities = {name: status[name] for name in status if name.startswith("Cap")}
    files = [operation for operation in plan.seal if type(operation).__name__ == "RestrictFiles"]
    return {
        "namespaces": {
            "asked": list(plan.namespaces.kinds),
            "evidence": "inode numbers that differ from the caller's, read from /proc/PID/ns",
        },
        "no_new_privs": {"asked": policy.drop_privileges, "NoNewPrivs": status.get("NoNewPrivs")},
        "capabilities": {"asked": policy.drop_privileges, **capabilities},
        "seccomp": {
            "asked": policy.seccomp or False,
            "Seccomp": status.get("Seccomp"),
            "Seccomp_filters": status.get("Seccomp_filters"),
        },
        "identity": {name: status.get(name) for name in ("Uid", "Gid", "Groups", "NSpid")},
        "root": {
            "asked": policy.mount_namespace,
            "mounts": [
                {"at": point, "read_only": read_only}
                for point, read_only in (outcome.evidence.mounts if outcome.evidence else ())
            ]
            if policy.mount_namespace
            else None,
        },
        "landlock": {
            "asked": policy.landlock,
            "active": bool(files),
            "abi": facts.landlock_abi,
            "scopes": bool(files) and facts.landlock_abi >= 6,
            "evidence": "landlock_restrict_self succeeded before the exec; /proc has no line for it" if files else None,
        },
        "attested": outcome.evidence is not None,
    }


def failure_report(plan: Plan, error: HexeError) -> dict[str, Any]:
    """The report of a command that was never started."""
    report = {
        "started": isinstance(error, OutputError),
        "command": list(plan.execute.argv),
        "profile": plan.policy.profile,
        "status": error.exit_code,
        "error": error.message,
        "hint": error.hint,
    }
    for name in ("step", "syscall", "path", "errno_name"):
        if hasattr(error, name):
            report[name] = getattr(error, name)
    return report


def inode(text: str) -> int:
    """The number in ``net:[4026531840]``."""
    return int(text.partition("[")[2].rstrip("]"))


def write_report(fd: int, report: dict[str, Any]) -> None:
    """Write the report whole and close its descriptor. Raises OSError (a full disk, say)."""
    data = json.dumps(report, indent=2, ensure_ascii=True).encode() + b"\n"
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
