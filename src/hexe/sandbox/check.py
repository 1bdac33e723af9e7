"""check: every invariant that a plan must keep, as one pure function over plans. For tests and tools, not for a launch.

compile decides the order; this says independently what a right order is and that
no promise was forgotten on the way. An empty answer is no proof that the kernel
enforces anything: that is attest's part.
"""

from __future__ import annotations

from hexe.linux import constants as c
from hexe.sandbox.filesystem import ancestors, covers
from hexe.sandbox.mount_operations import (
    BindMount,
    CloneTree,
    CreateRoot,
    MakeSymlink,
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
    DieWithParent,
    DropCapabilities,
    ForbidNewPrivileges,
    HideFromPeers,
    InstallSeccomp,
    JoinSessionKeyring,
    LoopbackUp,
    OpenTerminal,
    RestrictFiles,
    SetHostname,
    SwitchIdentity,
    WriteIdMaps,
)
from hexe.sandbox.program import STAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hexe.policy.host import HostFacts
    from hexe.policy.model import Policy
    from hexe.sandbox.operations import Operation
    from hexe.sandbox.plan import Plan

Kinds = tuple[type, ...]

MOUNTS: Kinds = (MountProc, MountDev, BindMount, MountTmpfs)
COVERS: Kinds = (MaskPath, ProtectPath)
ROOT: Kinds = (StopPropagation, CreateRoot, MountProc, MountDev, PivotRoot, SealRoot)
CREATES: Kinds = (StopPropagation, CreateRoot, MakeSymlink, *MOUNTS, *COVERS, OpenTerminal)
WALLS: Kinds = (RestrictFiles, InstallSeccomp)

ALLOWED: dict[str, Kinds] = {
    "host": (CloneTree,),
    "maps": (WriteIdMaps,),
    "outer": (
        SwitchIdentity, DieWithParent, AdoptOrphans, HideFromPeers, StopPropagation, CreateRoot, MakeSymlink,
        *MOUNTS, *COVERS,
    ),
    "inner": (PivotRoot, SetHostname, LoopbackUp, JoinSessionKeyring, OpenTerminal, SealRoot, ChangeDirectory),
    "seal": (DropCapabilities, ForbidNewPrivileges, *WALLS),
}  # fmt: skip
"""What may stand in which stage; nothing stands behind the last one but the command."""

BEFORE: tuple[tuple[Kinds, Kinds, str], ...] = (
    ((SwitchIdentity,), CREATES, "what is created must belong to the ids that the command has"),
    ((StopPropagation,), (CreateRoot, *MOUNTS, *COVERS), "a mount would appear outside"),
    ((CreateRoot,), (MakeSymlink, *MOUNTS, *COVERS, PivotRoot), "there is no root to put it in yet"),
    ((MakeSymlink,), (BindMount, MountTmpfs), "a mount point must lie where the link leads"),
    ((MountProc,), (*COVERS, PivotRoot), "the kernel wants a fully visible proc beside the new one"),
    ((MountDev,), (MaskPath,), "the mask is the new /dev/null"),
    (MOUNTS, COVERS, "a mount could cover what is masked"),
    ((OpenTerminal,), (SealRoot,), "/dev/console can't be made in a read-only /dev"),
    ((DropCapabilities,), WALLS, "the filter refuses what dropping needs"),
    ((ForbidNewPrivileges,), WALLS, "the kernel demands no_new_privs first"),
    ((RestrictFiles,), (InstallSeccomp,), "the filter refuses Landlock's own calls"),
)
"""(these, before those, because otherwise). Every one of the first stands before every one of the second."""

WRITES = (
    c.LL_WRITE_FILE | c.LL_TRUNCATE | c.LL_REMOVE_DIR | c.LL_REMOVE_FILE | c.LL_MAKE_DIR | c.LL_MAKE_REG
    | c.LL_MAKE_SOCK | c.LL_MAKE_FIFO | c.LL_MAKE_SYM | c.LL_MAKE_CHAR | c.LL_MAKE_BLOCK | c.LL_REFER
)  # fmt: skip
OWN_PLACES = ("/proc", "/dev", "/dev/shm")
"""What the sandbox keeps fresh itself: Landlock's write rights there come with every root of its own."""


