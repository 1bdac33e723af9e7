"""The image of the run path's bytecode: used while it counts, else passed over; written where a .pyc would be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hexe

SOURCE = Path(hexe.__file__).parent
RUN = "import sys; sys.argv[1:] = ['run', '--isolation', 'none', '--', 'true']; from hexe.cli.main import main; main()"
CHECK = """
import sys
import hexe.cli.main
from hexe import image
print(image.load(image.image_path()), "hexe.cli.run" in sys.modules)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without any bytecode."""
    copy = tmp_path / "hexe"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def python(package: Path, code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run code with that copy of the package."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, "PYTHONPATH": str(package.parent), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def images(package: Path) -> list[Path]:
    return sorted((package / "__pycache__").glob("run.*")) if (package / "__pycache__").exists() else []


def test_a_run_makes_the_image_that_the_next_one_uses(package: Path) -> None:
    assert python(package, RUN).returncode == 0
    assert [path.name for path in images(package)] == [f"run.{sys.implementation.cache_tag}.image"]
    assert python(package, CHECK).stdout == "True True\n"
    assert python(package, RUN).returncode == 0


def test_modules_from_the_image_are_what_an_import_would_make(package: Path) -> None:
    python(package, RUN)
    describe = """
import sys
import hexe.cli.main
if {image}:
    from hexe import image
    assert image.load(image.image_path())
import hexe.cli.run
from hexe.policy import suggest, values
import inspect
for name in sorted(sys.modules):
    if name.startswith("hexe.") and name != "hexe.image" and name != "hexe.cli.main":
        module = sys.modules[name]
        parent, _, own = name.rpartition(".")
        assert getattr(sys.modules[parent], own) is module
        spec = module.__spec__
        print(name, module.__file__, module.__package__, getattr(module, "__path__", None), spec.origin, spec.name,
              spec.submodule_search_locations, sorted(vars(module)) , len(inspect.getsource(module)))
"""
    ordinary = python(package, describe.format(image=False))
    from_image = python(package, describe.format(image=True))
    assert ordinary.returncode == from_image.returncode == 0, ordinary.stderr + from_image.stderr
    plain = ordinary.stdout.replace("'__cached__', ", "")
    assert from_image.stdout.replace("'__cached__', ", "") == plain


def test_an_edited_source_makes_the_image_stale(package: Path) -> None:
    python(package, RUN)
    profiles = package / "policy/profiles.py"
    profiles.write_text(profiles.read_text() + "\nraise ValueError('edited')\n")
    assert python(package, CHECK).stdout == "False False\n"
    assert "edited" in python(package, RUN).stderr


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\xe9" * 5000, None])
def test_a_damaged_image_is_passed_over_and_replaced(package: Path, damage: bytes | None) -> None:
    python(package, RUN)
    (image,) = images(package)
    image.write_bytes(image.read_bytes()[:3000] if damage is None else damage)
    assert python(package, CHECK).stdout == "False False\n"
    assert python(package, RUN).returncode == 0
    assert python(package, CHECK).stdout == "True True\n"


def test_a_moved_package_has_no_image(package: Path) -> None:
    python(package, RUN)
    moved = package.parent / "elsewhere"
    moved.mkdir()
    package.rename(moved / "hexe")
    assert python(moved / "hexe", CHECK).stdout == "False False\n"


def test_no_image_where_python_would_write_no_bytecode(package: Path) -> None:
    assert python(package, RUN, PYTHONDONTWRITEBYTECODE="1").returncode == 0
    assert images(package) == []


def test_no_image_in_another_users_package(package: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give the package to another user")
    os.chown(package, 12345, 12345)
    assert python(package, RUN).returncode == 0
    assert images(package) == []


def test_a_full_disk_leaves_no_part_of_an_image(package: Path) -> None:
    """RLIMIT_FSIZE refuses a write, or all after its first part, as a full disk does (Python ignores SIGXFSZ).

    In the second run Python's own .pyc files are cut off too: that must not change the exit status.
    """
    for limit in (0, 4096):
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        assert python(package, limited + RUN).returncode == 0
        assert list((package / "__pycache__").glob("*.image*")) == []
