"""The Policy: what is asked for, as plain data. The command line, Lua and Python all build this one model."""

from __future__ import annotations

from hexe.records import Record


def normalize(path: str) -> str:
    """An absolute path without empty, ``.`` and ``..`` components, by its text alone."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept:
                kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


class Mount(Record):
    """One mount that the user asked for: ``kind`` is bind, ro-bind or tmpfs; a tmpfs has no source."""

    kind: str
    source: str
    target: str


class Policy(Record):
    """Everything that a sandbox promises and grants.

    The namespaces are switches. ``network`` is ``host`` or ``none`` (loopback only).
    ``identity`` says which ids the caller has inside: ``caller`` (its own), ``nobody``
    (65534), ``root`` (0 without capabilities) or a number as text; ``group`` likewise.
    ``environment`` is ``inherit`` or ``allow-list``; ``set_env`` holds (name, value),
    a value of None passes the caller's own. ``home`` is rw, ro or private.
    """

    profile: str
    user_namespace: bool = False
    pid_namespace: bool = False
    mount_namespace: bool = False
    uts_namespace: bool = False
    ipc_namespace: bool = False
    cgroup_namespace: bool = False
    network: str = "host"
    hostname: str = ""
    identity: str = "caller"
    group: str = ""
    drop_privileges: bool = False
    seccomp: str = ""
    landlock: bool = False
    mask_proc: bool = False
    read_only: tuple[str, ...] = ()
    home: str = "rw"
    mounts: tuple[Mount, ...] = ()
    environment: str = "inherit"
    clear_env: bool = False
    set_env: tuple[tuple[str, str | None], ...] = ()
    cwd: str = ""
    timeout: float = 0.0
    """Seconds until everything is killed; 0 is no limit."""
    witness: bool = False
    """Read the kernel's account of the command itself too, not only of the sealed init that it comes from."""
    tty: str = "auto"
    """auto: a PTY when standard input is a terminal; yes: always; no: never."""
