"""Who the command is: inside, where whoami, id, $HOME and git must agree, and on the host, where it is never root."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest

from support import Caller, status_of

PROFILES = ("minimal", "default", "balanced", "sandbox", "full")
OWN_ROOT = ("default", "balanced", "sandbox", "full")
NOBODY = 65534


def stand_in() -> int:
    """The host id that root's sandboxes run with: the documentation's rule, written down a second time."""
    for line in Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else []:
        name, start, _ = line.split(":")
        if name == "root":
            return int(start)
    return NOBODY


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_the_caller_is_itself(caller: Caller, profile: str) -> None:
    script = "whoami; id -u; id -g; echo $USER $LOGNAME; echo $HOME; test -O $HOME && echo mine"
    group = grp.getgrgid(caller.gid).gr_name
    answer = caller.inside(f"{script}; id -gn", "--isolation", profile).splitlines()
    assert answer == [
        caller.user,
        str(caller.uid),
        str(caller.gid),
        f"{caller.user} {caller.user}",
        caller.home_inside,
        "mine",
        group,
    ]


def test_the_caller_is_itself_in_none(caller: Caller) -> None:
    assert caller.inside("whoami; id -u; echo $HOME", "--isolation", "none") == (
        f"{caller.user}\n{caller.uid}\n{caller.home}\n"
    )


def test_minimal_is_nobody_with_the_callers_access(user_caller: Caller) -> None:
    user_caller.write("own", "readable\n", mode=0o600)
    path = user_caller.scratch / "own"
    script = f"whoami; id -u; id -g; cat {path}; echo more >>{path}; stat -c %u {path}"
    answer = user_caller.inside(script, "--isolation", "minimal")
    assert answer == f"nobody\n{NOBODY}\n{NOBODY}\nreadable\n{NOBODY}\n"
    assert path.read_text() == "readable\nmore\n"
    assert path.stat().st_uid == user_caller.uid


def test_minimal_as_root_has_nobodys_access(root_caller: Caller) -> None:
    root_caller.write("secret", "roots own\n", mode=0o600)
    path = root_caller.scratch / "secret"
    script = f"whoami; cat {path} 2>/dev/null || echo refused; cat /etc/shadow 2>/dev/null || echo refused"
    assert root_caller.inside(script, "--isolation", "minimal") == "nobody\nrefused\nrefused\n"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("identity", ["keep", "root", "1234", "4294967294", "0"])
def test_the_hosts_id_never_depends_on_the_one_inside(caller: Caller, profile: str, identity: str) -> None:
    run = caller.running("--isolation", profile, "--uid", identity, "--gid", identity)
    host_uid, host_gid = (stand_in(), stand_in()) if caller.is_root else (caller.uid, caller.gid)
    for pid in (run.init, run.command):
        status = status_of(pid)
        assert status["Uid"].split() == [str(host_uid)] * 4
        assert status["Gid"].split() == [str(host_gid)] * 4
    inside = {"keep": caller.uid, "root": 0}.get(identity, 0 if identity == "0" else None)
    inside = int(identity) if inside is None else inside
    assert Path(f"/proc/{run.command}/uid_map").read_text().split() == [str(inside), str(host_uid), "1"]


@pytest.mark.parametrize("profile", PROFILES)
def test_fake_root(caller: Caller, profile: str) -> None:
    answer = caller.inside("id -u; id -g; whoami", "--isolation", profile, "--uid", "root")
    assert answer == "0\n0\nroot\n"
    if profile in OWN_ROOT:
        names = caller.inside("echo $USER $LOGNAME; echo $HOME", "--isolation", profile, "--uid", "root")
        assert names == f"root root\n{caller.home_inside}\n"


@pytest.mark.parametrize("profile", PROFILES)
def test_numbers(caller: Caller, profile: str) -> None:
    answer = caller.inside("id -u; id -g", "--isolation", profile, "--uid", "1234", "--gid", "2345")
    assert answer == "1234\n2345\n"
    assert caller.inside("id -u; id -g", "--isolation", profile, "--uid", "root", "--gid", "7") == "0\n7\n"


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_one_number_leaves_the_other(caller: Caller, profile: str) -> None:
    assert caller.inside("id -u; id -g", "--isolation", profile, "--uid", "1234") == f"1234\n{caller.gid}\n"
    assert caller.inside("id -u; id -g", "--isolation", profile, "--gid", "1234") == f"{caller.uid}\n1234\n"


def test_the_name_of_a_known_number(caller: Caller) -> None:
    assert caller.inside("echo $USER; whoami", "--uid", "1") == "daemon\ndaemon\n"
    assert caller.inside("echo $USER", "--uid", "987654") == "987654\n"


def test_the_stand_in_comes_from_subuid(root_caller: Caller) -> None:
    if not Path("/etc/subuid").exists():
        pytest.skip("there is no /etc/subuid to mount another one on")
    fake = root_caller.write("subuid", "someone:200000:65536\nroot:100000:65536\n")
    data = root_caller.mkdir(root_caller.scratch / "data", 0o700)
    run = f"{root_caller.script} run --bind {data}:/data -- sh -c 'cat /proc/self/uid_map; echo 1 >/data/new'"
    process = root_caller.start(["unshare", "-m", "sh", "-c", f"mount --bind {fake} /etc/subuid && exec {run}"])
    out, err = process.communicate(timeout=30)
    assert out.split() == [b"0", b"100000", b"1"], err
    assert (data / "new").stat().st_uid == 0, "an idmapped bind keeps the owner on disk, whatever the stand-in"


@pytest.mark.parametrize("profile", PROFILES)
def test_roots_groups_are_dropped(root_caller: Caller, profile: str) -> None:
    # A wrapper, since the suite's own root may have no supplementary group: 4 and 6 are adm and disk.
    code = "import os, sys; os.setgroups([0, 4, 6]); os.execv(sys.argv[1], sys.argv[1:])"
    wrapper = ["/usr/bin/python3", "-c", code]
    process = root_caller.popen("run", "--isolation", profile, "--", "id", "-G", wrapper=wrapper)
    assert process.communicate()[0].decode().split() == [str(NOBODY) if profile == "minimal" else "0"]


def test_groups_from_outside(root_caller: Caller) -> None:
    run = root_caller.running()
    assert status_of(run.command)["Groups"] == ""
    assert status_of(run.init)["Groups"] == ""


def test_ids_cannot_be_changed_inside(caller: Caller) -> None:
    code = """
