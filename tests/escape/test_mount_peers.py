"""Shared mounts: what is mounted inside must not appear on the host, nor what the host mounts later appear inside.

systemd makes every mount of the host shared, and a bind of a shared mount is its peer. An ordinary user's sandbox
gets private copies with its namespace; for root, the trees are cloned on the host's side. The host here is a mount
namespace of the test's own.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import PATIENCE, Caller, read_line, wait_until

# The shell waits in its namespace, so that the test can mount and look there by nsenter(1).
HOST = "mount -t tmpfs host {0} && mount --make-shared {0} && mkdir {0}/part {0}/late && chmod 777 {0} && exec {1}"


def mount_points(pid: int, below: Path) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return sorted(point for point in (line.split()[4] for line in lines) if point.startswith(str(below) + "/"))


@pytest.mark.parametrize("profile", ["default", "sandbox", "full"])
@pytest.mark.parametrize("kind", ["--bind", "--ro-bind"])
def test_mounts_stay_on_their_side(root_caller: Caller, profile: str, kind: str) -> None:
    shared = root_caller.mkdir("shared")
    inside = ("--isolation", profile, kind, f"{shared}:/x", "--tmpfs", "/x/part")
    run = [root_caller.script, "run", *inside, "--", "sh", "-c", "grep -c shared: /proc/self/mountinfo; exec cat"]
    script = HOST.format(shared, '"$@"')
    process = root_caller.start(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *run], stdin=subprocess.PIPE
    )
    assert read_line(process.stdout) == "0", "no mount inside is a peer of another"
    assert mount_points(process.pid, shared) == [], "the sandbox's tmpfs is mounted on the host"

    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (init,) = wait_until(lambda: children.read_text().split(), what="hexe's init")
    enter = ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "later", f"{shared}/late"], check=True, timeout=PATIENCE)
    assert mount_points(process.pid, shared) == [f"{shared}/late"], "the host's later mount is where it belongs"
    assert mount_points(int(init), Path("/x")) == ["/x/part"], "and not inside"
    assert process.stdin
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
