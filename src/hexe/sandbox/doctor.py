"""What this host can enforce: facts gathered, checks made of them, and each profile really launched once.

The launches are what counts: a check may miss a reason for a refusal that nobody
has met yet, ``hexe run`` itself can't. They go through the same script that people
type, since AppArmor's permission hangs on its path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from errno import errorcode

from hexe.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, HexeError
from hexe.linux import constants as c
from hexe.linux.files import read_bytes
from hexe.linux.syscalls import address_of, syscall
from hexe.policy.host import NOBODY
from hexe.policy.profiles import PROFILES
from hexe.records import Record
from hexe.sandbox.filters import cache_directory, is_cached, load_filter
from hexe.sandbox.host_checks import MISSING, Check, Extras, run_checks
from hexe.sandbox.probe import find_caller, probe
from hexe.sandbox.surroundings import Surroundings, look_around

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hexe.policy.host import HostFacts

PATIENCE = 20


class Launch(Record):
    """How ``hexe run --isolation PROFILE -- true`` went. ``problems`` are (problem, fix) of a refusal."""

    profile: str
    status: int
    problems: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    protections: dict[str, Any]

    def __hash__(self) -> int:
        return id(self)

    @property
    def enforced(self) -> bool:
        """Whether every promise of the profile was kept. A missing ``true`` is known only after they all were."""
        return self.status in (0, EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE)


class Diagnosis(Record):
    """All that doctor knows."""

    facts: HostFacts
    around: Surroundings
    checks: tuple[Check, ...]
    launches: tuple[Launch, ...]

    @property
    def healthy(self) -> bool:
        """Whether every profile can be enforced here."""
        return all(launch.enforced for launch in self.launches)


def examine() -> Diagnosis:
    """Probe this host, and launch each profile."""
    # Everything that any profile asks for, so that every fact is read.
    everything = PROFILES["full"].replace(read_only=PROFILES["sandbox"].read_only)
    facts, around = probe(everything, find_caller()), look_around()
    extras = gather(facts)
    launches = tuple(launch(profile) for profile in PROFILES)
    return Diagnosis(facts, around, run_checks(facts, around, extras), launches)


# -- launches -----------------------------------------------------------------------------------------------------


def hexe_script() -> str:
    """The real path of the script that is running; empty when Hexe was started in another way."""
    path = os.path.realpath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    return path if os.path.basename(path).startswith("hexe") and os.access(path, os.X_OK) else ""


def hexe_command() -> list[str]:
    """What runs ``hexe`` again as it runs now."""
    script = hexe_script()
    return [script] if script else [sys.executable, "-c", "from hexe.cli.main import main; main()"]


def launch(profile: str) -> Launch:
    """Run ``true`` in a profile, and read the report of it."""
    command = [*hexe_command(), "run", "--isolation", profile, "--no-tty", "--report", "-", "--", "true"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"no end within {PATIENCE} seconds"
        return Launch(profile, -1, ((problem, "please report this as a bug, with hexe doctor --json"),), (), {})
    except OSError as error:
        problem = f"{command[0]} can't be started: {errorcode.get(error.errno or 0, error.errno)}"
        return Launch(profile, -1, ((problem, "check the installation of Hexe"),), (), {})
    return read_launch(profile, done.returncode, done.stderr.decode("utf-8", "replace"))


def read_launch(profile: str, status: int, text: str) -> Launch:
    """The launch that ended with a status and wrote this to standard error: a report, and messages. Pure."""
    report: dict[str, Any] = {}
    if text.startswith("{"):
        report, end = json.JSONDecoder().raw_decode(text)
        text = text[end:]
    problems = messages(text)
    if status and not problems:
        problems = ((f"ended with status {status} and no word", "please report this as a bug"),)
    notes = list(report.get("notes", ()))
    if status in (EXIT_NOT_FOUND, EXIT_NOT_EXECUTABLE):
        notes.append("everything is enforced, but there is no program named true to see inside")
        problems = ()
    return Launch(profile, status, problems, tuple(notes), report.get("protections", {}))


def messages(text: str) -> tuple[tuple[str, str], ...]:
    """(problem, fix) of each message that Hexe wrote. Pure."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("  fix: ") and found:
            found[-1] = (found[-1][0], line.removeprefix("  fix: "))
        elif line.strip():
            found.append((line.removeprefix("hexe: "), ""))
    return tuple(found)


# -- what only doctor asks ------------------------------------------------------------------------------------------


def gather(facts: HostFacts) -> Extras:
    """The facts that no plan needs."""
    library, error, fix = try_libseccomp()
    cache, cache_error = try_cache()
    return Extras(
        library=library,
        library_error=error,
        library_fix=fix,
        cached=all(is_cached(variant) for variant in ("sandbox", "full")),
        cache=cache,
        cache_error=cache_error,
        idmaps=try_idmaps(facts) if facts.host_root and facts.capable else (),
        pty_error=try_pty(),
        cgroups=describe_cgroups(),
        stand_in_source="(nobody: /etc/subuid has no range for root)"
        if facts.root_stand_in == NOBODY
        else "(from /etc/subuid)",
        script=hexe_script() or "started without its script",
        interpreter=sys.executable,
    )


