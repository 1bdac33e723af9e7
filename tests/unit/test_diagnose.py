"""From an errno to a cause and a remedy, on made-up hosts: each obstacle of the documentation by its own words."""

from __future__ import annotations

import errno

import pytest
from factories import plan_of, root_facts, user_facts

from hexe.errors import LaunchError
from hexe.policy.host import HostFacts
from hexe.sandbox.attest import NAMESPACE_KINDS
from hexe.sandbox.command_errors import explain_exec
from hexe.sandbox.diagnose import (
    DOCTOR,
    clone_hint,
    explain_clone,
    explain_idmap,
    explain_init,
    explain_lost_init,
    explain_step,
)
from hexe.sandbox.mount_operations import CloneTree
from hexe.sandbox.program import STAGES, lower
from hexe.sandbox.surroundings import (
    Surroundings,
    covers_id,
    is_cover,
    look_around,
    mount_points,
    status_value,
)

HOST = Surroundings(limits=dict.fromkeys(NAMESPACE_KINDS, 15000))
DOCKER = HOST.replace(seccomp_mode=2, container="docker: /.dockerenv exists")
ALL = ("user", "pid", "mnt", "uts", "ipc", "net")


def refused(
    operation: str, syscall: str, number: int, *words: str, facts: HostFacts | None = None, around: Surroundings = HOST
) -> LaunchError:
    """The error when the first call of that name in the first operation of that kind is refused."""
    facts = facts or user_facts()
    plan = plan_of(facts, *words)
    program = lower(plan)
    for stage in STAGES:
        for index, step in enumerate(program.stages[stage]):
            if step.name == syscall and type(plan.stage(stage)[step.operation]).__name__ == operation:
                return explain_step(plan, program, stage, index, number, facts, around)
    raise AssertionError(f"no {syscall} in any {operation}")


# -- clone -----------------------------------------------------------------------------------------------------------


def test_a_limit_of_zero_is_named() -> None:
    around = HOST.replace(limits={**HOST.limits, "net": 0, "ipc": 0})
    hint = clone_hint(ALL, errno.ENOSPC, user_facts(), around)
    assert "user.max_ipc_namespaces is 0, user.max_net_namespaces is 0" in hint
    assert "sysctl -w user.max_ipc_namespaces=15000 user.max_net_namespaces=15000" in hint
    assert "max_pid" not in hint


def test_limits_that_are_used_up() -> None:
    around = HOST.replace(limits={**HOST.limits, "user": 20000, "pid": 30000})
    hint = clone_hint(("user", "pid"), errno.ENOSPC, user_facts(), around)
    assert "used up (user.max_user_namespaces is 20000)" in hint
    assert "user.max_user_namespaces=40000" in hint
    assert "deeper than 32" in hint


@pytest.mark.parametrize(
    ("facts", "around", "texts"),
    [
        (user_facts(userns_clone=0), HOST, ("kernel.unprivileged_userns_clone=1",)),
        (user_facts(apparmor_restricts=True), DOCKER, ("hexe doctor --apparmor",)),
        (user_facts(), HOST.replace(chrooted=True), ("in a chroot",)),
        (user_facts(), HOST.replace(unmapped_ids=True), ("1000:1000 have no map",)),
        (user_facts(), DOCKER, ("a seccomp filter around Hexe", "docker: /.dockerenv", "seccomp=unconfined")),
        (user_facts(), HOST.replace(seccomp_mode=2), ("a systemd unit: RestrictNamespaces=no",)),
        (user_facts(), DOCKER.replace(inside_hexe="full"), ("a sandbox of Hexe (profile full)", "outside")),
        (user_facts(), DOCKER.replace(inside_hexe="none"), ("a seccomp filter around Hexe",)),
        (user_facts(), DOCKER.replace(seccomp_mode=0), ("a container (docker", "seccomp=unconfined")),
        (user_facts(), HOST, ("a security module, or a chroot,", "dmesg", DOCTOR)),
    ],
)
def test_a_refusal_of_namespaces(facts: HostFacts, around: Surroundings, texts: tuple[str, ...]) -> None:
    for number in (errno.EPERM, errno.EACCES):
        hint = clone_hint(ALL, number, facts, around)
        assert [text for text in texts if text not in hint] == [], hint


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EINVAL, "lacks one of the namespaces user, pid"),
        (errno.ENOSYS, "lacks one of the namespaces"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "no memory left"),
        (errno.EUSERS, "no free namespaces"),
        (errno.EIO, DOCTOR),
    ],
)
def test_other_errnos_of_clone(number: int, text: str) -> None:
    assert text in clone_hint(ALL, number, user_facts(), HOST)


def test_the_call_that_was_refused_is_named() -> None:
    plan = plan_of(user_facts(), "--isolation", "full")
    for name in ("clone", "clone3"):
        error = explain_clone(plan, OSError(errno.EPERM, f"{name}: Operation not permitted"), user_facts(), DOCKER)
        assert (error.syscall, error.errno_name, error.exit_code) == (name, "EPERM", 125)
        assert str(error).startswith(f"create the namespaces user, pid, mnt, uts, ipc, net, cgroup: {name}: EPERM\n")


