"""Failing closed: each obstacle is named with its remedy, the status is 125, and nothing of the command has run.

The obstacles are real ones, put around hexe by ``obstacles``: the host's own settings stay as they are.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hexe.linux.syscalls import NUMBERS
from obstacles import NEW_ANY, obstacle
from support import PATIENCE, Caller

ISOLATING = ("minimal", "default", "balanced", "sandbox", "full")
ROOTED = ("default", "balanced", "sandbox", "full")
FILTERED = ("sandbox", "full")
Done = subprocess.CompletedProcess[str]


class Attempt:
    """One try to run a command that leaves traces, with something in its way."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.trace = caller.scratch / "trace"
        # World-writable: a sandbox of root runs as somebody else.
        caller.mkdir(self.trace).chmod(0o777)

    def run(self, *options: str, profile: str = "full", env: Mapping[str, str] | None = None, **obstacles: Any) -> Done:
        """``hexe run OPTIONS`` of a command that writes to its output and to a directory of the host."""
        where = str(self.trace)
        # With a root of its own the directory is reached by a bind, but not behind an obstacle: root's binds are
        # made before its namespaces, and would be refused first.
        shown = []
        if profile in ROOTED:
            shown = ["--tmpfs", "/trace"] if obstacles else ["--bind", f"{where}:/trace"]
        target = "/trace" if profile in ROOTED else where
        command = ["sh", "-c", f"echo it ran; touch {target}/ran"]
        return self.hexe("run", "--isolation", profile, *shown, *options, "--", *command, env=env, **obstacles)

    def hexe(self, *args: str, env: Mapping[str, str] | None = None, **obstacles: Any) -> Done:
        """Any hexe command behind the obstacles."""
        argv = [self.caller.script, *args]
        process = self.caller.start(obstacle(argv, **obstacles) if obstacles else argv, env=env, cwd="/")
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())

    def refused(self, done: Done, *texts: str) -> None:
        """It was refused as it should be, in these words, and the command left no trace."""
        shown = f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 125, shown
        assert done.stdout == "", shown
        assert list(self.trace.iterdir()) == [], shown
        assert done.stderr.startswith("hexe: "), shown
        assert "\n  fix: " in done.stderr, shown
        assert "internal error" not in done.stderr, shown
        assert "Traceback" not in done.stderr, shown
        for text in texts:
            assert text in done.stderr, f"{text!r} is missing in:\n{shown}"


@pytest.fixture
def attempt(caller: Caller) -> Attempt:
    return Attempt(caller)


def own_namespace(caller: Caller) -> list[int]:
    """The id map of a user namespace around hexe: for root all ids, so that it is root there as on the host."""
    return [0, 0, 2**32 - 1] if caller.is_root else [caller.uid, caller.uid, 1]


def private_mounts(caller: Caller) -> dict[str, Any]:
    """What it takes to mount something around hexe: root can, a user needs a user namespace for it."""
    return {"mounts": True} if caller.is_root else {"mounts": True, "user": own_namespace(caller)}


def coverable() -> str:
    """A file of /proc that this kernel has, such as containers mount over."""
    for name in ("kcore", "keys", "timer_list", "interrupts"):
        if Path("/proc", name).exists():
            return f"/proc/{name}"
    raise AssertionError("this kernel's /proc has none of the files that containers mask")


# -- without an obstacle -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ("none", *ISOLATING))
def test_the_command_leaves_its_traces_when_nothing_is_in_the_way(attempt: Attempt, profile: str) -> None:
    done = attempt.run(profile=profile)
    assert (done.returncode, done.stdout, done.stderr) == (0, "it ran\n", "")
    assert [path.name for path in attempt.trace.iterdir()] == ["ran"]


@pytest.mark.parametrize("profile", ISOLATING)
def test_a_user_namespace_around_hexe_alone_is_no_obstacle(attempt: Attempt, profile: str) -> None:
    done = attempt.run(profile=profile, user=own_namespace(attempt.caller))
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


