"""The README says what is true: its checked commands are run, its tables are compared with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from hexe.cli.options import RUN_OPTIONS
from hexe.cli.profiles import features
from hexe.errors import EXIT_HEXE_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_TIMEOUT
from hexe.policy.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ANYTHING = "..."


def examples() -> list[tuple[str, str]]:
    """(command, expected output) of every console block behind a ``<!-- checked -->`` line."""
    found = []
    for block in re.findall(r"<!-- checked -->\n```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.parametrize(("command", "expected"), examples(), ids=[command for command, _ in examples()])
def test_the_commands_of_the_readme_do_what_it_shows(command: str, expected: str) -> None:
    path = f"{sysconfig.get_path('scripts')}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": os.path.expanduser("~"), "LC_ALL": "C"}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd="/",
        timeout=60,
        check=False,
    )
    pattern = re.escape(expected).replace(re.escape(ANYTHING) + "\\\n", "(.*\n)*")
    assert re.fullmatch(pattern, done.stdout), done.stdout


def test_there_are_checked_commands() -> None:
    assert len(examples()) > 4


def table_behind(marker: str) -> list[list[str]]:
    """The cells of the table behind a marker or a heading, without its ruler."""
    lines = README.split(marker, 1)[1].split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not set("".join(cells)) <= {"-"}:
            rows.append(cells)
    return rows


def test_the_table_of_profiles_is_what_hexe_profiles_shows() -> None:
    header, *rows = table_behind("<!-- profiles -->")
    assert header == ["", *PROFILES]
    shown = {name: features(policy) for name, policy in PROFILES.items()}
    assert rows == [[feature, *(shown[name][feature] for name in PROFILES)] for feature in shown["none"]]


def test_every_option_is_explained_and_no_other() -> None:
    _, *rows = table_behind("### Options")
    explained = {row[0].strip("`") for row in rows}
    assert explained == {f"{option.name} {option.value}".strip() for option in RUN_OPTIONS}


def test_the_exit_statuses_are_those_of_the_code() -> None:
    _, *rows = table_behind("### Exit status")
    numbers = {int(row[0]) for row in rows if row[0].isdigit()}
    assert numbers == {EXIT_TIMEOUT, EXIT_HEXE_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND}


def markdown_files() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


@pytest.mark.parametrize("page", markdown_files(), ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_every_page_ends_with_what_it_cannot_do(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings
    assert headings[-1] == "What it cannot do"
