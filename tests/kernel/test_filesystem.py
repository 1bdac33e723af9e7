"""What a sandbox's root holds and what it doesn't: the system, home, /tmp, /proc, /dev."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import PATIENCE, SYSTEM_PATH, Caller

OWN_ROOT = ("default", "sandbox", "full")  # balanced is default: see test_profiles
FILTERED = ("sandbox", "full")
SYSTEM = ("/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/etc")
SOFTWARE = ("/nix", "/pkg", "/opt")
DEVICES = ["full", "null", "random", "tty", "urandom", "zero"]


@pytest.fixture(params=OWN_ROOT)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def listed(text: str) -> set[str]:
    return set(text.split())


def test_the_root_holds_these_and_nothing_else(caller: Caller, profile: str) -> None:
    expected = {"dev", "home", "proc", "tmp"}
    expected |= {path.lstrip("/") for path in SYSTEM if os.path.lexists(path)}
    if profile != "full":
        expected |= {path.lstrip("/") for path in SOFTWARE if os.path.lexists(path)}
        if os.path.lexists("/run/current-system"):
            expected.add("run")
    assert listed(caller.inside("ls -A /", "--isolation", profile)) - {"run"} == expected - {"run"}


@pytest.mark.parametrize("path", ["/var", "/srv", "/mnt", "/sys", "/root", "/boot", "/media", "/oldroot", "/.."])
def test_hidden(caller: Caller, profile: str, path: str) -> None:
    answer = caller.inside(f"ls -A {path} 2>/dev/null || echo hidden", "--isolation", profile)
    if path == "/..":
        assert answer == caller.inside("ls -A /", "--isolation", profile)
    else:
        assert answer == "hidden\n"


def test_links_stay_links_and_directories_are_the_hosts(caller: Caller, profile: str) -> None:
    for path in SYSTEM:
        if os.path.islink(path):
            assert caller.inside(f"readlink {path}", "--isolation", profile) == os.readlink(path) + "\n"
        elif os.path.isdir(path):
            there = os.stat(path)
            seen = caller.inside(f"stat -c '%F %d:%i' {path}", "--isolation", profile)
            assert seen == f"directory {there.st_dev}:{there.st_ino}\n"


WRITES = """
import errno, os, sys
for path in sys.argv[1:]:
    for attempt in (
        lambda: os.close(os.open(path + "/.hexe-test", os.O_WRONLY | os.O_CREAT)),
        lambda: os.mkdir(path + "/.hexe-test"),
        lambda: os.chmod(path, 0o777),
        lambda: os.utime(path),
    ):
        try:
            attempt()
            print("done", path)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                print(path, error)
