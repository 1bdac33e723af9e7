"""Why the command itself could not be executed: exit codes 126 and 127, as shells have them. Pure."""

from __future__ import annotations

from errno import EACCES, ENOENT, ENOEXEC, ENOTDIR, errorcode

from hexe.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.sandbox.plan import Plan


def explain_exec(plan: Plan, errno: int) -> CommandError:
    """The error for an execve that failed with ``errno``."""
    name = plan.execute.argv[0]
    label = errorcode.get(errno, str(errno))
    profile = plan.policy.profile
    if errno in (ENOENT, ENOTDIR):
        if "/" in name:
            hint = (
                f"is it, or the interpreter that its first line names, visible in profile {profile}? "
                "--bind or --ro-bind can show it"
                if plan.policy.mount_namespace
                else "check the path, and the interpreter that its first line names"
            )
        else:
            hint = "check its spelling and PATH inside" + (
                f"; what lies outside the directories of profile {profile} must be bound"
                if plan.policy.mount_namespace
                else ""
            )
        return CommandError(f"{name}: not found: execve: {label}", exit_code=EXIT_NOT_FOUND, hint=hint)
    if errno == ENOEXEC:
        hint = "it is no program and has no #! line: name its interpreter, for example sh " + name
    elif errno == EACCES:
        hint = "give it execute permission (chmod +x), or name its interpreter; a directory can't be executed"
    else:
        hint = "the kernel refused to execute it"
    return CommandError(f"{name}: cannot be executed: execve: {label}", exit_code=EXIT_NOT_EXECUTABLE, hint=hint)
