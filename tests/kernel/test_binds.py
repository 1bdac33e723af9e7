"""--bind, --ro-bind and --tmpfs: what shows where, which one wins, and whose files they are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support import Caller

OWN_ROOT = ("default", "sandbox", "full")  # balanced is default: see test_profiles


@pytest.fixture(params=OWN_ROOT)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_bind_is_writable_and_lasts(caller: Caller, profile: str) -> None:
    here = str(caller.scratch)
    assert caller.inside(f"echo made >{here}/new; cat {here}/new", "--isolation", profile, "--bind", here) == "made\n"
    made = caller.scratch / "new"
    assert made.read_text() == "made\n"
    assert made.stat().st_uid == caller.uid, "files belong to the directory's owner on the host"
    assert made.stat().st_gid == caller.gid


def test_bind_elsewhere(caller: Caller, profile: str) -> None:
    caller.write("file", "content\n")
    script = f"cat /data/deep/er/file; echo new >/data/deep/er/new; ls {caller.scratch} 2>/dev/null || echo hidden"
    answer = caller.inside(script, "--isolation", profile, "--bind", f"{caller.scratch}:/data/deep/er")
    assert answer == "content\nhidden\n"
    assert (caller.scratch / "new").read_text() == "new\n"


def test_read_only_bind(caller: Caller, profile: str) -> None:
    caller.write("dir/file", "content\n", mode=0o666)
    script = """
    cd /data && cat dir/file
    { echo x >dir/file || echo x >>dir/file || true >new || mkdir d || rm dir/file || chmod 600 dir/file; } 2>&- ||
        echo refused
    """
    answer = caller.inside(script, "--isolation", profile, "--ro-bind", f"{caller.scratch}:/data")
    assert answer == "content\nrefused\n"
    assert (caller.scratch / "dir/file").read_text() == "content\n"


def test_tmpfs(caller: Caller, profile: str) -> None:
    script = "stat -f -c %T /work; ls -A /work; echo x >/work/x; cat /work/x; stat -c %a /work"
    assert caller.inside(script, "--isolation", profile, "--tmpfs", "/work") == "tmpfs\nx\n755\n"


def test_a_single_file(caller: Caller, profile: str) -> None:
    caller.write("file", "content\n")
    caller.write("beside")
    options = ["--isolation", profile, "--bind", f"{caller.scratch}/file:/data/given"]
    assert caller.inside("ls /data; cat /data/given; echo more >>/data/given", *options) == "given\ncontent\n"
    assert (caller.scratch / "file").read_text() == "content\nmore\n"
    options[2] = "--ro-bind"
    script = "cat /data/given; (echo more >>/data/given) 2>/dev/null || echo refused"
    assert caller.inside(script, *options) == "content\nmore\nrefused\n"


def test_a_single_file_below_etc(caller: Caller, profile: str) -> None:
    caller.write("hosts", "192.0.2.1 example\n")
    options = ["--isolation", profile, "--ro-bind", f"{caller.scratch}/hosts:/etc/hosts"]
    assert caller.inside("cat /etc/hosts", *options) == "192.0.2.1 example\n"
    assert "192.0.2.1" not in Path("/etc/hosts").read_text()


def test_a_later_bind_wins(caller: Caller, profile: str) -> None:
    for name in ("first", "second"):
        caller.write(f"{name}/name", f"{name}\n")
    first, second = f"{caller.scratch}/first:/data", f"{caller.scratch}/second:/data"
    common = ["--isolation", profile]
    assert caller.inside("cat /data/name", *common, "--bind", first, "--bind", second) == "second\n"
    assert caller.inside("cat /data/name", *common, "--bind", second, "--bind", first) == "first\n"
    assert caller.inside("ls /data", *common, "--bind", first, "--tmpfs", "/data") == ""
    assert caller.inside("ls /data", *common, "--tmpfs", "/data", "--bind", first) == "name\n"
    # Not the stronger: the later. Both ways round.
    script = "(: >/data/name) 2>/dev/null && echo writable || echo read-only"
    assert caller.inside(script, *common, "--bind", first, "--ro-bind", first) == "read-only\n"
    assert caller.inside(script, *common, "--ro-bind", first, "--bind", first) == "writable\n"


def test_binds_inside_binds(caller: Caller, profile: str) -> None:
    caller.write("outer/file", "outer\n")
    caller.write("outer/sub/file", "outer's sub\n")
    caller.write("inner/file", "inner\n")
    outer, inner = f"{caller.scratch}/outer:/data", f"{caller.scratch}/inner:/data/sub"
    script = (
        "cat /data/file /data/sub/file; (: >/data/new) 2>/dev/null && echo rw || echo ro; : >/data/sub/new && echo rw"
    )
    common = ["--isolation", profile]
    assert caller.inside(script, *common, "--ro-bind", outer, "--bind", inner) == "outer\ninner\nro\nrw\n"
    assert not (caller.scratch / "outer/new").exists()
    assert (caller.scratch / "inner/new").exists()
    # The other way round the outer one, being later, covers the inner one.
    assert caller.inside("cat /data/sub/file", *common, "--bind", inner, "--bind", outer) == "outer's sub\n"
    assert caller.inside("ls /data /data/sub", *common, "--bind", outer, "--tmpfs", "/data/sub") == (
        "/data:\nfile\nsub\n\n/data/sub:\n"
    )


def test_a_missing_mount_point_in_a_writable_bind_is_made(caller: Caller, profile: str) -> None:
    caller.write("inner/file", "inner\n")
    caller.mkdir("outer")
    options = ["--bind", f"{caller.scratch}/outer:/data", "--bind", f"{caller.scratch}/inner:/data/made/here"]
    assert caller.inside("cat /data/made/here/file", "--isolation", profile, *options) == "inner\n"


def test_a_missing_mount_point_in_a_read_only_bind_is_refused(caller: Caller, profile: str) -> None:
    caller.mkdir("outer")
    options = ["--ro-bind", f"{caller.scratch}/outer:/data", "--tmpfs", "/data/missing"]
    done = caller.sh("echo started", "--isolation", profile, *options)
    assert (done.returncode, done.stdout) == (125, "")
    assert "/data/missing" in done.stderr and "EROFS" in done.stderr
    assert "fix:" in done.stderr


def test_over_system_directories_and_home(caller: Caller, profile: str) -> None:
    caller.write("file", "mine\n")
    here = str(caller.scratch)
    script = "cat /usr/local/file $HOME/project/file /tmp/shared/file; echo $HOME"
    options = []
    for target in ("/usr/local", f"{caller.home_inside}/project", "/tmp/shared"):
        options += ["--ro-bind", f"{here}:{target}"]
    try:
        answer = caller.inside(script, "--isolation", profile, *options)
        assert answer == f"mine\nmine\nmine\n{caller.home_inside}\n"
    finally:
        if not caller.is_root:
            Path(caller.home, "project").rmdir()  # the mount point, made in the writable home


def test_home_replaced(caller: Caller, profile: str) -> None:
    caller.write("file", "mine\n")
    answer = caller.inside("ls -A ~; pwd", "--isolation", profile, "--bind", f"{caller.scratch}:{caller.home_inside}")
    assert answer.splitlines()[0] == "file"


STRANGE = [
    "with space",
    "with:colon",
    "tab\there",
    "new\nline",
    "back\\slash",
    "quote'\"",
    "ünï→code",
    "-dash",
    "a,b=c",
]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names(caller: Caller, name: str) -> None:
    source = caller.write(f"{name}/file", f"of {name}\n").parent
    escaped = str(source).replace(":", "\\:")
    target = f"/data/{name}"
    for bind in (escaped, f"{escaped}:{target.replace(':', chr(92) + ':')}"):
        where = target if bind.endswith(target.replace(":", "\\:")) else str(source)
        done = caller.hexe("run", "--isolation", "full", "--ro-bind", bind, "--", "cat", f"{where}/file")
        assert (done.returncode, done.stdout) == (0, f"of {name}\n"), done


def test_relative_source_and_tilde(caller: Caller) -> None:
    caller.write("project/file", "relative\n")
    for given in ("project:/data", "./project:/data", "../" + caller.scratch.name + "/project/:/data"):
        done = caller.hexe("run", "--bind", given, "--", "cat", "/data/file", cwd=caller.scratch)
        assert (done.returncode, done.stdout) == (0, "relative\n"), done
    done = caller.hexe(
        "run",
        "--ro-bind",
        "project:~/p",
        "--home",
        "private",
        "--",
        "cat",
        f"{caller.home_inside}/p/file",
        cwd=caller.scratch,
    )
    assert (done.returncode, done.stdout) == (0, "relative\n"), done


def test_a_source_that_is_a_link(caller: Caller, profile: str) -> None:
    caller.write("real/file", "through a link\n")
    link = caller.scratch / "link"
    link.symlink_to("real")
    file_link = caller.scratch / "file-link"
    file_link.symlink_to("real/file")
    options = ["--bind", f"{link}:/data", "--bind", f"{file_link}:/given"]
    answer = caller.inside("cat /data/file /given; echo x >/data/new", "--isolation", profile, *options)
    assert answer == "through a link\n" * 2
    assert (caller.scratch / "real/new").exists()


def test_links_inside_a_bind_cannot_lead_out(caller: Caller, profile: str) -> None:
    (caller.mkdir("work") / "out").symlink_to("/var")
    (caller.scratch / "work/up").symlink_to("../../../../../..")
    script = "ls /work/out/ 2>/dev/null || echo hidden; ls -A /work/up/"
    answer = caller.inside(script, "--isolation", profile, "--bind", f"{caller.scratch}/work:/work")
    assert answer == "hidden\n" + caller.inside("ls -A /", "--isolation", profile, "--tmpfs", "/work")


def test_a_target_through_a_link_stays_inside(caller: Caller, profile: str) -> None:
    # What an earlier run may have planted: the destination is resolved below the new root, never on the host.
    host_side = caller.mkdir("victim")
    (caller.mkdir("work") / "cache").symlink_to(host_side)
    caller.write("inner/file", "inner\n")
    options = ["--bind", f"{caller.scratch}/work:/work", "--bind", f"{caller.scratch}/inner:/work/cache/deep"]
    done = caller.sh("ls -R /work 2>/dev/null; :", "--isolation", profile, *options)
    assert done.returncode in (0, 125)
    assert list(host_side.iterdir()) == []


def test_submounts_of_a_bind_come_along_read_only_too(root_caller: Caller, profile: str) -> None:
    sub = root_caller.mkdir("sub")
    subprocess.run(["mount", "-t", "tmpfs", "hexe-test", str(sub)], check=True)
    try:
        (sub / "file").write_text("on the submount\n")
        script = "cat /data/sub/file; (: >/data/sub/new) 2>/dev/null || echo refused"
        answer = root_caller.inside(script, "--isolation", profile, "--ro-bind", f"{root_caller.scratch}:/data")
        assert answer == "on the submount\nrefused\n"
    finally:
        subprocess.run(["umount", str(sub)], check=True)


def test_devices_and_setuid_bits_are_dead_in_binds(root_caller: Caller, profile: str) -> None:
    directory = root_caller.scratch
    os.mknod(directory / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    os.chmod(directory / "zero", 0o666)
    subprocess.run(["cp", "/usr/bin/id", str(directory / "id")], check=True)
    os.chmod(directory / "id", 0o6755)
    script = "head -c1 /data/zero >/dev/null 2>&1 || echo refused; /data/id -u"
    common = ["--isolation", profile, "--bind", f"{directory}:/data"]
    assert root_caller.inside(script, *common, "--uid", "1234") == "refused\n1234\n"


def test_many_binds(caller: Caller) -> None:
    options = []
    for number in range(200):
        caller.write(f"d{number}/n", f"{number}\n")
        options += ["--ro-bind", f"{caller.scratch}/d{number}:/data/{number}"]
    answer = caller.inside("ls /data | wc -l; cat /data/0/n /data/199/n", "--isolation", "full", *options)
    assert answer == "200\n0\n199\n"


# -- root's binds are idmapped: owners stay what they are on disk -----------------------------------------------------


def test_roots_closed_directory_is_readable_and_stays_roots(root_caller: Caller, profile: str) -> None:
    directory = root_caller.mkdir("closed", mode=0o700)
    root_caller.write("closed/file", "roots own\n", mode=0o600)
    script = "cat file; stat -c %u:%g . file; mkdir d; echo x >new; chmod 751 d; mv file moved; rm moved; ln -s x link"
    answer = root_caller.inside(script, "--isolation", profile, "--bind", f"{directory}:/data", "--cwd", "/data")
    assert answer == "roots own\n0:0\n0:0\n"
    made = {path.name: path.lstat() for path in directory.iterdir()}
    assert sorted(made) == ["d", "link", "new"]
    assert {(found.st_uid, found.st_gid) for found in made.values()} == {(0, 0)}
    assert made["d"].st_mode & 0o7777 == 0o751


def test_a_directory_of_someone_else_stays_theirs(root_caller: Caller, profile: str) -> None:
    directory = root_caller.mkdir("theirs", mode=0o700)
    os.chown(directory, 4242, 4343)
    script = "stat -c %u:%g .; : >new; stat -c %u:%g new"
    answer = root_caller.inside(script, "--isolation", profile, "--bind", f"{directory}:/data", "--cwd", "/data")
    assert answer == "0:0\n0:0\n", "inside, the directory's owner is the caller"
    assert ((directory / "new").stat().st_uid, (directory / "new").stat().st_gid) == (4242, 4343)


def test_files_of_a_third_owner_are_out_of_reach(root_caller: Caller, profile: str) -> None:
    directory = root_caller.mkdir("mixed")
    secret = root_caller.write("mixed/secret", "of a third\n", mode=0o600)
    os.chown(secret, 5555, 5555)
    script = "stat -c %u secret; cat secret 2>/dev/null || echo refused; chmod 644 secret 2>/dev/null || echo refused"
    answer = root_caller.inside(script, "--isolation", profile, "--bind", f"{directory}:/data", "--cwd", "/data")
    assert answer == "65534\nrefused\nrefused\n"


def test_a_file_and_a_directory_cannot_lie_upon_each_other(caller: Caller, profile: str) -> None:
    over_directory = ("/etc/passwd:/usr/share", "is a directory inside")
    over_file = ("/etc:/etc/passwd", "passes through")
    for bind, text in (over_directory, over_file):
        done = caller.sh("echo started", "--isolation", profile, "--ro-bind", bind)
        assert (done.returncode, done.stdout) == (125, "")
        assert bind.partition(":")[2] in done.stderr and text in done.stderr


@pytest.mark.parametrize("identity", ["keep", "root", "1234"])
def test_owners_hold_with_every_identity(caller: Caller, profile: str, identity: str) -> None:
    options = ["--isolation", profile, "--uid", identity, "--bind", f"{caller.scratch}:/data"]
    script = "stat -c %u /data; id -u; : >/data/new"
    expected = {"keep": caller.uid, "root": 0}.get(identity, 1234)
    assert caller.inside(script, *options) == f"{expected}\n{expected}\n"
    assert (caller.scratch / "new").stat().st_uid == caller.uid


def test_a_filesystem_that_cannot_be_idmapped_is_an_error_with_a_hint(root_caller: Caller, profile: str) -> None:
    done = root_caller.sh("echo started", "--isolation", profile, "--bind", "/proc:/data")
    assert (done.returncode, done.stdout) == (125, "")
    assert "idmapped" in done.stderr and "EINVAL" in done.stderr and "fix:" in done.stderr