def check(plan: Plan, facts: HostFacts | None = None) -> tuple[str, ...]:
    """Every violated invariant of a plan, in words; empty when there is none.

    ``facts`` are those that the plan was compiled for: without them, what depends on
    the host (which of its files exist, whether the caller is its root) isn't looked at.
    """
    wrong: list[str] = []
    wrong += _reasons(plan)
    wrong += _stages(plan)
    wrong += _order(plan)
    wrong += _mounts(plan)
    wrong += _trees(plan)
    wrong += _presence(plan)
    wrong += _identity(plan, facts)
    wrong += _asked_mounts(plan)
    wrong += _landlock(plan)
    if facts is not None and plan.policy.mount_namespace:
        wrong += _proc(plan, facts)
        wrong += _system(plan, facts)
        wrong += _own_files(plan, facts)
    return tuple(wrong)


def operations(plan: Plan) -> list[Operation]:
    """All operations in the order in which they take effect."""
    return [operation for stage in STAGES for operation in plan.stage(stage)]


def placed(plan: Plan) -> list[BindMount | MountTmpfs]:
    """The mounts of files, in their order."""
    return [each for each in plan.outer if isinstance(each, (BindMount, MountTmpfs))]


def target_of(operation: Operation) -> str:
    """Where an operation of the outer stage puts something; empty when it puts nothing anywhere."""
    if isinstance(operation, MountProc):
        return "/proc"
    if isinstance(operation, MountDev):
        return "/dev"
    if isinstance(operation, (BindMount, MountTmpfs)):
        return operation.target
    return operation.path if isinstance(operation, (MakeSymlink, MaskPath, ProtectPath)) else ""


def _name(operation: object) -> str:
    target = getattr(operation, "target", "") or getattr(operation, "path", "")
    return f"{type(operation).__name__}({target})" if target else type(operation).__name__


def _reasons(plan: Plan) -> Iterator[str]:
    for operation in (plan.namespaces, *operations(plan), plan.execute):
        if not operation.because.strip():
            yield f"{_name(operation)} has no reason"


def _stages(plan: Plan) -> Iterator[str]:
    for stage in STAGES:
        for operation in plan.stage(stage):
            if not isinstance(operation, ALLOWED[stage]):
                yield f"{_name(operation)} doesn't belong in the stage {stage}"
    inner = plan.inner
    if any(isinstance(each, PivotRoot) for each in inner) and not isinstance(inner[0], PivotRoot):
        yield "PivotRoot isn't the first of inner: what stands before it acts on the host's root"
    seal = plan.seal
    if any(isinstance(each, InstallSeccomp) for each in seal) and not isinstance(seal[-1], InstallSeccomp):
        yield "InstallSeccomp isn't the last of seal"


def _order(plan: Plan) -> Iterator[str]:
    every = operations(plan)
    for first, then, otherwise in BEFORE:
        last = max((index for index, each in enumerate(every) if isinstance(each, first)), default=-1)
        for each in every[: max(last, 0)]:
            if isinstance(each, then):
                yield f"{_name(each)} stands before {_name(every[last])}: {otherwise}"


def _mounts(plan: Plan) -> Iterator[str]:
    made = [each for each in plan.outer if target_of(each)]
    for index, earlier in enumerate(made):
        for later in made[index + 1 :]:
            if covers(target_of(later), target_of(earlier)):
                yield f"{_name(later)} hides {_name(earlier)}, which was put there before"


def _trees(plan: Plan) -> Iterator[str]:
    trees = {tree.slot: tree for tree in plan.host}
    if len(trees) != len(plan.host):
        yield "two cloned trees share a slot"
    binds = [mount for mount in placed(plan) if isinstance(mount, BindMount) and mount.slot]
    if sorted(trees) != sorted(mount.slot for mount in binds):
        yield f"cloned trees {sorted(trees)} aren't those that are mounted: {sorted(mount.slot for mount in binds)}"
    for mount in binds:
        tree = trees.get(mount.slot)
        if tree and (tree.source, tree.attrs, tree.beneath) != (mount.source, mount.attrs, mount.beneath):
            yield f"the cloned tree of {_name(mount)} isn't what is to be mounted"
        if tree and mount.writable and tree.idmap and not tree.required:
            yield f"{_name(mount)} is writable, but its idmapped mount isn't required"


