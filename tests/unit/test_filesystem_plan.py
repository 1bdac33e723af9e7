"""Which mounts make the root, against a brute-force model: the last mount that covers a path is what is seen there."""

from __future__ import annotations

import itertools

import pytest
from factories import plan_of, root_facts, system_entries, user_facts
from hypothesis import given
from hypothesis import strategies as st
from strategies import NAMES, ROOTS, paths, protected_paths

from hexe.linux import constants as c
from hexe.policy.host import Entry, HostFacts
from hexe.sandbox.filesystem import READ_ONLY, ancestors, confine_sources, covers, order, protect, seen_inside
from hexe.sandbox.mount_operations import BIND_ATTRS, BindMount, MakeSymlink, MountTmpfs
from hexe.sandbox.plan import Plan

Placed = BindMount | MountTmpfs

# Every path of the small world in which the mounts below are made.
WORLD = [
    "/".join([top, *names]) or "/"
    for top in ROOTS
    for length in range(4)
    for names in itertools.product(NAMES, repeat=length)
]

binds = st.builds(
    lambda source, target, attrs: BindMount(source, target, True, attrs, "a test"),
    paths,
    paths,
    st.sampled_from([BIND_ATTRS, READ_ONLY]),
)
fresh = st.builds(lambda path, writable: MountTmpfs(path, "755", "a test", writable), paths, st.booleans())
mounts_in_any_order = st.lists(binds | binds | fresh, min_size=1, max_size=6)


def top(mounts: list[Placed], path: str) -> Placed | None:
    """What is seen at a path: the last of the mounts that lies at it or above it."""
    return next((mount for mount in reversed(mounts) if covers(mount.target, path)), None)


def shows(mount: Placed | None, inside: str) -> str:
    """Which path of the host a mount shows at a path inside; empty for a tmpfs."""
    if not isinstance(mount, BindMount):
        return ""
    return mount.source + inside[len(mount.target) :]


@given(paths, paths)
def test_covers(parent: str, path: str) -> None:
    above, parts = parent.split("/"), path.split("/")
    assert covers(parent, path) == (parts[: len(above)] == above)
    assert covers("/", path)


@given(mounts_in_any_order)
def test_order_keeps_what_is_seen_and_puts_parents_first(mounts: list[Placed]) -> None:
    kept = order(mounts)
    for path in WORLD:
        assert top(kept, path) is top(mounts, path)
    for index, mount in enumerate(kept):
        assert not any(covers(later.target, mount.target) for later in kept[index + 1 :])
        assert top(mounts, mount.target) is mount
    assert order(kept) == kept


@given(mounts_in_any_order, paths)
def test_seen_inside(mounts: list[Placed], path: str) -> None:
    placed = order(mounts)
    found = seen_inside(path, placed)
    if found:
        assert shows(top(placed, found), found) == path
        return
    for mount in placed:
        if isinstance(mount, BindMount) and covers(mount.source, path):
            inside = mount.target + path[len(mount.source) :]
            assert shows(top(placed, inside), inside) != path


@given(mounts_in_any_order, protected_paths)
def test_hexes_own_files_are_read_only_and_all_else_is_as_it_was(
    mounts: list[Placed], protected: tuple[str, ...]
) -> None:
    before = order(mounts)
    after = protect(before, user_facts(protected=protected))
    targets = {mount.target for mount in after}
    assert order(after) == after
    for path in WORLD:
        old, new = top(before, path), top(after, path)
        shown = shows(old, path)
        assert shows(new, path) == shown, path
        own = any(covers(part, shown) for part in protected) if shown else False
        writable = isinstance(old, BindMount) and old.writable
        now_writable = isinstance(new, BindMount) and new.writable
        assert isinstance(old, MountTmpfs) == isinstance(new, MountTmpfs)
        # A bind of a part of Hexe's own files becomes read-only as a whole, whatever it lies in.
        assert now_writable == (writable and not own), path
        if writable and shown in protected:
            above = path.rpartition("/")[0]
            while isinstance(old, BindMount) and covers(old.target, above) and above != old.target:
                assert above in targets, f"{above} can be renamed"
                above = above.rpartition("/")[0]


