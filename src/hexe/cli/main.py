"""The entry point: pick the command, import only its module, print errors as one message, never a traceback."""

from __future__ import annotations

import gc
import os
import sys

COMMANDS = {
    "run": "run one command in a sandbox",
    "profiles": "the profiles, and what each one switches on",
    "explain": "what a run would do, operation by operation",
    "doctor": "what this host can enforce, and how to fix the rest",
}


def main() -> None:
    """Run the command line and end the process with its status. Never returns."""
    status = 125
    # One command, then the end: collecting cycles only makes copies of pages that the child shares with us.
    gc.disable()
    try:
        status = dispatch(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    finally:
        try:
            if sys.stdout is not None:  # None when it was closed at the start
                sys.stdout.flush()
        except OSError:
            status = status or 125
        # Without the interpreter's own wind-down: it costs a millisecond and has nothing to save.
        os._exit(status)


def dispatch(arguments: list[str]) -> int:
    """The exit status of one command line."""
    from hexe.errors import HexeError, UsageError

    try:
        name = arguments[0] if arguments else "--help"
        rest = arguments[1:]
        if name == "run":
            return run(rest)
        if name == "profiles":
            from hexe.cli import profiles

            return profiles.main(rest)
        if name == "explain":
            from hexe.cli import explain

            return explain.main(rest)
        if name == "doctor":
            from hexe.cli import doctor

            return doctor.main(rest)
        if name in ("--help", "-h", "help"):
            sys.stdout.write(overview())
            return 0
        if name in ("--version", "-V"):
            from hexe import __version__

            sys.stdout.write(f"hexe {__version__}\n")
            return 0
        from hexe.policy.suggest import did_you_mean

        raise UsageError(
            f"unknown command {name!r}" + did_you_mean(name, tuple(COMMANDS)),
            hint="hexe --help lists the commands; to run a program: hexe run -- PROGRAM",
        )
    except HexeError as error:
        complain(str(error))
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except OSError as error:
        from errno import errorcode

        about = f": {error.filename}" if error.filename else ""
        complain(f"{error.strerror}{about} ({errorcode.get(error.errno or 0, error.errno)})")
        return 125
    except Exception as error:
        if os.environ.get("HEXE_TRACEBACK"):
            raise
        complain(
            f"internal error: {type(error).__name__}: {error}\n"
            "  fix: this is a bug in Hexe; HEXE_TRACEBACK=1 shows where it happened. Nothing more was started."
        )
        return 125


def run(arguments: list[str]) -> int:
    """``hexe run``, from the image of its modules when there is one; else make one for the next time."""
    from hexe import image

    path = image.image_path()
    if image.load(path):
        return sys.modules["hexe.cli.run"].main(arguments)  # type: ignore[no-any-return]
    recorder = image.Recorder()
    with recorder:
        from hexe.cli.run import main as run_main
    try:
        return run_main(arguments)
    finally:
        recorder.save(path)


def complain(text: str) -> None:
    """Write a message of Hexe's own to standard error, every line that starts a message marked."""
    lines = [line if line.startswith("  ") else f"hexe: {line}" for line in text.split("\n")]
    data = "\n".join(lines).encode("utf-8", "backslashreplace") + b"\n"
    try:
        os.write(2, data)
    except OSError:
        pass  # nobody reads it


def overview() -> str:
    """The text of ``hexe --help``."""
    width = max(len(name) for name in COMMANDS) + 2
    lines = ["usage: hexe COMMAND [options]", "", "Sandboxed commands for Linux.", "", "commands:"]
    lines += [f"  {name.ljust(width)}{about}" for name, about in COMMANDS.items()]
    lines += ["", "hexe COMMAND --help says more; hexe run -- ./script.sh is the short way."]
    return "\n".join(lines) + "\n"
