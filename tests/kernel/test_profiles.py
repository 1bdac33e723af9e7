"""Every row of the profile table, looked at from inside and, while the command runs, from outside."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from support import NAMESPACES, Caller, namespaces_of, status_of

PROFILES = ("none", "minimal", "default", "balanced", "sandbox", "full")
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

# The table of the documentation, row by row: the profiles that have it.
SEPARATE = {
    "user": ("minimal", "default", "balanced", "sandbox", "full"),
    "pid": ("default", "balanced", "sandbox", "full"),
    "mnt": ("default", "balanced", "sandbox", "full"),
    "uts": ("sandbox", "full"),
    "ipc": ("sandbox", "full"),
    "cgroup": ("sandbox", "full"),
    "net": ("full",),
}
OWN_ROOT = SEPARATE["mnt"]
UNPRIVILEGED = SEPARATE["user"]
FILTERED = ("sandbox", "full")


def profile_of(name: str) -> tuple[str, str]:
    return "--isolation", name


@pytest.mark.parametrize("profile", PROFILES)
def test_namespaces(caller: Caller, profile: str) -> None:
    run = caller.running(*profile_of(profile))
    ours, command = namespaces_of("self"), namespaces_of(run.command)
    for kind in NAMESPACES:
        separate = profile in SEPARATE[kind]
        assert (command[kind] != ours[kind]) == separate, kind
    if os.geteuid() == 0:
        assert namespaces_of(run.init) == command
    else:
        with pytest.raises(PermissionError):  # init is not dumpable: its /proc entry is root's
            namespaces_of(run.init)
    assert run.finish() == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_namespaces_as_the_command_sees_them(caller: Caller, profile: str) -> None:
    links = caller.inside(f"readlink {' '.join(f'/proc/self/ns/{kind}' for kind in NAMESPACES)}", *profile_of(profile))
    ours = namespaces_of("self")
    seen = dict(zip(NAMESPACES, links.split()))
    assert {kind for kind in NAMESPACES if seen[kind] != ours[kind]} == {
        kind for kind, profiles in SEPARATE.items() if profile in profiles
    }


def test_two_sandboxes_share_nothing(caller: Caller) -> None:
    first, second = caller.running("--isolation", "full"), caller.running("--isolation", "full")
    one, other = namespaces_of(first.command), namespaces_of(second.command)
    assert [kind for kind in NAMESPACES if one[kind] == other[kind]] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_privileges_from_outside(caller: Caller, profile: str) -> None:
    run = caller.running(*profile_of(profile))
    ours = status_of("self")
    for pid in (run.init, run.command):
        status = status_of(pid)
        if profile in UNPRIVILEGED:
            assert {name: int(status[name], 16) for name in CAPABILITY_SETS} == dict.fromkeys(CAPABILITY_SETS, 0)
            assert status["NoNewPrivs"] == "1"
            assert "0" not in status["Uid"].split(), "host uid 0 runs inside"
            assert "0" not in status["Gid"].split(), "host gid 0 runs inside"
        else:
            assert status["CapBnd"] == ours["CapBnd"]
            assert status["NoNewPrivs"] == "0"
            assert status["Uid"].split() == [str(caller.uid)] * 4
        assert status["Seccomp"] == ("2" if profile in FILTERED else ours["Seccomp"])


@pytest.mark.parametrize("profile", PROFILES)
def test_privileges_from_inside(caller: Caller, profile: str) -> None:
    text = caller.inside("cat /proc/self/status", *profile_of(profile))
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
    assert status["NoNewPrivs"] == ("1" if profile in UNPRIVILEGED else "0")
    assert (status["Seccomp"] == "2") == (profile in FILTERED)
    if profile in UNPRIVILEGED:
        assert [name for name in CAPABILITY_SETS if int(status[name], 16)] == []
    inside = len(status["NSpid"].split())  # /proc is the new namespace's own: it shows one pid only
    assert inside == 1


@pytest.mark.parametrize("profile", UNPRIVILEGED)
def test_fake_root_has_no_privileges_either(caller: Caller, profile: str) -> None:
    text = caller.inside(
        "id -u; grep ^Cap /proc/self/status; grep ^NoNewPrivs /proc/self/status", "--uid", "root", *profile_of(profile)
    )
    uid, *capabilities, locked = text.splitlines()
    assert uid == "0"
    assert [line for line in capabilities if int(line.split()[1], 16)] == []
    assert locked.split()[1] == "1"


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_only_its_own_processes(caller: Caller, profile: str) -> None:
    listing = caller.inside("echo $$ /proc/[0-9]*", *profile_of(profile))
    shell, *processes = listing.split()
    assert processes == ["/proc/1", f"/proc/{shell}"]


@pytest.mark.parametrize("profile", ("none", "minimal"))
def test_the_hosts_processes(caller: Caller, profile: str) -> None:
    assert caller.inside(f"test -d /proc/{os.getpid()} && echo seen", *profile_of(profile)) == "seen\n"


@pytest.mark.parametrize("profile", PROFILES)
def test_hostname(caller: Caller, profile: str) -> None:
    expected = "hexe" if profile in SEPARATE["uts"] else socket.gethostname()
    before = socket.gethostname()
    assert caller.inside("uname -n; cat /proc/sys/kernel/hostname", *profile_of(profile)) == f"{expected}\n" * 2
    assert socket.gethostname() == before


@pytest.mark.parametrize("profile", SEPARATE["uts"])
def test_hostname_of_choice(caller: Caller, profile: str) -> None:
    assert caller.inside("uname -n", "--hostname", "build-7.example", *profile_of(profile)) == "build-7.example\n"


LISTEN_AND_CONNECT = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname(), 5)
accepted, _ = server.accept()
client.sendall(b"over loopback")
print(accepted.recv(100).decode())
"""