# -- namespaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ISOLATING)
def test_user_namespaces_are_disabled(attempt: Attempt, profile: str) -> None:
    done = attempt.run(profile=profile, user=own_namespace(attempt.caller), limits={"user": 0})
    attempt.refused(done, f"profile {profile}", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=")


def test_no_user_namespace_is_no_obstacle_for_a_profile_without(attempt: Attempt) -> None:
    done = attempt.run(profile="none", user=own_namespace(attempt.caller), limits={"user": 0})
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


@pytest.mark.parametrize("kind", ("pid", "mnt", "uts", "ipc", "net"))
def test_a_limit_of_namespaces_is_zero(attempt: Attempt, kind: str) -> None:
    done = attempt.run(user=own_namespace(attempt.caller), limits={kind: 0})
    attempt.refused(done, "create the namespaces", "clone3: ENOSPC", f"user.max_{kind}_namespaces is 0", "sysctl -w")


def test_user_namespaces_are_used_up(attempt: Attempt) -> None:
    around: dict[str, Any] = {"user": own_namespace(attempt.caller), "limits": {"user": 1}}
    done = attempt.run(**around)
    assert done.returncode == 0, f"one is enough: {done.stderr}"
    (attempt.trace / "ran").unlink(missing_ok=True)
    done = attempt.run(occupy=1, **around)
    attempt.refused(done, "clone3: ENOSPC", "used up", "user.max_user_namespaces is 1", "lsns")


def test_ids_without_a_map(user_caller: Caller) -> None:
    attempt = Attempt(user_caller)
    process = user_caller.start(["/usr/bin/unshare", "-U", user_caller.script, "run", "--", "touch", "/tmp/ran"])
    out, err = process.communicate(timeout=PATIENCE)
    done = subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode())
    attempt.refused(done, "EPERM", "have no map in the user namespace around Hexe", "unshare --map-current-user")


def test_a_chroot(attempt: Attempt) -> None:
    new = attempt.caller.mkdir("root")
    try:
        done = attempt.run("--cwd", "/", chroot=str(new), **private_mounts(attempt.caller))
    finally:
        for path in new.iterdir():  # empty directories and links: the mounts were in a namespace that is gone
            path.unlink() if path.is_symlink() else path.rmdir()
    attempt.refused(done, "EPERM", "in a chroot", "run it outside")


# -- containers ------------------------------------------------------------------------------------------------------


def containers_filter(clone3: int = errno.ENOSYS) -> list[list[int]]:
    """What Docker's filter does with the calls that matter here, where the container has no CAP_SYS_ADMIN."""
    refused = [[NUMBERS[name], errno.EPERM, 0] for name in ("unshare", "mount", "umount2", "pivot_root", "keyctl")]
    return [*refused, [NUMBERS["clone3"], clone3, 0], [NUMBERS["clone"], errno.EPERM, NEW_ANY]]


@pytest.mark.parametrize("profile", ISOLATING)
def test_a_containers_filter_refuses_namespaces(attempt: Attempt, profile: str) -> None:
    done = attempt.run(profile=profile, refuse=containers_filter())
    attempt.refused(
        done,
        "create the namespaces",
        "clone: EPERM",
        "a seccomp filter around Hexe",
        "a container",
        "seccomp=unconfined",
    )


def test_an_older_containers_filter_refuses_clone3_itself(attempt: Attempt) -> None:
    done = attempt.run(refuse=containers_filter(errno.EPERM))
    attempt.refused(done, "clone3: EPERM", "a seccomp filter around Hexe", "seccomp=unconfined")


def test_a_containers_filter_is_no_obstacle_for_a_profile_without_namespaces(attempt: Attempt) -> None:
    done = attempt.run(profile="none", refuse=containers_filter())
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


@pytest.mark.parametrize("profile", ISOLATING)
def test_a_hidden_clone3_alone_is_no_obstacle(attempt: Attempt, profile: str) -> None:
    """glibc is used to it, and clone(2) makes the same namespaces."""
    done = attempt.run(profile=profile, refuse=[[NUMBERS["clone3"], errno.ENOSYS, 0]])
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


@pytest.mark.parametrize("profile", ROOTED)
def test_proc_is_over_mounted(attempt: Attempt, profile: str) -> None:
    path = coverable()
    done = attempt.run(profile=profile, cover=[path], **private_mounts(attempt.caller))
    attempt.refused(done, "mount /proc", "EPERM", f"over-mounted at {path}", "systempaths=unconfined")


