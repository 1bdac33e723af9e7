"""The package that others get: what the wheel contains, and that installing it alone gives a working ``hexe``."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
QUIET = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **QUIET},
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the tree, so that nothing is written into the tree itself."""
    directory = tmp_path_factory.mktemp("wheel")
    tree = directory / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "bin", "src", "tests"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    # Without isolation: the build backend is among the development tools, and nothing is fetched.
    arguments = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(tree)]
    run(sys.executable, "-m", "pip", "wheel", *arguments)
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The ``hexe`` of a fresh environment with the wheel in it. What it depends on comes from this environment."""
    directory = tmp_path_factory.mktemp("installed")
    venv = directory / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    own = sysconfig.get_path("purelib")
    # For pyseccomp and rich. Hexe itself is found before it, in the environment's own directory.
    Path(packages, "borrowed.pth").write_text(own + "\n", encoding="utf-8")
    yield venv / "bin" / "hexe"
    shutil.rmtree(directory)


def test_the_wheel_has_what_it_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "hexe/py.typed" in names
    scripts = [name for name in names if ".data/scripts/" in name]
    assert [Path(name).name for name in scripts] == ["hexe"]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    strangers = [
        name for name in names if not name.startswith("hexe/") and ".dist-info/" not in name and name not in scripts
    ]
    assert not strangers
    assert not [name for name in names if Path(name).name.startswith(("test_", "conftest")) or name.endswith(".pyc")]
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/hexe").rglob("*.py")}
    assert modules <= set(names)


def test_the_wheel_asks_for_the_documented_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    wanted = [value for value in metadata.get_all("Requires-Dist", []) if "extra ==" not in value]
    assert sorted(wanted) == sorted(PROJECT["dependencies"])
    assert metadata["Requires-Python"] == ">=3.11"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for requirement in wanted:
        package = requirement.split(">")[0]
        assert f"pypi.org/project/{package}/" in readme, f"the README doesn't say why {package} is needed"


def test_an_installed_hexe_runs_a_sandbox(installed: Path) -> None:
    where = run(installed.with_name("python"), "-c", "import hexe; print(hexe.__file__)", cwd=installed.parent)
    assert where.startswith(str(installed.parent.parent)), "not the installed one"
    assert run(installed, "--version").startswith("hexe 0.")
    answer = run(installed, "run", "--isolation", "full", "--", "sh", "-c", "echo $HEXE_ISOLATION", cwd=Path("/"))
    assert answer == "full\n"


def test_an_installed_hexe_draws_its_tables(installed: Path) -> None:
    assert "seccomp filter" in run(installed, "profiles")