def try_libseccomp() -> tuple[str, str, str]:
    """libseccomp's version, or what is missing and the fix."""
    from hexe.linux.seccomp import library_version

    try:
        return library_version(), "", ""
    except HexeError as error:
        return "", error.message, error.hint


def try_cache() -> tuple[str, str]:
    """The directory of the filter cache, and why it can't be used if it can't."""
    directory = cache_directory()
    if not directory:
        return "", "no directory that only the caller can write"
    try:
        for variant in ("sandbox", "full"):
            load_filter(variant)  # fills the cache
    except HexeError:
        pass  # said by the check of libseccomp
    place = directory if os.path.isdir(directory) else os.path.dirname(directory)
    return directory, "" if os.access(place, os.W_OK | os.X_OK) else "not writable"


def try_pty() -> str:
    """Open a terminal and close it; why it didn't work, or empty."""
    try:
        for fd in os.openpty():
            os.close(fd)
    except OSError as error:
        return f"openpty: {errorcode.get(error.errno or 0, error.errno)}"
    return ""


def try_idmaps(facts: HostFacts) -> tuple[tuple[str, str], ...]:
    """An idmapped mount, never attached anywhere, of the working directory, and of /tmp where that differs."""
    from hexe.linux.namespaces import user_namespace_for_idmap

    found = []
    for path in dict.fromkeys((facts.cwd, "/tmp")):
        try:
            namespace = user_namespace_for_idmap(0, facts.root_stand_in, 0, facts.root_stand_in)
            try:
                idmap(path, namespace)
            finally:
                os.close(namespace)
        except OSError as error:
            found.append((path, errorcode.get(error.errno or 0, str(error.errno))))
        else:
            found.append((path, ""))
    return tuple(found)


def idmap(path: str, namespace: int) -> None:
    """Clone the mount of ``path`` with the ids of a user namespace, and drop it again. Raises OSError."""
    name, empty = bytearray(os.fsencode(path) + b"\0"), bytearray(1)
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attr = bytearray(c.MOUNT_ATTR_IDMAP.to_bytes(8, "little") + bytes(16) + namespace.to_bytes(8, "little"))
    tree = syscall("open_tree", c.AT_FDCWD, address_of(name), c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC, path=path)
    try:
        syscall("mount_setattr", tree, address_of(empty), c.AT_EMPTY_PATH, address_of(attr), 32, path=path)
    finally:
        os.close(tree)


def describe_cgroups() -> str:
    """The control groups of this host, in words: v2, v1 or both, and the controllers of v2."""
    kinds, at = [], ""
    for line in read_bytes("/proc/self/mountinfo").decode("utf-8", "replace").splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split(" ", 1)[0]
        if kind in ("cgroup", "cgroup2"):
            kinds.append(kind)
            at = before.split(" ")[4] if kind == "cgroup2" else at
    if not kinds:
        return "not mounted"
    parts = []
    if at:
        try:
            controllers = read_bytes(f"{at}/cgroup.controllers").decode().strip() or "no controllers"
        except OSError as error:
            controllers = errorcode.get(error.errno or 0, str(error.errno))
        parts.append(f"v2 at {at} ({controllers})")
    if "cgroup" in kinds:
        parts.append(f"v1 ({kinds.count('cgroup')} hierarchies)")
    return " and ".join(parts)


# -- as data ----------------------------------------------------------------------------------------------------------


def as_data(diagnosis: Diagnosis) -> dict[str, Any]:
    """What ``hexe doctor --json`` prints. The caller's environment is left out: people paste this into bug reports."""
    from hexe import __version__

    return {
        "hexe": __version__,
        "ok": diagnosis.healthy,
        "profiles": {
            launch.profile: {
                "ok": launch.enforced,
                "status": launch.status,
                "problems": [{"problem": problem, "fix": fix} for problem, fix in launch.problems],
                "notes": list(launch.notes),
                "protections": launch.protections,
            }
            for launch in diagnosis.launches
        },
        "checks": [check.as_dict() for check in diagnosis.checks],
        "missing": [check.key for check in diagnosis.checks if check.status == MISSING],
        "facts": {
            name: plain(value) for name, value in diagnosis.facts.as_dict().items() if name not in ("environment",)
        },
        "surroundings": {name: plain(value) for name, value in diagnosis.around.as_dict().items()},
    }


def plain(value: Any) -> Any:
    """A value of a Record as JSON has it. Pure."""
    if isinstance(value, Record):
        return {name: plain(inner) for name, inner in value.as_dict().items()}
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, (tuple, list)):
        return [plain(inner) for inner in value]
    return value