def test_an_over_mounted_proc_is_no_obstacle_without_a_root_of_its_own(attempt: Attempt) -> None:
    done = attempt.run(profile="minimal", cover=[coverable()], **private_mounts(attempt.caller))
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


MOUNTING = "open_tree move_mount fsopen fsconfig fsmount mount_setattr mount umount2 pivot_root openat2"
FILES = "mkdirat mknodat symlinkat chdir fchdir close_range"
SEALING = "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp capset keyctl"
CALLS = (*MOUNTING.split(), *FILES.split(), *SEALING.split(), "sethostname", "setresuid", "setresgid")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
def test_one_call_is_refused(attempt: Attempt, name: str, answer: int) -> None:
    """A filter around Hexe takes away any one of the calls that make the sandbox: the launch fails, it isn't weaker."""
    done = attempt.run(refuse=[[NUMBERS[name], answer, 0]])
    if answer == errno.ENOSYS and name in ("keyctl", "landlock_create_ruleset"):
        # That is what a kernel without keys, or without Landlock, says: nothing to leak, and "where the kernel has it".
        assert done.returncode == 0, done.stderr
        return
    attempt.refused(done, name, errno.errorcode[answer])


def test_hexe_in_hexe(attempt: Attempt) -> None:
    """The inner one can't make its namespaces under the outer one's filter, and says whose filter it is."""
    caller = attempt.caller
    prefix = Path(caller.script).parent.parent
    package = caller.start(
        [str(prefix / "bin/python3"), "-c", "import hexe, os; print(os.path.dirname(hexe.__path__[0]))"]
    )
    shown = package.communicate(timeout=PATIENCE)[0].decode().strip()
    binds = [word for path in {str(prefix), shown} for word in ("--ro-bind", path)]
    done = caller.hexe("run", *binds, "--cwd", "/", "--", caller.script, "run", "--", "sh", "-c", "echo it ran")
    attempt.refused(done, "EPERM", "inside a sandbox of Hexe (profile sandbox)", "start this one outside")


# -- seccomp's library -----------------------------------------------------------------------------------------------


def without(caller: Caller, what: str) -> dict[str, str]:
    """An environment in which there is no pyseccomp, or no libseccomp, and no filter in the cache."""
    runtime = caller.mkdir("runtime", 0o700)
    raises = {"pyseccomp": "ImportError('hidden')", "libseccomp": "RuntimeError('Unable to find libseccomp')"}[what]
    caller.write("stub/pyseccomp.py", f"raise {raises}\n")
    return {"PYTHONPATH": str(caller.scratch / "stub"), "XDG_RUNTIME_DIR": str(runtime)}


@pytest.mark.parametrize("profile", FILTERED)
@pytest.mark.parametrize(
    ("what", "fix"), [("libseccomp", "apt install libseccomp2"), ("pyseccomp", "pip install pyseccomp")]
)
def test_libseccomp_is_missing(attempt: Attempt, what: str, fix: str, profile: str) -> None:
    done = attempt.run(profile=profile, env=without(attempt.caller, what))
    attempt.refused(done, what, "is missing", fix)


def test_libseccomp_is_not_needed_without_a_filter(attempt: Attempt) -> None:
    done = attempt.run(profile="default", env=without(attempt.caller, "libseccomp"))
    assert (done.returncode, done.stdout) == (0, "it ran\n"), done.stderr


def test_a_filter_cache_that_cant_be_written_costs_time_and_nothing_else(attempt: Attempt) -> None:
    full = attempt.caller.mkdir("runtime", 0o700)
    # A full tmpfs that everybody may write to, nothing, and a place for no files: none of them means no filter.
    for env in ({"XDG_RUNTIME_DIR": str(full)}, {"XDG_RUNTIME_DIR": "/nowhere"}, {"XDG_RUNTIME_DIR": "/proc"}):
        done = attempt.hexe(
            "run", "--isolation", "full", "--", "grep", "Seccomp:", "/proc/self/status",
            env=env, full=str(full), **private_mounts(attempt.caller),
        )  # fmt: skip
        assert (done.returncode, done.stdout.split()) == (0, ["Seccomp:", "2"]), done.stderr


