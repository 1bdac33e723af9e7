"""compile: Policy and HostFacts in, Plan out, or Unsatisfiable with every promise this host can't keep. Pure.

Order is decided here and nowhere else. Why it is what it is:

* identity first: what the child makes then belongs to the ids that the command has;
* /proc before the pivot: the kernel wants a fully visible proc beside it;
* binds before the pivot: afterwards the host's paths are gone;
* no_new_privs before Landlock and seccomp, which demand it; capabilities before
  both, while prctl and capset may still do it; seccomp last, since it refuses much
  of the rest.
"""

from __future__ import annotations

from hexe.errors import Unsatisfiable
from hexe.policy.host import NOBODY, Entry
from hexe.sandbox import filesystem as fs
from hexe.sandbox.environment import command_environment
from hexe.sandbox.file_rules import OLDEST_USABLE_ABI, restrict_files
from hexe.sandbox.mount_operations import (
    BindMount,
    CloneTree,
    CreateRoot,
    MaskPath,
    MountDev,
    MountProc,
    MountTmpfs,
    PivotRoot,
    ProtectPath,
    SealRoot,
    StopPropagation,
)
from hexe.sandbox.operations import (
    AdoptOrphans,
    ChangeDirectory,
    CreateNamespaces,
    DieWithParent,
    DropCapabilities,
    Execute,
    ForbidNewPrivileges,
    HideFromPeers,
    InstallSeccomp,
    JoinSessionKeyring,
    LoopbackUp,
    OpenTerminal,
    SetHostname,
    SwitchIdentity,
    WriteIdMaps,
)
from hexe.sandbox.plan import Plan
from hexe.sandbox.requirements import broken_promises, usage_problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy
    from hexe.sandbox.filesystem import Placed
    from hexe.sandbox.operations import InnerOperation, OuterOperation, SealOperation


def compile_plan(policy: Policy, facts: HostFacts, argv: tuple[str, ...], load_filter: Callable[[str], bytes]) -> Plan:
    """The plan for running ``argv`` under ``policy`` on the host of ``facts``.

    ``load_filter`` gives the BPF of a seccomp variant. Raises UsageError for a policy
    that contradicts itself, Unsatisfiable for promises that this host can't keep.
    """
    usage_problems(policy)
    streams = stream_kinds(policy, facts)
    broken = broken_promises(policy, facts, streams)
    if broken:
        raise Unsatisfiable(broken)
    notes: list[str] = []
    namespaces = choose_namespaces(policy, facts, notes)
    home = fs.inside_home(policy, facts)
    placed: list[Placed] = []
    outer: list[OuterOperation] = []
    inner: list[InnerOperation] = []
    maps = identity_maps(policy, facts)
    for each in maps:
        outer.append(SwitchIdentity(each.uid, each.gid, not each.deny_setgroups, each.because))
    if policy.pid_namespace:
        outer.append(DieWithParent(f"profile {policy.profile}: nothing outlives the caller"))
    elif policy.profile != "none":
        outer.append(AdoptOrphans(f"profile {policy.profile}: nothing outlives the caller"))
    if policy.drop_privileges:
        outer.append(HideFromPeers("the init process still holds what the caller's memory held"))
    if policy.mount_namespace:
        placed = build_root(policy, facts, outer)
        streams = relay_covered_files(streams, facts, placed)
        inner.append(PivotRoot(f"profile {policy.profile}: a root of its own"))
    if policy.hostname:
        inner.append(SetHostname(policy.hostname, f"profile {policy.profile}: a hostname of its own"))
    if policy.network == "none":
        inner.append(LoopbackUp(f"profile {policy.profile}: no network but loopback"))
    if policy.drop_privileges:
        inner.append(JoinSessionKeyring("keyrings have no namespace"))
    if "terminal" in streams:
        own = policy.mount_namespace
        inner.append(OpenTerminal(own, own, "the caller's terminal must not be shared"))
    if policy.mount_namespace:
        inner.append(SealRoot(f"profile {policy.profile}: only what is listed is writable"))
    cwd, cwd_note = first_directory(policy, facts, placed, home)
    if cwd:
        inner.append(ChangeDirectory(cwd, cwd_note))
    environment = command_environment(policy, facts, home)
    return Plan(
        policy=policy,
        namespaces=namespaces,
        host=clone_trees(placed, facts),
        maps=maps,
        outer=tuple(outer),
        inner=tuple(inner),
        seal=seal(policy, facts, placed, streams, load_filter, notes),
        execute=Execute(argv, tuple(environment.items()), "the command"),
        streams=streams,
        notes=tuple(notes),
    )


