"""The entry point: pick the command, import only its module, print errors as one message, never a traceback."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.image import Recorder

# So long a message waits for a reader of standard error: a timeout must end even where nobody reads of it.
MESSAGE_SECONDS = 1.0

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
    recorder = None
    try:
        name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
        if name == "run":
            recorder = prepare_run()
        return command(name, rest)
    except Exception as error:  # noqa: BLE001 - a user sees a message, not a traceback
        return explain_failure(error)
    finally:
        if recorder is not None:
            recorder.save()


def command(name: str, rest: list[str]) -> int:
    """Run one command by its name; returns its exit status. Raises HexeError, OSError and bugs."""
    if name == "run":
        from hexe.cli import run

        return run.main(rest)
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
    from hexe.errors import UsageError
    from hexe.policy.suggest import did_you_mean

    raise UsageError(
        f"unknown command {name!r}" + did_you_mean(name, (*COMMANDS, "--help", "--version")),
        hint="hexe --help lists the commands; to run a program: hexe run -- PROGRAM",
    )


def explain_failure(error: Exception) -> int:
    """Say what went wrong, with what to do about it; returns the exit status."""
    from hexe.errors import HexeError

    if isinstance(error, HexeError):
        complain(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        raise error
    if os.environ.get("HEXE_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError):
        from errno import errorcode

        about = f": {error.filename}" if error.filename else ""
        name = errorcode.get(error.errno or 0, error.errno)
        complain(
            f"{error.strerror}{about} ({name})\n"
            "  fix: hexe doctor says what this host can enforce; HEXE_TRACEBACK=1 shows where it happened"
        )
        return 125
    complain(
        f"internal error: {type(error).__name__}: {error}\n"
        "  fix: this is a bug in Hexe; HEXE_TRACEBACK=1 shows where it happened. Nothing more was started."
    )
    return 125


def prepare_run() -> Recorder | None:
    """Load the modules of ``hexe run`` from their image; else import them, and give what can make an image of them."""
    from hexe import image

    if image.load(image.image_path()):
        return None
    recorder = image.Recorder()
    with recorder:
        import hexe.cli.run  # noqa: F401 - for the recorder; the command imports it by itself

    return recorder


def complain(text: str) -> None:
    """Write a message of Hexe's own to standard error, every line that starts a message marked."""
    lines = [line if line.startswith("  ") else f"hexe: {line}" for line in text.split("\n")]
    data = "\n".join(lines).encode("utf-8", "backslashreplace") + b"\n"
    from hexe.sandbox.relay import write_within

    try:
        write_within(2, data, MESSAGE_SECONDS)
    except OSError:
        pass  # nobody reads it


def overview() -> str:
    """The text of ``hexe --help``."""
    width = max(len(name) for name in COMMANDS) + 2
    lines = ["usage: hexe COMMAND [options]", "", "Sandboxed commands for Linux.", "", "commands:"]
    lines += [f"  {name.ljust(width)}{about}" for name, about in COMMANDS.items()]
    lines += ["", "hexe COMMAND --help says more; hexe run -- ./script.sh is the short way."]
    return "\n".join(lines) + "\n"
