"""Changing Hexe itself for the next launch: its package and interpreter in a bound home, and its filter cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shooting_range import HERE, PYTHON, Range

import hexe

pytest_plugins = ("range_fixture",)
PROFILES = ("default", "sandbox", "full")
# Each prints how it ended: an errno's name, or "done".
ATTEMPT = """
import errno, os, sys
top = sys.argv[1]
package = top + "/" + sys.argv[2]
def appended(path):
    with open(path, "a") as file:
        file.write("")
def renamed(path):
    os.rename(path, path + ".moved")
    os.rename(path + ".moved", path)
def added(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
attempts = {
    "append to the package": lambda: appended(package + "/cli/main.py"),
    "add a module": lambda: added(package + "/shadow.py"),
    "rename the package": lambda: renamed(package),
    "rename site-packages": lambda: renamed(os.path.dirname(package)),
    "rename the environment": lambda: renamed(top),
    "rename the directory above it": lambda: renamed(os.path.dirname(top)),
    "replace the interpreter": lambda: (os.rename(top + "/bin/python3", top + "/bin/p"),
                                        os.rename(top + "/bin/p", top + "/bin/python3")),
    "append to the script": lambda: appended(top + "/bin/hexe"),
    "plant a start-up file": lambda: added(os.path.dirname(package) + "/evil.pth"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        verdict = "done"
    except OSError as error:
        verdict = errno.errorcode[error.errno]
    print(f"{name}: {verdict}")
"""
REFUSED = {
    "append to the package": "EROFS",
    "add a module": "EROFS",
    "rename the package": "EROFS",
    "rename site-packages": "EROFS",
    "rename the environment": "EBUSY",
    "rename the directory above it": "EBUSY",
    "replace the interpreter": "EROFS",
    "append to the script": "EROFS",
    "plant a start-up file": "EROFS",
}


class Installation:
    """A virtual environment with Hexe in it, under a directory of the user's home that the sandbox sees writable."""

    def __init__(self, shooting: Range) -> None:
        self.shooting = shooting
        caller = shooting.caller
        self.directory = Path(caller.home, f"hexe-install-{os.getpid()}")
        self.top = self.directory / "venv"
        make = [PYTHON, "-m", "venv", "--without-pip", "--copies", str(self.top)]
        process = caller.start(["/bin/sh", "-c", 'mkdir "$0" && exec "$@"', str(self.directory), *make])
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        packages = next(self.top.glob("lib/python3*/site-packages"))
        self.package = packages / "hexe"
        shutil.copytree(Path(hexe.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        import pyseccomp

        shutil.copy(str(pyseccomp.__file__), packages)
        script = self.top / "bin/hexe"
        script.write_text(f"#!{self.top}/bin/python3\nfrom hexe.cli.main import main\n\nmain()\n")
        script.chmod(0o755)
        shutil.copy(HERE / "variant.py", self.top)
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{caller.uid}:{caller.gid}", str(self.directory)], check=True)

    def run(self, setting: str, options: list[str], command: list[str]) -> tuple[int, str, str]:
        """Run a command by this installation."""
        profile, _, parts = setting.partition(" without ")
        python = str(self.top / "bin/python3")
        begin = [python, str(self.top / "variant.py"), parts] if parts else [str(self.top / "bin/hexe"), "run"]
        process = self.shooting.caller.start([*begin, "--isolation", profile, *options, "--", *command])
        out, err = process.communicate(timeout=30)
        return process.returncode, out.decode(), err.decode()

    def verdicts(self, setting: str, options: list[str] | None = None) -> dict[str, str]:
        """What the attempts on this installation come to, made from inside one of its own sandboxes."""
        relative = str(self.package.relative_to(self.top))
        command = [PYTHON, "-I", "-S", "-c", ATTEMPT, str(self.top), relative]
        status, out, err = self.run(setting, options or [], command)
        assert status == 0, err
        return dict(line.split(": ") for line in out.splitlines())


@pytest.fixture(scope="module")
def installation(range_of: Callable[[str], Range]) -> Iterator[Installation]:
    """Hexe in the ordinary user's home. Root's home isn't shown at all."""
    made = Installation(range_of("user"))
    yield made
    shutil.rmtree(made.directory)


@pytest.mark.parametrize("profile", PROFILES)
def test_hexe_in_the_home_cannot_be_changed(installation: Installation, profile: str) -> None:
    """Neither the package, nor the interpreter, nor the directories above them, by writing or by renaming."""
    assert installation.verdicts(profile) == REFUSED


RENAMES = ("rename the environment", "rename the directory above it")


@pytest.mark.parametrize("profile", PROFILES)
def test_hexe_behind_another_mount_cannot_be_renamed_away(installation: Installation, profile: str) -> None:
    """A tmpfs over the installation hides it; the directories above are the host's, and must stay where they are."""
    verdicts = installation.verdicts(profile, ["--tmpfs", str(installation.top)])
    assert {name: verdicts[name] for name in RENAMES} == dict.fromkeys(RENAMES, "EBUSY")


def test_hexe_behind_another_mount_could_be_renamed_away(installation: Installation) -> None:
    """Control: without what pins it the directory above goes, and another Hexe can be put in its place."""
    verdicts = installation.verdicts("default without protecting", ["--tmpfs", str(installation.top)])
    assert verdicts["rename the directory above it"] == "done"


@pytest.mark.parametrize("setting", ["default without protecting", "full without protecting"])
def test_hexe_in_the_home_could_be_changed(installation: Installation, setting: str) -> None:
    """Control: without the read-only binds every attempt works."""
    assert set(installation.verdicts(setting).values()) == {"done"}


SHEBANG = """#!/proc/self/exe -IS
import errno, os
exe = "/proc/self/exe"
print(os.readlink(exe))
for name, attempt in (("write", lambda: os.open(exe, os.O_WRONLY)),
                      ("chmod", lambda: os.chmod(exe, os.stat(exe).st_mode))):
    try:
        attempt()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])
"""
UNREADABLE = 0o111


def scripts(installation: Installation) -> list[str]:
    """Commands that lead to the interpreter that Hexe runs: by their first line, by another script, by a link."""
    caller, base = installation.shooting.caller, installation.directory
    first = caller.write(base / "first", SHEBANG, 0o755)
    second = caller.write(base / "second", f"#!{first}\n", 0o755)
    link = base / "link"
    if not link.is_symlink():
        link.symlink_to("/proc/self/exe")
    third = caller.write(base / "third", SHEBANG.replace("/proc/self/exe -IS", f"{link} -IS", 1), 0o755)
    (base / "hidden").unlink(missing_ok=True)  # an ordinary user can't write to the one of the last test
    hidden = caller.write(base / "hidden", SHEBANG, 0o755)
    hidden.chmod(UNREADABLE)
    # As deep as Linux follows: the file itself, four more scripts, and then the fifth interpreter.
    deepest = first
    for number in range(4):
        deepest = caller.write(base / f"deep{number}", f"#!{deepest}\n", 0o755)
    # For the kernel a vertical tab is a part of the name; what stands before it is a harmless program.
    odd, harmless = base / "odd\x0blink", base / "odd"
    if not odd.is_symlink():
        odd.symlink_to("/proc/self/exe")
        shutil.copy("/bin/true", harmless)
    tabbed = caller.write(base / "tabbed", SHEBANG.replace("/proc/self/exe -IS", f"{odd} -IS", 1), 0o755)
    return [str(path) for path in (first, deepest, tabbed, second, link, third, hidden)]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_interpreter_is_not_reached_through_a_script(installation: Installation, profile: str) -> None:
    """A command whose interpreter is /proc/self/exe would run Hexe's own, past the mounts (as CVE-2019-5736 did)."""
    for script in scripts(installation):
        status, out, err = installation.run(profile, [], [script])
        assert (status, out) == (126, ""), script
        assert "ELOOP" in err


@pytest.mark.parametrize("setting", ["default without tracing", "full without tracing"])
def test_the_interpreter_could_be_reached_through_a_script(installation: Installation, setting: str) -> None:
    """Control: without the look at the first line it runs, and can change what read-only mounts protect."""
    for script in scripts(installation)[:3]:
        status, out, err = installation.run(setting, [], [script])
        assert status == 0, err
        first, *rest = out.splitlines()
        assert first == f"{installation.top}/bin/python3", script
        # Linux refuses to open a running program for writing, but for 6.11 and 6.12, which allowed it.
        assert rest[0] in ("write ETXTBSY", "write done")
        assert rest[1] == "chmod done"


PLANT = 'mkdir -p "$0/hexe"; echo evil > "$0/hexe/sandbox" && echo planted; mv "$0/hexe" "$0/other" && echo moved'


def plant_filter(shooting: Range, setting: str) -> tuple[str, str]:
    """A sandbox sees, writable, where its caller's filters are kept: what it did, and what the cache holds then."""
    runtime = shooting.base / "runtime"
    shooting.caller.mkdir(runtime, 0o700)
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    try:
        argv = [*shooting.hexe(setting), "--bind", str(runtime), "--", "/bin/sh", "-c", PLANT, str(runtime)]
        process = shooting.caller.start(argv, env=env)
        out, _ = process.communicate(timeout=30)
        cached = [path.read_bytes().decode("latin-1") for path in runtime.glob("hexe/*")]
        return out.decode(), "".join(cached)
    finally:
        shutil.rmtree(runtime)


@pytest.mark.parametrize("who", ["root", "user"])
@pytest.mark.parametrize("profile", PROFILES)
def test_no_filter_can_be_planted(range_of: Callable[[str], Range], who: str, profile: str) -> None:
    """Not even by the first sandbox of all, before there is a cache: the next launch would install that filter."""
    did, holds = plant_filter(range_of(who), profile)
    assert did == ""
    assert "evil" not in holds


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_filter_could_be_planted(range_of: Callable[[str], Range], who: str) -> None:
    """Control: without the read-only bind over the cache it is."""
    did, _ = plant_filter(range_of(who), "default without protecting")
    assert did == "planted\nmoved\n"