# -- what the user wrote ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--bind", "--ro-bind"])
def test_a_source_that_doesnt_exist(attempt: Attempt, option: str) -> None:
    here = attempt.caller.scratch
    done = attempt.run(option, f"{here}/not/there:/data")
    attempt.refused(done, f"{option} {here}/not/there", "ENOENT", f"the nearest existing parent is {here};")


def test_every_problem_is_said_at_once(attempt: Attempt) -> None:
    done = attempt.run("--bind", "/not/there:/a", "--ro-bind", "/nor/here:/b")
    attempt.refused(done, "--bind /not/there", "--ro-bind /nor/here")
    assert done.stderr.count("  fix: ") == 2


def test_a_source_that_may_not_be_looked_at(user_caller: Caller) -> None:
    closed = user_caller.mkdir("closed")
    user_caller.mkdir("closed/below")
    closed.chmod(0)
    attempt = Attempt(user_caller)
    done = attempt.run("--ro-bind", f"{closed}/below:/data")
    closed.chmod(0o755)
    attempt.refused(done, f"--ro-bind {closed}/below", "EACCES", "bind a path that you may look at")


@pytest.mark.parametrize(
    ("cwd", "texts"),
    [
        ("/var", ("ENOENT", "not visible inside", "--bind")),
        ("/etc/passwd", ("ENOTDIR", "is no directory")),
    ],
)
def test_a_directory_to_start_in_that_isnt_there(attempt: Attempt, cwd: str, texts: tuple[str, ...]) -> None:
    done = attempt.run("--cwd", cwd)
    attempt.refused(done, f"start in {cwd}", "chdir", *texts)