def test_full_has_loopback_alone_and_up(caller: Caller) -> None:
    devices = caller.inside("cat /proc/self/net/dev", "--isolation", "full").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    assert caller.python(LISTEN_AND_CONNECT, "--isolation", "full") == "over loopback\n"
    assert caller.inside("tail -n +2 /proc/self/net/route", "--isolation", "full") == ""


UNREACHABLE = """
import socket
for address in ("192.0.2.1", "127.0.0.1"):
    try:
        socket.create_connection((address, {port}), 5)
        print("connected")
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


def test_full_reaches_neither_the_host_nor_the_world(caller: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = UNREACHABLE.format(port=server.getsockname()[1])
        # ENETUNREACH: there is no route at all. ECONNREFUSED: the host's loopback is another one.
        assert caller.python(code, "--isolation", "full") == "OSError 101\nConnectionRefusedError 111\n"


@pytest.mark.parametrize("profile", ("none", "minimal", "default", "balanced", "sandbox"))
def test_others_have_the_hosts_network(caller: Caller, profile: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('connected')"
        assert caller.python(code, *profile_of(profile)) == "connected\n"
    devices = caller.inside("cat /proc/self/net/dev | wc -l", *profile_of(profile))
    assert int(devices) == len(Path("/proc/self/net/dev").read_text().splitlines())


LANDLOCKED = """
import os
try:
    os.open("/proc/self/fd/0", os.O_RDWR)
    print("reopened")
except PermissionError:
    print("refused")