def choose_namespaces(policy: Policy, facts: HostFacts, notes: list[str]) -> CreateNamespaces:
    """The namespaces of the policy. Only the cgroup namespace may be missing on a host, and then a note says so."""
    kinds = [
        kind
        for kind, wanted in (
            ("user", policy.user_namespace),
            ("pid", policy.pid_namespace),
            ("mnt", policy.mount_namespace),
            ("uts", policy.uts_namespace),
            ("ipc", policy.ipc_namespace),
            ("net", policy.network == "none"),
        )
        if wanted
    ]
    if policy.cgroup_namespace:
        if "cgroup" in facts.namespaces:
            kinds.append("cgroup")
        else:
            notes.append("this kernel has no cgroup namespaces")
    return CreateNamespaces(tuple(kinds), f"profile {policy.profile}")


def identity_maps(policy: Policy, facts: HostFacts) -> tuple[WriteIdMaps, ...]:
    """Which id inside stands for which on the host. Never host uid 0: root gets an unprivileged stand-in."""
    if not policy.user_namespace:
        return ()
    uid = resolve_id(policy.identity, facts.uid)
    # A number is only the user's: the group stays the caller's.
    gid = resolve_id(policy.group or ("caller" if policy.identity.isdigit() else policy.identity), facts.gid)
    host_uid = facts.root_stand_in if facts.host_root else facts.uid
    host_gid = facts.root_stand_in if facts.host_root else facts.gid
    because = f"profile {policy.profile}: the caller's ids {'as nobody' if policy.identity == 'nobody' else 'kept'}"
    if policy.identity not in ("caller", "nobody") or policy.group:
        because = "--uid and --gid"
    return (WriteIdMaps(uid, host_uid, gid, host_gid, not facts.host_root, because),)


def resolve_id(identity: str, own: int) -> int:
    """The number inside of an identity: caller, nobody, root or digits."""
    named = {"caller": own, "nobody": NOBODY, "root": 0}
    return named[identity] if identity in named else int(identity)


def build_root(policy: Policy, facts: HostFacts, outer: list[OuterOperation]) -> list[Placed]:
    """Append the operations that build the new root; returns the mounts in it, in order."""
    because = f"profile {policy.profile}"
    base, links = fs.system_mounts(policy, facts)
    base.append(MountTmpfs("/tmp", "1777", f"{because}: a private /tmp"))
    base.append(fs.home_mount(policy, facts))
    taken = [mount.target for mount in policy.mounts]
    links = [link for link in links if link.path not in taken]
    asked = [mount.replace(target=fs.follow_links(mount.target, links)) for mount in policy.mounts]
    wanted = fs.order(base + [fs.user_mount(mount, facts) for mount in asked])
    placed = fs.confine_sources(fs.protect(wanted, facts), facts)
    outer.append(StopPropagation(f"{because}: mounts stay inside"))
    outer.append(CreateRoot(f"{because}: a root of its own"))
    outer.extend(links)
    outer.append(MountProc(f"{because}: only its own processes are visible"))
    outer.append(MountDev(fs.DEVICES, f"{because}: a minimal /dev"))
    outer.extend(placed)
    if policy.mask_proc:
        for path in fs.PROC_READ_ONLY:
            if path in facts.proc_entries:
                outer.append(ProtectPath(path, f"{because}: the kernel's settings are read-only, whatever the uid"))
        for path in fs.PROC_MASKED:
            if path in facts.proc_entries:
                directory = path + "/" in facts.proc_entries
                outer.append(MaskPath(path, directory, f"{because}: the kernel's secrets are hidden"))
    return placed


def clone_trees(placed: list[Placed], facts: HostFacts) -> tuple[CloneTree, ...]:
    """For host root: the trees that the parent clones, with the owner of each bind mapped to the sandbox's id."""
    trees = []
    for mount in placed:
        if isinstance(mount, BindMount) and mount.slot:
            owner = owner_of(mount.source, facts)
            because = f"{mount.because}: files keep their owners, no host root inside"
            # A bind that can only be read loses nothing but visibility when its filesystem can't be mapped.
            ids = (owner.uid, owner.gid)
            required = mount.writable
            trees.append(CloneTree(mount.source, mount.slot, mount.attrs, ids, required, because, mount.beneath))
    return tuple(trees)


