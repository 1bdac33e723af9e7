"""Fixtures for everyone: the ``caller`` that runs hexe, once as root and once as an ordinary user.

As root the suite makes an ordinary user where there is none, and removes it when
the last session that uses it ends. Run by an ordinary user, the suite is that
user, and the root half is skipped, saying so.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import SYSTEM_PATH, Caller

USER = "hexe-test"
MADE_BY_US = "made by the test suite of Hexe"
LOCK = Path("/run/hexe-test.lock")


def pytest_configure() -> None:
    """A shell's background job is started with the keyboard's signals ignored, and hands that on to all it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(params=["root", "user"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Whoever runs hexe in this test: every test that asks for it runs as root and as an ordinary user."""
    yield from _caller(request, request.param)


@pytest.fixture
def root_caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """For what only root can see or set up."""
    yield from _caller(request, "root")


@pytest.fixture
def user_caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """For what makes sense only for an ordinary user."""
    yield from _caller(request, "user")


def _caller(request: pytest.FixtureRequest, name: str) -> Iterator[Caller]:
    if name == "root" and os.geteuid() != 0:
        pytest.skip("the suite doesn't run as root: what root gets from hexe can't be tested")
    entry: pwd.struct_passwd = pwd.getpwuid(os.geteuid())
    if name == "user" and os.geteuid() == 0:
        entry = request.getfixturevalue("ordinary_user")
    script: str = request.getfixturevalue("hexe_script")
    made = Caller(name, entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir, script)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[pwd.struct_passwd]:
    """The user database's entry of a user without any privilege. Only root can ask for it."""
    # Other sessions on this machine may use the same user. Each holds the lock shared while it does; whoever gets it
    # for itself alone may make or remove the user.
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while (entry := _find_user()) is None:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _find_user() is None:
                _make_user()
            fcntl.flock(lock, fcntl.LOCK_SH)  # not atomic: it may be gone again, hence the loop
        yield entry
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if entry.pw_gecos.startswith(MADE_BY_US):
            done = subprocess.run(["userdel", "--remove", USER], capture_output=True, text=True, check=False)
            in_use = 8  # someone runs a program as this user by hand: the next session removes it
            assert done.returncode in (0, in_use), done.stderr


def _find_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _make_user() -> None:
    tool = shutil.which("useradd", path=SYSTEM_PATH)
    assert tool, f"the suite needs an ordinary user named {USER}, and there is no useradd to make one"
    command = [tool, "--create-home", "--user-group", "--shell", "/bin/sh", "--comment", MADE_BY_US, USER]
    subprocess.run(command, check=True)


@pytest.fixture(scope="session")
def hexe_script(request: pytest.FixtureRequest) -> Iterator[str]:
    """The installed ``hexe``, which everyone who is to run it can reach: proven by running it."""
    script = Path(sysconfig.get_path("scripts"), "hexe")
    assert script.exists(), f"{script} is missing: install the package (pip install -e .)"
    if os.geteuid() != 0:
        yield str(script)
        return
    user: pwd.struct_passwd = request.getfixturevalue("ordinary_user")
    if _runs_for(user, script):
        yield str(script)
        return
    with tempfile.TemporaryDirectory(prefix="hexe-test-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        copy = _install_again(Path(directory))
        assert _runs_for(user, copy), f"{user.pw_name} can run neither {script} nor its copy {copy}"
        yield str(copy)


def _runs_for(user: pwd.struct_passwd, script: Path) -> bool:
    command = [str(script), "--version"]
    try:
        done = subprocess.run(
            command,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            check=False,
        )
    except OSError:
        return False  # no way to the script for this user, or none to its interpreter
    return done.returncode == 0 and done.stdout.startswith(b"hexe ")


def _install_again(directory: Path) -> Path:
    """A second installation that anyone can read: the checkout, or the interpreter, lies in a closed directory.

    Nothing is fetched: hexe and what it depends on (all of it pure Python) are copied from here.
    """
    python = Path("/usr/bin/python3")
    assert python.exists(), "an ordinary user can't reach this installation, and there is no /usr/bin/python3 instead"
    venv = directory / "venv"
    done = subprocess.run(
        [str(python), "-m", "venv", "--without-pip", str(venv)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{python} can't make a virtual environment (python3-venv?): {done.stderr}"
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run([str(venv / "bin/python3"), "-c", question], capture_output=True, text=True, check=True)
    packages = Path(answer.stdout.strip())
    import hexe

    shutil.copytree(Path(hexe.__file__).parent, packages / "hexe")
    for name in _requirements("hexe"):
        for file in importlib.metadata.files(name) or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    script = venv / "bin/hexe"
    script.write_text(f"#!{venv}/bin/python3\nfrom hexe.cli.main import main\n\nmain()\n")
    script.chmod(0o755)
    subprocess.run(["chmod", "-R", "go=rX", str(directory)], check=True)
    return script


def _requirements(name: str) -> set[str]:
    found: set[str] = set()
    for requirement in importlib.metadata.requires(name) or []:
        if "extra ==" not in requirement:
            other = requirement.split(";")[0].split()[0]
            for separator in "<>=!~[(":
                other = other.split(separator)[0]
            if other and other not in found:
                found |= {other, *_requirements(other)}
    return found