@pytest.mark.parametrize(
    ("profile", "texts"),
    [
        ("fulll", ("did you mean 'full'?",)),
        ("FULL", ("did you mean 'full'?",)),
        ("sandbx", ("did you mean 'sandbox'?",)),
        ("nonsense-entirely", ("the profiles are none, minimal,",)),
        ("", ("the profiles are",)),
        ("none ", ("the profiles are",)),
    ],
)
def test_an_unknown_profile(attempt: Attempt, profile: str, texts: tuple[str, ...]) -> None:
    attempt.refused(attempt.run(profile=profile), f"unknown profile {profile!r}", *texts)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--timeout", "soon"], "for example --timeout 30s"),
        (["--timeout", "-1s"], "for example --timeout"),
        (["--timeout", "0"], "for example --timeout"),
        (["--uid", "me"], "for example --uid"),
        (["--uid", "4294967295"], "for example --uid"),
        (["--gid", "-3"], "for example --gid"),
        (["--home", "rwx"], "is none of rw, ro, private"),
        (["--hostname", "no spaces"], "for example --hostname"),
        (["--env", "NOVALUE"], "for example --env"),
        (["--pass-env", "A=B"], "for example --pass-env"),
        (["--bind", "/a:/b:/c"], "for example --bind"),
        (["--bind", "/usr:/"], "mount below it"),
        (["--bind", "/usr:/proc"], "outside /proc and /dev"),
        (["--bind", "/usr:relative"], "an absolute path inside"),
        (["--ro-bind", ""], "for example --ro-bind"),
        (["--tmpfs", "here"], "an absolute path inside"),
        (["--cwd", ""], "for example --cwd"),
        (["--isolation-level", "full"], "did you mean '--isolation'?"),
        (["--verbose=yes"], "takes no value"),
        (["-x"], "unknown option -x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_malformed_value(attempt: Attempt, options: Sequence[str], text: str) -> None:
    done = attempt.run(*options)
    attempt.refused(done, text)


@pytest.mark.parametrize("profile", ["none", "minimal"])
@pytest.mark.parametrize(
    "options", [["--ro-bind", "/usr"], ["--tmpfs", "/x"], ["--home", "private"], ["--hostname", "x"]], ids=" ".join
)
def test_an_option_that_a_profile_would_ignore(attempt: Attempt, profile: str, options: Sequence[str]) -> None:
    attempt.refused(attempt.run(*options, profile=profile), options[0], f"profile {profile}", "choose --isolation")


def test_a_report_that_cant_be_written(attempt: Attempt) -> None:
    attempt.refused(attempt.run("--report", "/not/there.json"), "--report /not/there.json", "ENOENT")
    full = attempt.caller.mkdir("full")
    done = attempt.run("--report", f"{full}/report.json", full=str(full), **private_mounts(attempt.caller))
    attempt.refused(done, f"--report {full}/report.json", "ENOSPC")


def test_a_standard_stream_is_a_directory(attempt: Attempt) -> None:
    """Code inside could walk from it over the host. Python itself refuses such a start, before a line of Hexe runs."""
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    command = ("run", "--bind", f"{attempt.trace}:/trace", "--", "touch", "/trace/ran")
    try:
        for done in (
            attempt.caller.hexe(*command, stdin=directory),
            attempt.caller.hexe(*command, stdout=directory),
            attempt.caller.hexe(*command, stderr=directory),
        ):
            assert done.returncode not in (0, 126, 127)
            assert list(attempt.trace.iterdir()) == []
    finally:
        os.close(directory)


# -- limits ----------------------------------------------------------------------------------------------------------


def limited(caller: Caller, name: str, value: int) -> Done:
    argv = ["/bin/bash", "-c", f'ulimit -{name} {value} && exec "$@"', "bash", caller.script]
    process = caller.start([*argv, "run", "--isolation", "full", "--", "sh", "-c", "echo it ran"])
    out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(argv, process.returncode, out.decode(), err.decode())


@pytest.mark.parametrize("files", [9, 12, 16])
def test_too_few_open_files(attempt: Attempt, files: int) -> None:
    attempt.refused(limited(attempt.caller, "n", files), "EMFILE", "ulimit -n")


def test_no_more_processes(user_caller: Caller) -> None:
    """Root is exempt from this limit."""
    attempt = Attempt(user_caller)
    attempt.refused(limited(user_caller, "u", 1), "EAGAIN", "ulimit -u")


def test_no_room_for_a_mount_point(attempt: Attempt) -> None:
    full = attempt.caller.mkdir("full")
    options = ("--bind", f"{full}:/data", "--tmpfs", "/data/below")
    done = attempt.run(*options, full=str(full), **private_mounts(attempt.caller))
    attempt.refused(done, "/data/below", "ENOSPC", "is full", "df -i")


# -- doctor sees the same --------------------------------------------------------------------------------------------


def test_doctor_finds_that_every_profile_can_be_enforced(attempt: Attempt) -> None:
    done = attempt.hexe("doctor", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["ok"]) == (0, "", True), found
    # No bare yes: what the kernel said of each launched command.
    for name in ISOLATING:
        protections = found["profiles"][name]["protections"]
        assert protections["attested"] is True
        assert protections["no_new_privs"]["NoNewPrivs"] == "1"
        assert protections["seccomp"]["Seccomp"] == ("2" if name in FILTERED else "0")
    table = attempt.hexe("doctor")
    assert table.returncode == 0
    assert table.stdout.count("enforced") >= len(ISOLATING) + 1
    apparmor = attempt.hexe("doctor", "--apparmor")
    assert f'profile hexe "{Path(attempt.caller.script).resolve()}" flags=(unconfined)' in apparmor.stdout


def test_doctor_names_what_is_missing(attempt: Attempt) -> None:
    def doctor(**obstacles: Any) -> dict[str, Any]:
        done = attempt.hexe("doctor", "--json", **obstacles)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["ok"] else 1), done.stderr
        return found

    def broken(found: dict[str, Any]) -> set[str]:
        return {name for name, profile in found["profiles"].items() if not profile["ok"]}

    found = doctor(user=own_namespace(attempt.caller), limits={"user": 0})
    assert broken(found) == set(ISOLATING)
    assert "namespace.user" in found["missing"]
    assert "sysctl -w user.max_user_namespaces" in found["profiles"]["full"]["problems"][0]["fix"]
    found = doctor(user=own_namespace(attempt.caller), limits={"net": 0})
    assert broken(found) == {"full"}
    assert "namespace.net" in found["missing"]
    found = doctor(refuse=containers_filter())
    assert broken(found) == set(ISOLATING)
    assert found["surroundings"]["seccomp_mode"] == 2
    found = doctor(cover=[coverable()], **private_mounts(attempt.caller))
    assert broken(found) == set(ROOTED)
    assert found["missing"] == ["proc"]
