"""The table of docs/escape-suite.md, made from the registry: ``python tests/escape/escape_table.py`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "inside"))

import main as inside_main  # noqa: E402
from kit import ATTEMPTS, Attempt  # noqa: E402

DOCUMENT = HERE.parent.parent / "docs/escape-suite.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
TITLES = {
    "terminal": "Terminals",
    "mounts": "Mounts, roots and namespaces",
    "proc": "/proc, other processes, the kernel's settings",
    "devices": "Devices",
    "identity": "Ids and capabilities",
    "ipc": "Sockets, IPC and leaked descriptors",
    "files": "Files and paths",
    "kernel": "The kernel and the machine",
}


def cell(text: str) -> str:
    """Text that doesn't end a cell of a table."""
    return text.replace("|", "\\|")


def refusal(attempt: Attempt) -> str:
    """Where it is refused, and with what."""
    by_answer: dict[str, list[str]] = {}
    for profile, answer in attempt.refusal.items():
        by_answer.setdefault(answer.replace("|", " or "), []).append(profile)
    return "; ".join(f"{', '.join(profiles)}: {answer}" for answer, profiles in by_answer.items())


def control(attempt: Attempt) -> str:
    """How it is proven that the test can fail."""
    shown = []
    for each in attempt.controls:
        verdict = each.verdict.replace("(", "").replace(")", "").replace("REFUSED ", "").replace("|", " or ")
        needs = f" (needs {each.needs})" if each.needs else ""
        shown.append(f"`{each.setting}`: {verdict.replace('ESCAPED', 'succeeds')}{needs}")
    return "; ".join(shown)


def table() -> str:
    """All areas, each with its table."""
    lines = []
    for area, title in TITLES.items():
        rows = [attempt for attempt in ATTEMPTS.values() if attempt.area == area]
        lines += ["", f"### {title} ({len(rows)})", "", "| attempt | what stops it | refused with | without it |"]
        lines.append("| --- | --- | --- | --- |")
        for each in rows:
            cells = [f"{each.about} (`{each.name}`)", each.stopped_by, refusal(each), control(each)]
            lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
    return "\n".join([*lines, ""])


def document_with_table(text: str) -> str:
    """The document's text with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    assert inside_main.MODULES, "the registry is filled by importing them"
    DOCUMENT.write_text(document_with_table(DOCUMENT.read_text()))