def _presence(plan: Plan) -> Iterator[str]:
    policy = plan.policy
    net = policy.network == "none"
    kinds = [
        kind
        for kind, wanted in (
            ("user", policy.user_namespace), ("pid", policy.pid_namespace), ("mnt", policy.mount_namespace),
            ("uts", policy.uts_namespace), ("ipc", policy.ipc_namespace), ("net", net),
            ("cgroup", policy.cgroup_namespace),
        )
        if wanted
    ]  # fmt: skip
    for kind in kinds:
        noted = kind == "cgroup" and _noted(plan, "cgroup")
        if kind not in plan.namespaces.kinds and not noted:
            yield f"the policy promises a {kind} namespace, the plan makes none"
    for kind in plan.namespaces.kinds:
        if kind not in kinds or plan.namespaces.kinds.count(kind) != 1:
            yield f"the plan makes a {kind} namespace that the policy doesn't have, or makes it twice"
    landlock = policy.landlock and not _noted(plan, "Landlock", "not used", "mounts alone")
    once: tuple[tuple[Iterable[type], object], ...] = (
        (ROOT, policy.mount_namespace),
        ((SwitchIdentity, WriteIdMaps), policy.user_namespace),
        ((DropCapabilities, ForbidNewPrivileges, HideFromPeers, JoinSessionKeyring), policy.drop_privileges),
        ((InstallSeccomp,), policy.seccomp),
        ((RestrictFiles,), landlock),
        ((LoopbackUp,), net),
        ((SetHostname,), policy.hostname),
        ((OpenTerminal,), plan.terminal),
        ((DieWithParent,), policy.pid_namespace),
        ((AdoptOrphans,), not policy.pid_namespace and policy.profile != "none"),
    )
    every = operations(plan)
    for group, wanted in once:
        for kind_of in group:
            found = sum(isinstance(each, kind_of) for each in every)
            if found != bool(wanted):
                yield f"{kind_of.__name__} stands {found} times in the plan, not {int(bool(wanted))}"
    for each in every:
        if isinstance(each, InstallSeccomp) and (each.variant != policy.seccomp or not each.filter):
            yield f"the filter is {each.variant!r} with {len(each.filter)} bytes, not {policy.seccomp!r}"
        if isinstance(each, SetHostname) and each.name != policy.hostname:
            yield f"the hostname is {each.name!r}, not {policy.hostname!r}"
        if isinstance(each, OpenTerminal) and each.private != policy.mount_namespace:
            yield "the terminal isn't from the devpts that the sandbox has"
        if not policy.mount_namespace and isinstance(each, (MakeSymlink, *MOUNTS, *COVERS, CloneTree)):
            yield f"{_name(each)} without a mount namespace would change the host"
    if dict(plan.execute.environment).get("HEXE_ISOLATION") != policy.profile:
        yield "HEXE_ISOLATION doesn't name the profile"


def _noted(plan: Plan, *words: str) -> bool:
    return any(word in note for note in plan.notes for word in words[:1]) and (
        len(words) == 1 or any(word in note for note in plan.notes for word in words[1:])
    )


def _identity(plan: Plan, facts: HostFacts | None) -> Iterator[str]:
    for maps in plan.maps:
        switched = [each for each in plan.outer if isinstance(each, SwitchIdentity)]
        if any((each.uid, each.gid) != (maps.uid, maps.gid) for each in switched):
            yield "the ids that are switched to aren't those that are mapped"
        if facts is None:
            continue
        if facts.host_root and 0 in (maps.host_uid, maps.host_gid):
            yield "the sandbox would run with the host's uid or gid 0"
        if facts.host_root and not all(each.clear_groups for each in switched):
            yield "the sandbox would keep root's supplementary groups"
        if not facts.host_root and (maps.host_uid, maps.host_gid) != (facts.uid, facts.gid):
            yield "an ordinary user can map its own ids only"