# -- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("around", "texts"),
    [
        (HOST.replace(proc_covered=("/proc/kcore", "/proc/keys")), ("over-mounted at /proc/kcore, /proc/keys",)),
        (HOST.replace(proc_covered=tuple(f"/proc/{name}" for name in "abcdef")), ("/proc/d and others",)),
        (HOST.replace(proc_mounted=False), ("mount -t proc proc /proc",)),
        (HOST, ("where none is fully visible",)),
    ],
)
def test_a_new_proc_is_refused(around: Surroundings, texts: tuple[str, ...]) -> None:
    error = refused("MountProc", "fsmount", errno.EPERM, around=around)
    assert (error.syscall, error.path, error.errno_name) == ("fsmount", "/proc", "EPERM")
    for text in (*texts, "systempaths=unconfined"):
        assert text in error.hint


@pytest.mark.parametrize(
    ("operation", "syscall", "number", "words", "text"),
    [
        ("ChangeDirectory", "chdir", errno.ENOENT, ("--cwd", "/var"), "/var is not visible inside"),
        ("ChangeDirectory", "chdir", errno.ENOTDIR, ("--cwd", "/etc/passwd"), "is no directory"),
        ("ChangeDirectory", "chdir", errno.EACCES, ("--cwd", "/etc/closed"), "that the caller may enter"),
        ("BindMount", "open_tree", errno.ENOENT, (), "vanished"),
        ("BindMount", "open_tree", errno.EACCES, (), "may not reach"),
        ("BindMount", "open_tree", errno.EINVAL, (), "unbindable"),
        ("BindMount", "mkdirat", errno.EROFS, (), "read-only inside"),
        ("BindMount", "openat2", errno.ELOOP, (), "symbolic link"),
        ("BindMount", "openat2", errno.ENOTDIR, (), "passes through a file"),
        ("BindMount", "mkdirat", errno.EACCES, (), "make it first"),
        ("BindMount", "move_mount", errno.EINVAL, (), DOCTOR),
        ("BindMount", "mkdirat", errno.EMFILE, (), "ulimit -n"),
        ("BindMount", "mkdirat", errno.ENFILE, (), "fs.file-max"),
        ("MountTmpfs", "mkdirat", errno.ENOSPC, ("--tmpfs", "/a/b"), "is full"),
        ("MountDev", "open_tree", errno.ENOENT, (), "lacks one of the devices"),
        ("PivotRoot", "pivot_root", errno.EINVAL, (), "initramfs"),
        ("OpenTerminal", "openat", errno.ENOSPC, ("--tty",), "kernel.pty.max"),
        ("InstallSeccomp", "seccomp", errno.EINVAL, (), "CONFIG_SECCOMP_FILTER=y"),
        ("RestrictFiles", "landlock_restrict_self", errno.E2BIG, (), "16 Landlock domains"),
        ("CreateRoot", "fsopen", errno.ENODEV, (), "lacks a filesystem"),
        ("CreateRoot", "move_mount", errno.ENOSPC, (), "fs.mount-max"),
        ("SetHostname", "sethostname", errno.EPERM, (), "security module"),
        ("JoinSessionKeyring", "keyctl", errno.EDQUOT, (), DOCTOR),
        ("CreateRoot", "fsopen", errno.ENOSYS, (), "this kernel has no fsopen"),
        ("WriteIdMaps", "write", errno.EPERM, (), "security module"),
    ],
)
def test_a_refused_step(operation: str, syscall: str, number: int, words: tuple[str, ...], text: str) -> None:
    error = refused(operation, syscall, number, *words)
    assert text in error.hint
    assert error.syscall == syscall
    assert errno.errorcode[number] in str(error)


def test_a_call_that_a_filter_hides() -> None:
    error = refused("CreateRoot", "fsopen", errno.ENOSYS, around=DOCKER)
    assert "a seccomp filter around Hexe hides fsopen" in error.hint


@pytest.mark.parametrize("operation", ["WriteIdMaps", "CreateRoot", "SetHostname", "LoopbackUp", "MountProc"])
def test_apparmor_is_named_wherever_it_strikes(operation: str) -> None:
    syscall = {"WriteIdMaps": "write", "CreateRoot": "fsopen", "SetHostname": "sethostname", "LoopbackUp": "ioctl"}
    # Such facts compile to no plan: a race, or a profile that allows less than it seems. The plan is a good host's.
    facts = user_facts(apparmor_restricts=True)
    plan = plan_of(user_facts(), "--isolation", "full")
    program = lower(plan)
    for stage in STAGES:
        for index, step in enumerate(program.stages[stage]):
            if type(plan.stage(stage)[step.operation]).__name__ == operation and step.name == syscall.get(
                operation, "fsmount"
            ):
                error = explain_step(plan, program, stage, index, errno.EPERM, facts, HOST)
                assert "hexe doctor --apparmor" in error.hint


