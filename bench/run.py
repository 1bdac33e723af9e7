"""``python -m bench.run``: what one cold ``hexe run`` costs, against the interpreter's start and against bubblewrap.

Everything is measured interleaved in one run, so that the ratios hold where the
absolute times vary. The bar: ``hexe run --isolation full -- /bin/true`` takes at most
2.0 times ``python -c pass`` of the same interpreter.

Options: ``--rounds N`` (default 200), ``--hexe PATH``, ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

BAR = 2.0


def bubblewrap(bwrap: str) -> list[str]:
    """bubblewrap with the mounts, namespaces and dropped capabilities of the profile ``full``."""
    command = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-net"]
    command += ["--unshare-cgroup", "--hostname", "hexe", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += ["--ro-bind", path, path]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--tmpfs", "/tmp"]
    home = os.path.expanduser("~")
    command += ["--bind", home, home] if home.startswith("/home/") else ["--tmpfs", "/home/root"]
    command += ["--proc", "/proc", "--dev", "/dev", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    return [*command, "--", "/bin/true"]


def interpreter_of(hexe: str) -> str:
    """The interpreter that a script's first line names: the one that is compared with."""
    with open(hexe, encoding="utf-8") as script:
        return script.readline().removeprefix("#!").strip()


def competitors(hexe: str) -> dict[str, list[str]]:
    """The commands to time, by the name that the table shows."""
    python = interpreter_of(hexe)
    found = {
        "python -c pass": [python, "-c", "pass"],
        "hexe run full": [hexe, "run", "--isolation", "full", "--", "/bin/true"],
        "hexe run sandbox": [hexe, "run", "--isolation", "sandbox", "--", "/bin/true"],
        "hexe run default": [hexe, "run", "--isolation", "default", "--", "/bin/true"],
        "hexe run none": [hexe, "run", "--isolation", "none", "--", "/bin/true"],
    }
    bwrap = shutil.which("bwrap")
    if bwrap:
        found["bwrap, same mounts"] = bubblewrap(bwrap)
    found["/bin/true"] = ["/bin/true"]
    return found


def prepare(hexe: str) -> None:
    """Let Python and Hexe write their bytecode, as they do at the first run where nothing forbids it."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):
        subprocess.run([hexe, "run", "--isolation", "full", "--", "/bin/true"], env=plain, check=True)


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round by name; each round runs every command once. The first two rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            if number >= 2:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, p95 and minimum in milliseconds, and the ratio of the medians to ``python -c pass``."""
    base = statistics.median(times["python -c pass"])
    return {
        name: {
            "median_ms": round(statistics.median(values), 3),
            "p95_ms": round(sorted(values)[int(len(values) * 0.95) - 1], 3),
            "min_ms": round(min(values), 3),
            "ratio": round(statistics.median(values) / base, 3),
        }
        for name, values in times.items()
    }


def import_times(hexe: str) -> str:
    """What ``python -X importtime`` says of the run path, the dearest first: in a run, and module by module."""
    run = [hexe, "run", "--isolation", "full", "--", "/bin/true"]
    with_image = _import_times(hexe, "imports of a run, from the image", run)
    return with_image + "\n" + _import_times(hexe, "imports without the image", ["-c", "import hexe.cli.run"])


def _import_times(hexe: str, title: str, arguments: list[str]) -> str:
    command = [interpreter_of(hexe), "-X", "importtime", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    rows = []
    for line in done.stderr.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[0].strip().isdigit():
            rows.append((int(parts[0]), parts[2].strip()))
    ours = [row for row in rows if row[1].split(".")[0] == "hexe"]
    lines = [
        f"{title}: {len(rows)} modules {sum(us for us, _ in rows)} us; "
        f"{len(ours)} of ours {sum(us for us, _ in ours)} us"
    ]
    lines += [f"{us:6} us  {name}" for us, name in sorted(rows, reverse=True)[:25]]
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, the bar and the imports."""
    parser = argparse.ArgumentParser(prog="python -m bench.run")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--hexe", default=str(Path(sys.executable).parent / "hexe"))
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    prepare(options.hexe)
    results = summary(measure(competitors(options.hexe), options.rounds))
    print(f"{platform.platform()}, Python {platform.python_version()}, {options.rounds} interleaved rounds")
    print(f"{'':22}{'median':>9}{'p95':>9}{'min':>9}{'ratio':>8}")
    for name, row in results.items():
        print(f"{name:22}{row['median_ms']:9.2f}{row['p95_ms']:9.2f}{row['min_ms']:9.2f}{row['ratio']:8.2f}")
    ratio = results["hexe run full"]["ratio"]
    print(
        f"bar: hexe run full / python -c pass = {ratio:.2f}, at most {BAR:.2f}: {'met' if ratio <= BAR else 'missed'}"
    )
    bwrap = results.get("bwrap, same mounts")
    if bwrap:
        print(f"report: hexe run full / bwrap = {results['hexe run full']['median_ms'] / bwrap['median_ms']:.2f}")
    else:
        print("report: bwrap isn't installed here: apt-get install bubblewrap")
    imports = import_times(options.hexe)
    print(imports)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"results": results, "imports": imports.splitlines(), "uname": list(os.uname())}, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