"""


def test_system_directories_cannot_be_written(caller: Caller, profile: str) -> None:
    paths = [path for path in (*SYSTEM, *SOFTWARE) if os.path.isdir(path) and not os.path.islink(path)]
    paths += ["/usr/bin", "/etc", "/"]
    if profile == "full":
        paths = [path for path in paths if path not in SOFTWARE]
    done = caller.hexe("run", "--isolation", profile, "--", "/usr/bin/python3", "-I", "-c", WRITES, *paths)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_read_only_is_the_mounts_doing_not_the_owners(root_caller: Caller, profile: str) -> None:
    # A file that everyone may write, in a directory that is read-only inside: only the mount can refuse.
    with tempfile.NamedTemporaryFile(dir="/usr/local", prefix=".hexe-test-") as file:
        os.chmod(file.name, 0o666)
        script = f"echo x 2>/dev/null >>{file.name} || echo refused"
        assert root_caller.inside(script, "--isolation", profile) == "refused\n"
        assert file.read() == b""


def test_etc_is_readable(caller: Caller, profile: str) -> None:
    assert caller.inside("cat /etc/passwd", "--isolation", profile) == Path("/etc/passwd").read_text()


def test_secrets_of_etc_stay_secret(caller: Caller, profile: str) -> None:
    assert Path("/etc/shadow").exists()
    assert caller.inside("cat /etc/shadow 2>/dev/null || echo refused", "--isolation", profile) == "refused\n"
    script = "cat /etc/shadow 2>/dev/null || echo refused"
    assert caller.inside(script, "--isolation", profile, "--uid", "root") == "refused\n"


def test_software_directories_but_not_in_full(root_caller: Caller, profile: str) -> None:
    made = not os.path.exists("/opt")
    Path("/opt").mkdir(exist_ok=True)
    try:
        answer = root_caller.inside("ls -A /opt 2>/dev/null || echo hidden", "--isolation", profile)
        visible = "\n".join(sorted(os.listdir("/opt")))
        assert listed(answer) == ({"hidden"} if profile == "full" else listed(visible))
    finally:
        if made:
            Path("/opt").rmdir()


# -- home ------------------------------------------------------------------------------------------------------------


def test_home_is_writable_and_persistent(caller: Caller, profile: str) -> None:
    name = f"hexe-test-{profile}"
    try:
        caller.inside(f"echo first >$HOME/{name}", "--isolation", profile)
        again = caller.inside(f"cat $HOME/{name} 2>/dev/null || echo gone; pwd; echo $HOME", "--isolation", profile)
        content, *directories = again.splitlines()
        assert directories == [caller.home_inside] * 2
        if caller.is_root:
            # Root's home isn't under /home: it gets an empty one on tmpfs, each time anew.
            assert content == "gone"
            assert not Path(caller.home, name).exists()
        else:
            assert content == "first"
            assert Path(caller.home, name).read_text() == "first\n"
            assert Path(caller.home, name).stat().st_uid == caller.uid
    finally:
        Path(caller.home, name).unlink(missing_ok=True)


def test_roots_private_home(root_caller: Caller, profile: str) -> None:
    script = "stat -c '%a %u %g' $HOME; stat -f -c %T $HOME; ls -A $HOME; ls -d /root 2>/dev/null || echo no /root"
    assert root_caller.inside(script, "--isolation", profile).splitlines() == ["700 0 0", "tmpfs", "no /root"]


def test_a_lying_home_variable_shows_nothing(caller: Caller, profile: str) -> None:
    # HOME decides only among directories under /home that are the caller's own.
    for lie in ("/root", "/etc", "/home", "/home/../root", "/nonexistent"):
        answer = caller.inside("echo $HOME; ls /home", "--isolation", profile, env={"HOME": lie})
        assert answer == f"{caller.home_inside}\n{caller.user}\n"


def test_other_homes_are_hidden(caller: Caller, profile: str) -> None:
    assert listed(caller.inside("ls -A /home", "--isolation", profile)) == {caller.home_inside.split("/")[-1]}


def test_home_read_only(caller: Caller, profile: str) -> None:
    script = "cat $HOME/there 2>/dev/null; echo x 2>/dev/null >$HOME/new || echo refused"
    there = Path(caller.home, "there")
    if caller.is_root:
        # What root gets is an empty one, which is read-only then: an option is no silent nothing.
        assert caller.inside("ls -A $HOME; " + script, "--isolation", profile, "--home", "ro") == "refused\n"
        return
    try:
        caller.write(there, "seen\n")
        assert caller.inside(script, "--isolation", profile, "--home", "ro") == "seen\nrefused\n"
    finally:
        there.unlink()
    assert not Path(caller.home, "new").exists()


def test_home_private(caller: Caller, profile: str) -> None:
    script = "ls -A $HOME; stat -c %a $HOME; stat -f -c %T $HOME; echo x >$HOME/new && cat $HOME/new"
    answer = caller.inside(script, "--isolation", profile, "--home", "private")
    assert answer == "700\ntmpfs\nx\n"
    assert not Path(caller.home, "new").exists()


# -- /tmp ------------------------------------------------------------------------------------------------------------


def test_tmp_is_private_and_fresh(caller: Caller, profile: str) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp", prefix="hexe-test-") as file:
        os.chmod(file.name, 0o644)
        script = "ls -A /tmp; stat -c %a /tmp; stat -f -c %T /tmp; echo x >/tmp/left; cat /tmp/left"
        for _ in range(2):
            assert caller.inside(script, "--isolation", profile) == "1777\ntmpfs\nx\n"
    assert not Path("/tmp/left").exists()


# -- /proc -----------------------------------------------------------------------------------------------------------


def test_proc_cannot_be_written(caller: Caller, profile: str) -> None:
    targets = "/proc/sys/kernel/hostname /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger"
    script = f"for f in {targets} /proc/sys/kernel/ns_last_pid; do (echo 1 >$f) 2>/dev/null && echo wrote $f; done; :"
    for identity in ("keep", "root"):
        assert caller.inside(script, "--isolation", profile, "--uid", identity) == ""


READ_ONLY_PROC = ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/sysrq-trigger")
MASKED_PROC = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/key-users", "/proc/kallsyms", "/proc/kmsg")


@pytest.mark.parametrize("filtered", FILTERED)
def test_parts_of_proc_are_read_only_mounts(caller: Caller, filtered: str) -> None:
    lines = caller.inside("cut -d' ' -f5,6 /proc/self/mountinfo", "--isolation", filtered).splitlines()
    options = dict(line.split() for line in lines)
    for path in READ_ONLY_PROC:
        if os.path.exists(path):
            assert "ro" in options[path].split(","), path


@pytest.mark.parametrize("filtered", FILTERED)
def test_secrets_of_proc_are_masked(caller: Caller, filtered: str) -> None:
    present = [path for path in MASKED_PROC if os.path.exists(path)]
    assert present
    # An empty file, and /dev/null in truth: nothing to read, whoever asks.
    script = f"for f in {' '.join(present)}; do wc -c <$f; stat -L -c %t:%T $f; done"
    for identity in ("keep", "root"):
        assert caller.inside(script, "--isolation", filtered, "--uid", identity) == "0\n1:3\n" * len(present)


def test_init_in_proc_tells_nothing(caller: Caller, profile: str) -> None:
    script = """
    for f in environ mem maps auxv; do head -c1 /proc/1/$f >/dev/null 2>&1 && echo read $f; done
    for f in root cwd exe fd/0; do readlink /proc/1/$f && echo followed $f; done
    ls /proc/1/fd 2>/dev/null; ls /proc/1/root/ 2>/dev/null; ls /proc/1/map_files 2>/dev/null; :
    """
    assert caller.inside(script, "--isolation", profile, env={"TOKEN": "secret-of-the-caller"}) == ""
    # Its arguments are gone too: those were hexe's, with whatever the caller wrote there.
    arguments = caller.inside("tr -d '\\0' </proc/1/cmdline", "--isolation", profile, "--env", "TOKEN=secret")
    assert arguments == "hexe: init"


# -- /dev ------------------------------------------------------------------------------------------------------------


def test_dev_holds_these_and_nothing_else(caller: Caller, profile: str) -> None:
    expected = {*DEVICES, "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm"}
    assert listed(caller.inside("ls -A /dev", "--isolation", profile)) == expected
    with_terminal = caller.inside("ls -A /dev", "--isolation", profile, "--tty").replace("\r", "")
    assert listed(with_terminal) == expected | {"console"}


def test_devices_are_the_real_ones_and_work(caller: Caller, profile: str) -> None:
    for name in DEVICES:
        device = os.stat(f"/dev/{name}").st_rdev
        seen = caller.inside(f"stat -c '%F %t:%T' /dev/{name}", "--isolation", profile)
        assert seen == f"character special file {os.major(device):x}:{os.minor(device):x}\n"
    script = """
    head -c 5 /dev/zero | od -An -tx1; head -c 8 /dev/urandom | wc -c; head -c 8 /dev/random | wc -c
    echo x >/dev/null; wc -c </dev/null
    (echo x >/dev/full) 2>/dev/null || echo full; (: </dev/tty) 2>/dev/null || echo no tty
    """
    answer = caller.inside(script, "--isolation", profile)
    assert answer.splitlines() == [" 00 00 00 00 00", "8", "8", "0", "full", "no tty"]


def test_dev_links(caller: Caller, profile: str) -> None:
    script = "for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done"
    answer = caller.inside(script, "--isolation", profile)
    assert answer.split() == ["/proc/self/fd", *(f"/proc/self/fd/{n}" for n in range(3)), "pts/ptmx"]


def test_dev_itself_cannot_be_changed(caller: Caller, profile: str) -> None:
    script = "(true >/dev/new || echo refused; rm /dev/full || echo refused; true >/dev/shm/x) 2>&-; ls /dev/shm"
    assert caller.inside(script, "--isolation", profile) == "refused\nrefused\nx\n"


OWN_TERMINAL = """
import os, pty
first, peer = pty.openpty()
print(os.ttyname(peer), sorted(os.listdir("/dev/pts")))
os.write(first, b"line\\n")
print(os.read(peer, 100))
"""


def test_devpts_is_an_instance_of_its_own(caller: Caller, profile: str) -> None:
    ours, peer = os.openpty()
    try:
        answer = caller.python(OWN_TERMINAL, "--isolation", profile)
    finally:
        os.close(ours)
        os.close(peer)
    assert answer == "/dev/pts/0 ['0', 'ptmx']\nb'line\\n'\n"
    assert caller.inside("stat -c %d /dev/pts", "--isolation", profile) != f"{os.stat('/dev/pts').st_dev}\n"


def test_devpts_of_the_fake_root_works_too(caller: Caller, profile: str) -> None:
    assert caller.python(OWN_TERMINAL, "--isolation", profile, "--uid", "root").startswith("/dev/pts/0 ")


# -- DNS: /etc/resolv.conf may be a link into a directory that isn't visible -----------------------------------------


@pytest.fixture
def etc_with_linked_resolv_conf(root_caller: Caller) -> Iterator[list[str]]:
    """A command prefix under which /etc/resolv.conf is a link into /run.

    The host's /etc stays as it is: a copy of it is mounted in a namespace that ends with the command.
    """
    unshare = shutil.which("unshare", path=SYSTEM_PATH)
    assert unshare, "util-linux's unshare is needed to give hexe another /etc"
    etc = root_caller.scratch / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    resolv = etc / "resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("/run/hexe-test-resolver/stub-resolv.conf")
    script = (
        "mount -t tmpfs none /run && mkdir /run/hexe-test-resolver && mkdir /run/user && "
        "echo 'nameserver 192.0.2.53' >/run/hexe-test-resolver/stub-resolv.conf && echo >/run/hexe-test-resolver/other "
        f'&& mount --bind {shlex.quote(str(etc))} /etc && exec "$@"'
    )
    yield [unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


@pytest.mark.parametrize("name", OWN_ROOT)
def test_resolv_conf_that_leads_out_of_etc(
    root_caller: Caller, etc_with_linked_resolv_conf: list[str], name: str
) -> None:
    script = "cat /etc/resolv.conf 2>/dev/null; ls -A /run/hexe-test-resolver /run 2>/dev/null; :"
    command = ["run", "--isolation", name, "--", "sh", "-c", script]
    process = root_caller.popen(*command, wrapper=etc_with_linked_resolv_conf)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    lines = [line for line in out.decode().splitlines() if line]
    if name == "full":
        assert lines == [], "without a network there is no DNS to help"
    else:
        # The target, and nothing else of /run.
        assert lines[0] == "nameserver 192.0.2.53"
        assert sorted(lines[1:]) == sorted(
            ["/run/hexe-test-resolver:", "stub-resolv.conf", "/run:", "hexe-test-resolver"]
        )


def test_nothing_of_the_run_shows_on_the_host(caller: Caller) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    run = caller.running("--bind", str(caller.scratch), script="mkdir /tmp/d; : >/tmp/d/f")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert run.finish() == 0
    assert Path("/proc/self/mountinfo").read_text() == before


def test_mounts_made_on_the_host_later_stay_outside(root_caller: Caller) -> None:
    directory = root_caller.mkdir("late")
    run = root_caller.running("--bind", str(root_caller.scratch))
    subprocess.run(["mount", "-t", "tmpfs", "hexe-test", str(directory)], check=True)
    try:
        (directory / "secret").write_text("x")
        seen = Path(f"/proc/{run.command}/root{directory}")
        assert list(seen.iterdir()) == []
        assert stat.S_ISDIR(seen.stat().st_mode)
    finally:
        subprocess.run(["umount", str(directory)], check=True)
