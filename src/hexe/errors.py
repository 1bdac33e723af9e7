"""Every error that Hexe raises: what failed, the system call, the path, the errno's name, the next step.

An error is part of the interface. ``str(error)`` is the whole text that a user
sees (the command line puts ``hexe: `` before it), and the parts are attributes.
"""

from __future__ import annotations

from errno import errorcode

EXIT_TIMEOUT = 124
EXIT_HEXE_FAILED = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class HexeError(Exception):
    """Base of all of Hexe's own errors. ``hint`` says what the user can do next."""

    exit_code = EXIT_HEXE_FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.hint}" if self.hint else self.message


class UsageError(HexeError):
    """The command line or an argument is wrong: an unknown option, a malformed value, an unknown profile."""


class Unsatisfiable(HexeError):
    """This host can't keep what the policy promises. ``reasons`` has every broken promise, not the first."""

    def __init__(self, reasons: tuple[tuple[str, str], ...]) -> None:
        self.reasons = reasons
        lines = []
        for problem, fix in reasons:
            lines.append(problem + (f"\n  fix: {fix}" if fix else ""))
        super().__init__("\n".join(lines))


class LaunchError(HexeError):
    """A step of the launch was refused by the kernel: nothing of the command has run.

    ``step`` is the operation in words, ``syscall`` the call's name, ``path`` what it
    was about (may be empty) and ``errno`` the number; ``errno_name`` is its name.
    """

    def __init__(self, step: str, syscall: str, path: str, errno: int, *, hint: str = "") -> None:
        self.step = step
        self.syscall = syscall
        self.path = path
        self.errno = errno
        self.errno_name = errorcode.get(errno, str(errno))
        about = f" on {path}" if path else ""
        super().__init__(f"{step}: {syscall}{about}: {self.errno_name}", hint=hint)


class AttestationError(HexeError):
    """The started process doesn't carry what the plan says. It was killed before the command ran."""


class CommandError(HexeError):
    """The command itself could not be executed inside the sandbox."""

    def __init__(self, message: str, *, exit_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class OutputError(HexeError):
    """What the command wrote could not be passed on (a full disk, say). It had started, and was killed."""