"""


@pytest.mark.parametrize("profile", FILTERED)
def test_landlock_holds_where_mode_bits_do_not(caller: Caller, profile: str) -> None:
    # The file is the caller's own and writable by all: of the plan's walls only Landlock can refuse this.
    path = caller.write("input", "text", mode=0o666)
    with path.open("rb") as file:
        done = caller.hexe("run", *profile_of(profile), "--", "/usr/bin/python3", "-c", LANDLOCKED, stdin=file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


@pytest.mark.parametrize("profile", ("none", "minimal"))
def test_the_hosts_filesystem_stays(caller: Caller, profile: str) -> None:
    path = caller.write("seen", "on the host\n")
    assert caller.inside(f"cat {path}; ls -di /", *profile_of(profile)).split("\n")[0] == "on the host"
    assert caller.inside("stat -c %d:%i /", *profile_of(profile)) == f"{os.stat('/').st_dev}:{os.stat('/').st_ino}\n"


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_the_root_is_a_tmpfs_of_its_own_and_sealed(caller: Caller, profile: str) -> None:
    mounts = caller.inside("cat /proc/self/mountinfo", *profile_of(profile)).splitlines()
    root = [line.split() for line in mounts if line.split()[4] == "/"]
    assert len(root) == 1, "there is one root, and the old one isn't below it"
    assert root[0][5].split(",")[0] == "ro"
    assert root[0][root[0].index("-") + 1] == "tmpfs"
    assert "(deleted)" not in "".join(mounts)
    assert caller.inside("mkdir /new 2>/dev/null || echo refused", *profile_of(profile)) == "refused\n"


@pytest.mark.parametrize("profile", OWN_ROOT)
def test_mounts_from_outside_equal_those_from_inside(caller: Caller, profile: str) -> None:
    run = caller.running(*profile_of(profile), script="cut -d' ' -f5,6 /proc/self/mountinfo >/tmp/mounts")
    outside = [line.split()[4:6] for line in Path(f"/proc/{run.command}/mountinfo").read_text().splitlines()]
    inside = [line.split() for line in Path(f"/proc/{run.command}/root/tmp/mounts").read_text().splitlines()]
    assert inside == outside
    assert Path(f"/proc/{run.init}/mountinfo").read_text() == Path(f"/proc/{run.command}/mountinfo").read_text()


def test_none_changes_nothing(caller: Caller) -> None:
    script = "id; pwd; umask; ulimit -a; grep -E '^(Cap|NoNew|Seccomp|Groups|SigIgn)' /proc/self/status; env | sort"
    direct = caller.start(["/bin/sh", "-c", script])
    expected = direct.communicate()[0].decode()
    got = caller.inside(script, "--isolation", "none")
    assert got.replace("HEXE_ISOLATION=none\n", "") == expected


@pytest.mark.parametrize("profile", PROFILES)
def test_the_environment_names_the_profile(caller: Caller, profile: str) -> None:
    assert caller.inside("echo $HEXE_ISOLATION", *profile_of(profile)) == f"{profile}\n"


def test_default_is_balanced_but_for_its_name(caller: Caller) -> None:
    # Other files of this suite try only one of the two.
    plans = [
        caller.hexe("explain", "--syscalls", "--isolation", name, "--", "true") for name in ("default", "balanced")
    ]
    assert plans[0].returncode == 0
    assert plans[0].stdout.replace("default", "balanced") == plans[1].stdout
    script = "cut -d' ' -f5,6 /proc/self/mountinfo; cat /proc/self/uid_map; env | grep -v HEXE_ISOLATION | sort"
    assert caller.inside(script, "--isolation", "default") == caller.inside(script, "--isolation", "balanced")


def test_without_a_name_it_is_sandbox(caller: Caller) -> None:
    assert caller.inside("echo $HEXE_ISOLATION") == "sandbox\n"


@pytest.mark.parametrize("profile", UNPRIVILEGED)
def test_a_keyring_of_its_own(caller: Caller, profile: str) -> None:
    # keyctl itself is refused in sandbox and full, so the kernel is asked where it is masked least.
    code = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        "print(libc.syscall(250, 0, -3, 0), ctypes.get_errno())"  # KEYCTL_GET_KEYRING_ID of the session keyring
    )
    if os.uname().machine != "x86_64":
        code = code.replace("250", "219")
    ours = caller.start(["/usr/bin/python3", "-I", "-c", code]).communicate()[0].decode().split()
    inside = caller.python(code, *profile_of(profile)).split()
    if profile in FILTERED:
        assert inside == ["-1", "1"]
    else:
        assert inside[0] not in ("-1", ours[0])