def owner_of(source: str, facts: HostFacts) -> Entry:
    """What was probed for a source, or for the nearest one above it: Hexe's own files lie below a bind's source."""
    if source in facts.entries:
        return facts.entries[source]
    above = {entry.real or path: entry for path, entry in facts.entries.items() if entry.kind == "dir"}
    nearest = max((path for path in above if fs.covers(path, source)), key=len, default="")
    return above.get(nearest, Entry("dir"))


def first_directory(policy: Policy, facts: HostFacts, placed: list[Placed], home: str) -> tuple[str, str]:
    """Where the command starts, and why."""
    if not policy.mount_namespace:
        return (policy.cwd, "--cwd") if policy.cwd else ("", "")
    if policy.cwd:
        return policy.cwd, "--cwd"
    places = [facts.cwd]
    if facts.home_real and fs.covers(facts.home_real, facts.cwd):
        places.append(facts.home + facts.cwd[len(facts.home_real) :])
    for place in places:
        seen = fs.seen_inside(place, placed)
        if seen:
            return seen, "the caller's directory"
    if any(mount.target == home for mount in placed):
        return home, "the caller's directory isn't visible inside: home instead"
    return "/", "neither the caller's directory nor its home is visible inside"


def stream_kinds(policy: Policy, facts: HostFacts) -> tuple[str, str, str]:
    """What becomes of standard input, output and error: pass, terminal, write-only or relay."""
    own_terminal = policy.tty == "yes" or (policy.tty == "auto" and facts.streams[0].kind == "tty")
    landlock = policy.landlock and facts.landlock_abi >= OLDEST_USABLE_ABI
    chosen = []
    for number, stream in enumerate(facts.streams):
        if own_terminal and (stream.kind == "tty" or policy.tty == "yes"):
            chosen.append("terminal")
        elif not policy.mount_namespace:
            chosen.append("pass")
        elif stream.kind == "tty" and number > 0:
            # The screen may be written, but keys must not be read from it. A descriptor that only writes can be opened
            # again for reading through /proc/self/fd, which Landlock refuses; without it a pipe must do.
            chosen.append("write-only" if landlock else "relay")
        elif stream.kind in ("block", "device", "memory") or (stream.kind in ("file", "fifo") and not landlock):
            # Through /proc/self/fd a file can be opened again with more rights; a pipe has none to give.
            chosen.append("relay")
        elif stream.kind == "file" and (stream.append or (number > 0 and facts.host_root)):
            # Landlock closes that too, but knows no append-only; and a file of root's couldn't be opened again at
            # all, as `echo >/dev/stderr` does it.
            chosen.append("relay")
        else:
            chosen.append("pass")
    return chosen[0], chosen[1], chosen[2]


def relay_covered_files(streams: tuple[str, str, str], facts: HostFacts, placed: list[Placed]) -> tuple[str, str, str]:
    """The streams, with a pipe for a file that could be opened again for more than the mounts allow inside."""
    chosen = [
        "relay" if becomes == "pass" and stream.path and fs.only_written_beside(stream.path, placed, facts) else becomes
        for stream, becomes in zip(facts.streams, streams)
    ]
    return chosen[0], chosen[1], chosen[2]


def seal(
    policy: Policy,
    facts: HostFacts,
    placed: list[Placed],
    streams: tuple[str, str, str],
    load_filter: Callable[[str], bytes],
    notes: list[str],
) -> tuple[SealOperation, ...]:
    """The last stage: privileges go, the walls close."""
    because = f"profile {policy.profile}"
    operations: list[SealOperation] = []
    if policy.drop_privileges:
        lock = policy.user_namespace
        operations.append(DropCapabilities(facts.last_capability, lock, f"{because}: no privileges inside"))
        operations.append(ForbidNewPrivileges(f"{because}: none to be gained either"))
    if policy.landlock:
        if facts.landlock_abi >= OLDEST_USABLE_ABI:
            operations.append(restrict_files(policy, facts, placed, streams))
            if facts.landlock_abi < 6:
                notes.append("this kernel's Landlock has no scopes: abstract sockets of the host can be reached")
        elif facts.landlock_abi == 1:
            notes.append("this kernel's Landlock (ABI 1) forbids every rename between directories: not used")
        else:
            notes.append("this kernel has no Landlock: mounts alone guard the files")
    if policy.seccomp:
        program = load_filter(policy.seccomp)
        operations.append(InstallSeccomp(policy.seccomp, program, f"{because}: a smaller kernel"))
    return tuple(operations)