import os
for change in (lambda: os.setuid(0), lambda: os.setresuid(1, 1, 1), lambda: os.setgroups([0]), lambda: os.setgid(0)):
    try:
        change()
        print("changed")
    except OSError as error:
        assert error.errno in (1, 22), error
print(os.getresuid())
"""
    identity = "4321"
    answer = caller.python(code, "--isolation", "default", "--uid", identity, "--gid", identity)
    assert answer == "(4321, 4321, 4321)\n"


def test_git_agrees_about_the_owner(caller: Caller) -> None:
    if not os.path.exists("/usr/bin/git"):
        pytest.skip("git is missing")
    caller.mkdir("repository")
    script = "git init -q . && git status --porcelain && : >file && git add file && git status --porcelain"
    options = ["--bind", f"{caller.scratch}/repository:/work", "--cwd", "/work"]
    assert caller.inside(script, *options) == "A  file\n"
    assert (caller.scratch / "repository/.git").stat().st_uid == caller.uid


def test_a_caller_without_an_entry_in_the_user_database(root_caller: Caller) -> None:
    # A container's or a build farm's uid: it has a number and no name.
    unknown = Caller("unknown", 987654, 987654, "987654", "/", root_caller.script)
    try:
        answer = unknown.inside("id -u; echo $USER; echo $HOME; : >$HOME/x && ls $HOME", env={"HOME": "/nonexistent"})
        assert answer == "987654\n987654\n/home/987654\nx\n"
    finally:
        unknown.close()
