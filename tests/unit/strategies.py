"""Hypothesis strategies: paths that meet each other, command lines, hosts.

The pools are small on purpose: what goes wrong with mounts goes wrong where one lies
above, below or on top of another.
"""

from __future__ import annotations

from factories import ALL_PROC, KINDS, STAND_IN, system_entries, user_facts
from hypothesis import strategies as st

from hexe.policy.host import Entry, HostFacts, Stream
from hexe.policy.model import Policy
from hexe.policy.profiles import PROFILES, SOFTWARE, SYSTEM

NAMES = ("a", "b", "c")
ROOTS = ("", "/home/ada", "/home", "/srv", "/usr", "/tmp", "/opt", "/run")

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
"""What can be typed: any text without surrogates, NUL among it."""

below = st.lists(st.sampled_from(NAMES), max_size=3).map("/".join)
paths = st.builds(lambda top, rest: f"{top}/{rest}".rstrip("/") or "/a", st.sampled_from(ROOTS), below)
"""Normalized absolute paths, never the root, often above or below one another."""


@st.composite
def options(draw: st.DrawFn) -> list[str]:
    """One option of ``hexe run`` with its value, nearly always a good one."""
    kind = draw(st.sampled_from(["bind"] * 5 + ["tmpfs", "tmpfs", "home", "uid", "gid", "env", "other"]))
    if kind == "bind":
        name, source = draw(st.sampled_from(["--bind", "--ro-bind"])), draw(paths)
        return [name, source + draw(st.sampled_from(["", ":"]).flatmap(lambda x: paths.map(lambda p: x and x + p)))]
    if kind == "tmpfs":
        return ["--tmpfs", draw(paths)]
    if kind == "home":
        return ["--home", draw(st.sampled_from(["rw", "ro", "private"]))]
    if kind in ("uid", "gid"):
        return [f"--{kind}", draw(st.sampled_from(["keep", "root", "0", "1", "1000", "65534"]))]
    if kind == "env":
        return draw(st.sampled_from([["--env", "A=1"], ["--pass-env", "TOKEN"], ["--clear-env"], ["--env=HOME=/a"]]))
    return draw(
        st.sampled_from([["--cwd", "/usr"], ["--tty"], ["--no-tty"], ["--timeout", "3s"], ["--hostname", "builder"]])
    )


command_lines = st.builds(
    lambda profile, given: ["--isolation", profile, *(word for option in given for word in option)],
    st.sampled_from([*PROFILES, *["balanced", "sandbox", "full"] * 4]),
    st.lists(options(), max_size=6),
)

streams = st.builds(
    lambda kind, access, append: Stream(kind, access[0], access[1], append),
    st.sampled_from(["tty", "file", "other", "fifo", "block", "device", "null", "memory", "closed"]),
    st.sampled_from([(True, False), (False, True), (True, True)]),
    st.booleans(),
)


@st.composite
def hosts(draw: st.DrawFn) -> HostFacts:
    """A host and a caller: root or a user, old or new kernels, merged /usr or not; most can keep every promise."""
    root = draw(st.booleans())
    has_home = draw(st.booleans()) or not root
    missing = tuple(path for path in SYSTEM + SOFTWARE if draw(st.integers(0, 3)) == 0)
    proc = frozenset(path for path in ALL_PROC if draw(st.booleans()))
    facts = user_facts(
        kernel=draw(st.sampled_from([(6, 18), (6, 1), (5, 15), (5, 12)])),
        uid=0 if root else 1000,
        gid=0 if root else 1000,
        user="root" if root else "ada",
        home="/home/ada" if has_home else "",
        home_real=draw(st.sampled_from(["/home/ada", "/srv/a"])) if has_home else "",
        cwd=draw(paths),
        host_root=root and draw(st.booleans()),
        capable=root,
        root_stand_in=draw(st.sampled_from([STAND_IN, 65534])),
        entries=system_entries(merged=draw(st.booleans()), missing=missing),
        resolv_conf=draw(st.sampled_from(["", "/run/systemd/resolve/stub-resolv.conf", "/srv/a/resolv.conf"])),
        landlock_abi=draw(st.integers(0, 7)),
        proc_entries=proc,
        streams=(draw(streams), draw(streams), draw(streams)),
        protected=draw(protected_paths),
    )
    return facts.replace(**draw(shortcomings))


shortcomings: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [
        *[{}] * 10,
        {"kernel": (5, 4)},
        {"namespaces": frozenset(KINDS) - {"cgroup"}},
        {"namespaces": frozenset(KINDS) - {"net", "ipc", "uts"}},
        {"namespaces": frozenset(KINDS) - {"user"}},
        {"max_user_namespaces": 0},
        {"userns_clone": 0},
        {"apparmor_restricts": True},
        {"seccomp": False},
        {"streams": (Stream("dir"), Stream("other"), Stream("other"))},
        {"capable": False},
        {"landlock_abi": -1},
    ]
)
"""What some hosts don't have, one thing at a time."""


def _unrelated(found: list[str]) -> tuple[str, ...]:
    # As probe gives them: sorted, none below another.
    kept = sorted(set(found))
    return tuple(path for path in kept if not any(path.startswith(other + "/") for other in kept))


protected_paths = st.lists(paths, max_size=3).map(_unrelated)


@st.composite
def with_sources(draw: st.DrawFn, facts: HostFacts, policy: Policy) -> HostFacts:
    """The host with what probing finds at the sources of the policy's binds, and at the home."""
    entries = dict(facts.entries)
    for mount in policy.mounts:
        if mount.source:
            entries[mount.source] = draw(
                st.sampled_from(
                    [Entry("dir", uid=1000, gid=1000, real=mount.source)] * 30
                    + [
                        *[Entry("file", uid=1000, gid=1000, real=mount.source)] * 4,
                        *[Entry("dir", uid=7, gid=7, real="/srv/real" + mount.source)] * 4,
                        Entry("missing", nearest="/"),
                        Entry("missing", error="EACCES"),
                    ]
                )
            )
    if facts.home:
        entries.setdefault(facts.home, Entry("dir", uid=facts.uid, gid=facts.gid, real=facts.home_real))
    return facts.replace(entries=entries)
