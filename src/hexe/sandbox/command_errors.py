"""Why the command itself could not be executed: 126, 127, as shells have them; 125 if it isn't its fault. Pure."""

from __future__ import annotations

from errno import E2BIG, EACCES, EAGAIN, ELOOP, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, errorcode

from hexe.errors import EXIT_HEXE_FAILED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, CommandError

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
    if errno in (EAGAIN, ENOMEM):
        # No word about the program: there was no process, or no memory, to execute it in.
        what = "raise the limit of processes (ulimit -u, pids.max of the cgroup)" if errno == EAGAIN else "free memory"
        return CommandError(f"{name}: no process could be made for it: {label}", exit_code=EXIT_HEXE_FAILED, hint=what)
    if errno == ENOEXEC:
        hint = "it is no program and has no #! line: name its interpreter, for example sh " + name
    elif errno == EACCES:
        hint = "give it execute permission (chmod +x), or name its interpreter; a directory can't be executed"
    elif errno == ELOOP:
        hint = (
            "it, or the interpreter that its first line names, leads through /proc to the program that Hexe itself "
            "runs, or it is a file of yours that can't be read: name the real program, or chmod +r"
        )
    elif errno == E2BIG:
        hint = "its arguments and environment are too long together: pass fewer, or --clear-env"
    else:
        hint = "the kernel refused to execute it"
    return CommandError(f"{name}: cannot be executed: execve: {label}", exit_code=EXIT_NOT_EXECUTABLE, hint=hint)