def _asked_mounts(plan: Plan) -> Iterator[str]:
    """Every mount that was asked for is there, or a later one of those covers it; none is wider than asked."""
    asked = plan.policy.mounts
    made = placed(plan)
    for index, mount in enumerate(asked):
        if any(covers(later.target, mount.target) for later in asked[index + 1 :]):
            continue
        there = [each for each in made if each.target == mount.target]
        if not there:
            yield f"--{mount.kind} {mount.target} is not in the plan"
            continue
        found = there[-1]
        if isinstance(found, MountTmpfs) != (mount.kind == "tmpfs"):
            yield f"{_name(found)} isn't the --{mount.kind} that was asked for"
        elif isinstance(found, BindMount) and found.source != mount.source:
            yield f"{_name(found)} shows {found.source}, not {mount.source}"
        elif isinstance(found, BindMount) and found.writable and mount.kind == "ro-bind":
            yield f"{_name(found)} is writable, though --ro-bind was asked for"


def _landlock(plan: Plan) -> Iterator[str]:
    """Landlock grants writing at the writable mounts and nowhere else: rights count for everything below a path."""
    rules = [rule for each in plan.seal if isinstance(each, RestrictFiles) for rule in each.rules]
    if not rules:
        return
    handled = next(each.handled for each in plan.seal if isinstance(each, RestrictFiles))
    writable = {mount.target for mount in placed(plan) if mount.writable}
    granted = {rule.path for rule in rules if rule.path and rule.rights & WRITES}
    for path in sorted(granted - writable - set(OWN_PLACES)):
        yield f"Landlock grants writing at {path}, where no writable mount lies"
    for path in sorted(writable - granted):
        yield f"Landlock grants no writing at {path}, a writable mount"
    for rule in rules:
        if rule.rights & ~handled or not rule.rights:
            yield f"Landlock's rule for {rule.path or rule.fd} has rights that aren't handled, or none"


def _proc(plan: Plan, facts: HostFacts) -> Iterator[str]:
    from hexe.sandbox.filesystem import PROC_MASKED, PROC_READ_ONLY

    masked = {each.path: each.is_directory for each in plan.outer if isinstance(each, MaskPath)}
    protected = {each.path for each in plan.outer if isinstance(each, ProtectPath)}
    exist = facts.proc_entries if plan.policy.mask_proc else frozenset[str]()
    for path in sorted(protected ^ (exist & set(PROC_READ_ONLY))):
        yield f"{path} should be read-only exactly where it exists and the profile says so"
    for path in sorted(set(masked) ^ (exist & set(PROC_MASKED))):
        yield f"{path} should be masked exactly where it exists and the profile says so"
    for path, is_directory in masked.items():
        if is_directory != (path + "/" in facts.proc_entries):
            yield f"the mask of {path} is of the wrong kind"


def _system(plan: Plan, facts: HostFacts) -> Iterator[str]:
    """Every system directory of the profile that the host has is there, read-only, or the user put something on it."""
    made = placed(plan)
    links = {each.path for each in plan.outer if isinstance(each, MakeSymlink)}
    policy: Policy = plan.policy
    for path in policy.read_only:
        if facts.entries.get(path) is None or facts.entries[path].kind == "missing" or path in links:
            continue
        if any(covers(mount.target, path) for mount in policy.mounts):
            continue
        mount = next((each for each in made if each.target == path), None)
        if not isinstance(mount, BindMount) or mount.writable or mount.source != path:
            yield f"{path} isn't shown read-only"


def _own_files(plan: Plan, facts: HostFacts) -> Iterator[str]:
    """Wherever a writable bind would show Hexe's own files, they lie read-only on top, and can't be moved away."""
    made = placed(plan)
    for mount in made:
        if not isinstance(mount, BindMount) or not mount.writable:
            continue
        entry = facts.entries.get(mount.source)
        source = (entry.real if entry else "") or mount.source
        for path in facts.protected:
            if covers(path, source):
                yield f"{_name(mount)} shows a part of Hexe's own {path}, writable"
            if not covers(source, path):
                continue
            inside = (mount.target + path[len(source) :]).rstrip("/")
            top = [each for each in made if covers(each.target, inside)][-1]
            if top is mount:
                yield f"{inside} are Hexe's own files, writable"
            for above in ancestors(path, source):
                place = (mount.target + above[len(source) :]).rstrip("/")
                there = [each for each in made if each.target == place]
                if not there:
                    yield f"{place} can be renamed, and Hexe's own {inside} with it"
                elif not isinstance(there[-1], BindMount) or there[-1].source != above:
                    break  # something else lies there, and what is below is not the host's