def test_what_covers_a_part_of_the_home_still_does_beside_hexes_own_files() -> None:
    facts = user_facts(protected=("/home/ada/code/hexe/.venv",))
    plan = plan_of(facts, "--tmpfs", "/home/ada/code/secret", "--ro-bind", "/usr:/home/ada/code/hexe/usr")
    placed = mounts_of(plan)
    assert isinstance(top(placed, "/home/ada/code/secret/key"), MountTmpfs)
    assert shows(top(placed, "/home/ada/code/hexe/usr/bin"), "/home/ada/code/hexe/usr/bin") == "/usr/bin"
    venv = top(placed, "/home/ada/code/hexe/.venv/bin")
    assert isinstance(venv, BindMount) and not venv.writable


@pytest.mark.parametrize("cover", ["/home/ada/a/b/hexe", "/home/ada/a/b"])
def test_what_lies_above_hexes_own_files_is_pinned_also_behind_another_mount(cover: str) -> None:
    placed = mounts_of(plan_of(user_facts(protected=("/home/ada/a/b/hexe",)), "--tmpfs", cover))
    pinned = [mount.target for mount in placed if "renamed away" in mount.because]
    assert pinned == [path for path in ("/home/ada/a", "/home/ada/a/b") if path != cover]
    assert isinstance(top(placed, "/home/ada/a/b/hexe"), MountTmpfs)


def test_a_bind_of_hexes_own_files_is_read_only_and_cloned_once() -> None:
    entries = {**system_entries(), "/srv/venv": Entry("dir", real="/srv/venv"), "/srv/venv/lib": Entry("dir")}
    facts = root_facts(protected=("/srv/venv",), entries=entries)
    plan = plan_of(facts, "--bind", "/srv/venv:/v", "--bind", "/srv/venv/lib:/w")
    for target in ("/v", "/w"):
        [mount] = [each for each in mounts_of(plan) if each.target == target]
        assert isinstance(mount, BindMount) and not mount.writable
    assert sorted(tree.slot for tree in plan.host) == ["tree /v", "tree /w"]


def test_files_below_a_bind_have_its_owner() -> None:
    entries = {**system_entries(), "/srv/data": Entry("dir", uid=7, gid=8, real="/srv/data")}
    plan = plan_of(root_facts(protected=("/srv/data/x/hexe",), entries=entries), "--bind", "/srv/data")
    assert [(tree.source, tree.idmap) for tree in plan.host] == [
        ("/srv/data", (7, 8)),
        ("/srv/data/x", (7, 8)),
        ("/srv/data/x/hexe", (7, 8)),
    ]


@given(mounts_in_any_order)
def test_sources_below_what_is_writable_are_confined(mounts: list[Placed]) -> None:
    writable = {mount.source for mount in mounts if isinstance(mount, BindMount) and mount.writable}
    for before, after in zip(mounts, confine_sources(mounts, user_facts()), strict=True):
        if not isinstance(after, BindMount):
            assert after == before
            continue
        above = [source for source in writable if covers(source, after.source) and source != after.source]
        assert after.replace(beneath="") == before
        assert bool(after.beneath) == bool(above)
        if above:
            assert after.beneath == min(above, key=len)


def test_ancestors() -> None:
    assert ancestors("/a/b/c/d", "/a") == ["/a/b", "/a/b/c"]
    assert ancestors("/a/b", "/a") == ancestors("/a", "/a") == []
    assert ancestors("/a/b", "/") == ["/a"]


# -- whole plans


def mounts_of(plan: Plan) -> list[Placed]:
    return [each for each in plan.outer if isinstance(each, (BindMount, MountTmpfs))]


def writable_targets(plan: Plan) -> list[str]:
    return [mount.target for mount in mounts_of(plan) if not isinstance(mount, BindMount) or mount.writable]


