"""Draws the picture of the README: a real session in a pseudo-terminal, captured and written as SVG.

    make picture                         python scripts/picture.py docs/images/run.svg

Nothing in the picture is written by hand: the first line is the command that this script starts, the rest is what
the command wrote, colours included.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS = 96
COMMAND = ["make", "-s", "demo"]
PROMPT = "\x1b[1;34m~/hexe $\x1b[0m "
THEME = TerminalTheme(
    (18, 20, 26),
    (214, 218, 226),
    [(69, 71, 90), (243, 139, 168), (148, 210, 140), (235, 203, 139), (129, 174, 245), (203, 166, 247),
     (137, 220, 235), (186, 194, 222)],
)  # fmt: skip
# No web font: a picture shouldn't fetch anything. textLength keeps the columns in place with any monospaced one.
FORMAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" class="rich-terminal" role="img">
<title>A run of untrusted-install.sh in the profile full</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def record(command: list[str]) -> str:
    """What the command writes to a terminal of its own. Ends the program when the command fails."""
    pid, master = pty.fork()
    if pid == 0:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "50"}
        environment.pop("NO_COLOR", None)
        os.execvpe(command[0], command, environment)
    written = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        written += part
    _, status = os.waitpid(pid, 0)
    text = written.decode("utf-8", "replace").replace("\r\n", "\n")
    if status:
        raise SystemExit(f"{shlex.join(command)} ended with {os.waitstatus_to_exitcode(status)}:\n{text}")
    return text


def draw(text: str, target: Path) -> None:
    """Write the session as SVG."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, record=True, width=COLUMNS, force_terminal=True, color_system="truecolor")
        for line in text.rstrip("\n").split("\n"):
            console.print(Text.from_ansi(line), soft_wrap=False)
        svg = console.export_svg(title="hexe", theme=THEME, code_format=FORMAT, unique_id="hexe")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


def main() -> None:
    """Record, draw, say where."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: picture.py FILE.svg")
    os.chdir(Path(__file__).resolve().parent.parent)
    shown = "make demo"
    draw(f"{PROMPT}{shown}\n{record(COMMAND)}", Path(sys.argv[1]))
    print(f"{sys.argv[1]}: drawn")


if __name__ == "__main__":
    main()