def test_roots_own_problems() -> None:
    facts = root_facts()
    facts = facts.replace(entries={**facts.entries, **user_facts().entries})
    words = ("--bind", "/home/ada:/data")
    error = refused("CloneTree", "mount_setattr", errno.EINVAL, *words, facts=facts)
    assert "no idmapped mounts" in error.hint
    assert "--ro-bind" in error.hint
    error = refused("CloneTree", "mount_setattr", errno.EPERM, *words, facts=facts)
    assert "only the machine's own root" in error.hint
    error = refused("WriteIdMaps", "write", errno.EPERM, facts=facts)
    assert "CAP_SETUID" in error.hint
    assert "100000" in error.hint
    tree = next(operation for operation in plan_of(facts, *words).host if isinstance(operation, CloneTree))
    error = explain_idmap(tree, OSError(errno.ENOSPC, "clone3: No space left on device"), facts)
    assert (error.syscall, error.path) == ("clone3", "/home/ada")
    assert "no free namespaces" in error.hint


def test_every_step_of_every_profile_gets_a_remedy_for_every_usual_errno() -> None:
    numbers = [errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOENT, errno.ENOSPC, errno.EBUSY]
    for facts in (user_facts(), root_facts()):
        plan = plan_of(facts, "--isolation", "full", "--tmpfs", "/x", "--tty")
        program = lower(plan)
        for stage in STAGES:
            for index, step in enumerate(program.stages[stage]):
                for number in numbers:
                    error = explain_step(plan, program, stage, index, number, facts, DOCKER)
                    assert error.hint
                    assert step.name in error.message


# -- the ends --------------------------------------------------------------------------------------------------------


def test_a_lost_init() -> None:
    assert "was killed by signal 9 before the command was started" in explain_lost_init(9).message
    assert "ended with status 125 before" in explain_lost_init(125 << 8).message
    assert "OOM" in explain_lost_init(9).hint


@pytest.mark.parametrize(
    ("text", "label", "hint"),
    [
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "(EAGAIN)", "ulimit -u"),
        ("OSError: [Errno 24] Too many open files", "(EMFILE)", "ulimit -n"),
        ("PermissionError: [Errno 1] close_range: Operation not permitted", "(EPERM)", "refuses that call"),
        ("ValueError: odd", "odd", "report this as a bug"),
        ("OSError: [Errno x] odd", "odd", "report this as a bug"),
    ],
)
def test_what_init_could_still_say(text: str, label: str, hint: str) -> None:
    error = explain_init(text)
    assert error.message.startswith(f"the sandbox's init failed: {text}")
    assert label in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (errno.ENOENT, 127, "not found"),
        (errno.ENOTDIR, 127, "not found"),
        (errno.EACCES, 126, "chmod +x"),
        (errno.ENOEXEC, 126, "#!"),
        (errno.E2BIG, 126, "too long"),
        (errno.EIO, 126, "refused to execute"),
        (errno.EAGAIN, 125, "ulimit -u"),
        (errno.ENOMEM, 125, "free memory"),
    ],
)
def test_a_command_that_cant_be_executed(number: int, code: int, text: str) -> None:
    for words in (("--isolation", "none"), ("--isolation", "full")):
        for name in ("tool", "/opt/tool"):
            error = explain_exec(plan_of(user_facts(), *words, argv=(name,)), number)
            assert error.exit_code == code
            assert text in str(error)
            assert error.message.startswith(f"{name}: ")
            assert errno.errorcode[number] in error.message
            assert error.hint


# -- what lies around ------------------------------------------------------------------------------------------------

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 23 0:5 / /proc/kcore rw - devtmpfs devtmpfs rw
25 23 0:22 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
26 22 0:23 / /mnt/a\\040b rw - tmpfs tmpfs rw
"""


def test_mount_points() -> None:
    points = mount_points(MOUNTINFO)
    assert points == ("/", "/proc", "/proc/kcore", "/proc/sys/fs/binfmt_misc", "/mnt/a b")
    assert [point for point in points if is_cover(point)] == ["/proc/kcore"]
    assert mount_points("") == ()


def test_status_values() -> None:
    status = "Name:\tsh\nSeccomp:\t2\nSeccomp_filters:\t3\nNoNewPrivs:\t1\n"
    assert (status_value(status, "Seccomp"), status_value(status, "Seccomp_filters")) == ("2", "3")
    assert status_value(status, "Nothing") == ""


def test_id_maps() -> None:
    assert covers_id("         0          0 4294967295\n", 65534)
    assert covers_id("0 1000 1\n65534 65534 1\n", 65534)
    assert not covers_id("1000 1000 1\n", 65534)
    assert not covers_id("", 65534)


def test_looking_around_here_gives_all_of_it() -> None:
    around = look_around()
    assert around.seccomp_mode in (0, 1, 2)
    assert not around.chrooted or around.container, "tests run in a chroot?"
    assert set(around.limits) <= set(NAMESPACE_KINDS)