def test_merged_usr_keeps_its_links() -> None:
    plan = plan_of(user_facts(), "--isolation", "full")
    links = {each.path: each.to for each in plan.outer if isinstance(each, MakeSymlink)}
    assert links == {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
    assert [mount.target for mount in mounts_of(plan)] == ["/usr", "/etc", "/tmp", "/home/ada"]
    assert writable_targets(plan) == ["/tmp", "/home/ada"]


def test_unmerged_usr_is_bound_piece_by_piece() -> None:
    facts = user_facts(entries=system_entries(merged=False, missing=("/lib32", "/nix")))
    targets = [mount.target for mount in mounts_of(plan_of(facts, "--isolation", "sandbox"))]
    assert targets == [
        *("/bin", "/sbin", "/usr", "/lib", "/lib64", "/etc"),
        *("/pkg", "/opt", "/run/current-system", "/tmp", "/home/ada"),
    ]
    full = [mount.target for mount in mounts_of(plan_of(facts, "--isolation", "full"))]
    assert "/opt" not in full and "/pkg" not in full and "/run/current-system" not in full


@pytest.mark.parametrize(
    ("facts", "home", "kind"),
    [
        (user_facts(), "rw", "BindMount"),
        (user_facts(), "ro", "BindMount"),
        (user_facts(), "private", "MountTmpfs"),
        (root_facts(), "rw", "MountTmpfs"),
        (root_facts(), "ro", "MountTmpfs"),
        (user_facts(user="svc", home="", home_real=""), "rw", "MountTmpfs"),
    ],
)
def test_homes(facts: HostFacts, home: str, kind: str) -> None:
    plan = plan_of(facts, "--home", home)
    [mount] = [each for each in mounts_of(plan) if each.target.startswith("/home/")]
    assert mount.target == f"/home/{facts.user}"
    assert type(mount).__name__ == kind
    assert mount.writable == (home != "ro")
    assert dict(plan.execute.environment)["HOME"] == mount.target


def test_a_user_mount_takes_the_place_of_a_link() -> None:
    facts = user_facts(entries={**user_facts().entries, "/srv/bin": Entry("dir")})
    plan = plan_of(facts, "--ro-bind", "/srv/bin:/bin")
    assert "/bin" not in [each.path for each in plan.outer if isinstance(each, MakeSymlink)]
    assert [mount.target for mount in mounts_of(plan)].count("/bin") == 1


def test_dns_follows_resolv_conf_out_of_etc() -> None:
    facts = user_facts(resolv_conf="/run/systemd/resolve/stub-resolv.conf")
    [mount] = [each for each in mounts_of(plan_of(facts)) if each.target.startswith("/run")]
    assert isinstance(mount, BindMount) and not mount.writable and not mount.is_directory
    assert not [each for each in mounts_of(plan_of(facts, "--isolation", "full")) if each.target.startswith("/run")]


@pytest.mark.parametrize("profile", ["default", "balanced", "sandbox", "full"])
def test_every_bind_is_nosuid_and_nodev(profile: str) -> None:
    for mount in mounts_of(plan_of(user_facts(), "--isolation", profile, "--bind", "/srv/a")):
        if isinstance(mount, BindMount):
            assert mount.attrs & c.MOUNT_ATTR_NOSUID and mount.attrs & c.MOUNT_ATTR_NODEV


def test_a_source_written_with_its_real_path_is_confined_too() -> None:
    entries = {**system_entries(), "/home/ada": Entry("dir", real="/data/ada")}
    mounts: list[Placed] = [
        BindMount("/home/ada", "/home/ada", True, BIND_ATTRS, "a test"),
        BindMount("/data/ada/out", "/out", True, BIND_ATTRS, "a test"),
    ]
    confined = confine_sources(mounts, user_facts(entries=entries))[1]
    assert isinstance(confined, BindMount)
    assert confined.beneath == "/data/ada"


def test_a_target_below_a_link_of_the_root_is_named_by_where_it_lies() -> None:
    plan = plan_of(user_facts(), "--ro-bind", "/srv:/bin/x", "--tmpfs", "/lib64/y")
    targets = [mount.target for mount in mounts_of(plan)]
    assert "/usr/bin/x" in targets
    assert "/usr/lib64/y" in targets
