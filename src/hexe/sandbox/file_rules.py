"""Landlock's file rules, mirroring the mounts: the second wall says again what the first one says. Pure."""

from __future__ import annotations

from hexe.linux import constants as c
from hexe.sandbox.mount_operations import BindMount
from hexe.sandbox.operations import LandlockRule, RestrictFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy
    from hexe.sandbox.filesystem import Placed

READ = c.LL_EXECUTE | c.LL_READ_FILE | c.LL_READ_DIR
# Rights that make sense on a descriptor of a file that isn't a directory; the kernel refuses others with EINVAL.
FILE_ONLY = c.LL_EXECUTE | c.LL_WRITE_FILE | c.LL_READ_FILE | c.LL_TRUNCATE | c.LL_IOCTL_DEV
# With ABI 1 no file can be renamed or linked into another directory, which breaks git and pip.
OLDEST_USABLE_ABI = 2


def handled_rights(abi: int) -> int:
    """Every file right that this ABI knows: what isn't granted by a rule is refused."""
    known = (1 << 13) - 1
    if abi >= 2:
        known |= c.LL_REFER
    if abi >= 3:
        known |= c.LL_TRUNCATE
    if abi >= 5:
        known |= c.LL_IOCTL_DEV
    return known


def restrict_files(policy: Policy, facts: HostFacts, mounts: list[Placed], streams: tuple[str, ...]) -> RestrictFiles:
    """The Landlock operation for these mounts and these standard streams."""
    handled = handled_rights(facts.landlock_abi)
    everything = handled & ~(c.LL_MAKE_CHAR | c.LL_MAKE_BLOCK)
    device_files = READ | c.LL_WRITE_FILE | c.LL_TRUNCATE | c.LL_IOCTL_DEV
    rules = [
        LandlockRule("/", READ),
        LandlockRule("/proc", READ | c.LL_WRITE_FILE | c.LL_TRUNCATE),
        LandlockRule("/dev", device_files),
        LandlockRule("/dev/shm", everything),
    ]
    for mount in mounts:
        if isinstance(mount, BindMount):
            if mount.writable:
                rules.append(LandlockRule(mount.target, everything if mount.is_directory else everything & FILE_ONLY))
        elif mount.writable:
            rules.append(LandlockRule(mount.target, everything))
    for number, (stream, becomes) in enumerate(zip(facts.streams, streams)):
        if becomes == "pass" and stream.kind in ("file", "fifo", "null"):
            rights = (c.LL_READ_FILE if stream.readable else 0) | (
                c.LL_WRITE_FILE | c.LL_TRUNCATE if stream.writable else 0
            )
            rules.append(LandlockRule("", rights, number))
        elif becomes == "write-only":
            rules.append(LandlockRule("", c.LL_WRITE_FILE | c.LL_IOCTL_DEV, number))
    scopes = c.LL_SCOPE_ABSTRACT_UNIX_SOCKET | c.LL_SCOPE_SIGNAL if facts.landlock_abi >= 6 else 0
    fixed = tuple(rule.replace(rights=rule.rights & handled) for rule in rules)
    because = f"profile {policy.profile}: a second wall behind the mounts"
    return RestrictFiles(facts.landlock_abi, handled, scopes, fixed, because)
