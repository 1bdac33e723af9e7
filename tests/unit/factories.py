"""Made-up hosts and plans for the pure tests: no privilege, no probing, the same on every machine."""

from __future__ import annotations

from hexe.cli.options import RUN_OPTIONS, build_policy, parse
from hexe.policy.host import Entry, HostFacts, Stream
from hexe.policy.model import Policy
from hexe.policy.profiles import SOFTWARE, SYSTEM
from hexe.sandbox.compile import compile_plan
from hexe.sandbox.filesystem import PROC_MASKED, PROC_READ_ONLY
from hexe.sandbox.plan import Plan

KINDS = ("user", "pid", "mnt", "uts", "ipc", "net", "cgroup")
PROC_DIRECTORIES = ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi", "/proc/asound")
MERGED_LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
ALL_PROC = frozenset([*PROC_READ_ONLY, *PROC_MASKED, *(path + "/" for path in PROC_DIRECTORIES)])
PIPES = (Stream("other", True, False), Stream("other", False, True), Stream("other", False, True))
STAND_IN = 100000


def system_entries(*, merged: bool = True, missing: tuple[str, ...] = ("/lib32", *SOFTWARE)) -> dict[str, Entry]:
    """The system directories of a host, with a merged /usr or without, and some that it doesn't have."""
    entries: dict[str, Entry] = {}
    for path in SYSTEM + SOFTWARE:
        if path in missing:
            entries[path] = Entry("missing", nearest="/")
        elif merged and path in MERGED_LINKS:
            entries[path] = Entry("link", link=MERGED_LINKS[path])
        else:
            entries[path] = Entry("dir")
    return entries


def user_facts(**changes: object) -> HostFacts:
    """An ordinary user, ada, on a current kernel that has everything; ``changes`` are fields of HostFacts."""
    entries = system_entries()
    entries["/home/ada"] = Entry("dir", uid=1000, gid=1000, real="/home/ada")
    facts = HostFacts(
        kernel=(6, 18),
        machine="x86_64",
        uid=1000,
        gid=1000,
        user="ada",
        home="/home/ada",
        home_real="/home/ada",
        cwd="/home/ada/work",
        host_root=False,
        capable=False,
        root_stand_in=1000,
        environment={"PATH": "/usr/bin", "HOME": "/home/ada", "LANG": "C.UTF-8", "TOKEN": "hunter2"},
        entries=entries,
        resolv_conf="",
        namespaces=frozenset(KINDS),
        max_user_namespaces=15000,
        userns_clone=-1,
        apparmor_restricts=False,
        landlock_abi=7,
        seccomp=True,
        proc_entries=ALL_PROC,
        last_capability=40,
        streams=PIPES,
        protected=(),
        names={},
    )
    return facts.replace(**changes)


def root_facts(**changes: object) -> HostFacts:
    """The machine's root, whose home isn't under /home."""
    facts = user_facts(
        uid=0, gid=0, user="root", home="", home_real="", cwd="/root", host_root=True, capable=True,
        root_stand_in=STAND_IN, entries=system_entries(),
    )  # fmt: skip
    return facts.replace(**changes)


def filter_of(variant: str) -> bytes:
    """A stand-in for the BPF of a variant: two instructions, a different pair for each."""
    return variant.encode().ljust(16, b"\0")[:16]


def policy_of(facts: HostFacts, *words: str) -> Policy:
    """The policy of these words of a command line, made by the real parser."""
    return build_policy(parse(list(words), RUN_OPTIONS, "run"), facts.cwd, facts.home or f"/home/{facts.user}")


def plan_of(facts: HostFacts, *words: str, argv: tuple[str, ...] = ("true",)) -> Plan:
    """The plan of these words of a command line on that host."""
    return compile_plan(policy_of(facts, *words), facts, argv, filter_of)
