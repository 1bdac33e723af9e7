"""spawn: from a plan to a child that waits in its new namespaces, its socket and streams in the caller's hands."""

from __future__ import annotations

import fcntl
import os
import stat

from hexe.errors import LaunchError
from hexe.linux import constants as c
from hexe.linux import signals
from hexe.linux.packets import packet_pair, send
from hexe.linux.process import clone
from hexe.sandbox.init import Child
from hexe.sandbox.program import lower
from hexe.sandbox.runner import prepare, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hexe.policy.host import HostFacts
    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program
    from hexe.sandbox.relay import Pump

# What is passed on to the command; the rest of what is blocked serves the loop itself.
FORWARDED = (c.SIGHUP, c.SIGINT, c.SIGQUIT, c.SIGTERM, c.SIGUSR1, c.SIGUSR2)
WATCHED = (*FORWARDED, c.SIGTSTP, c.SIGCONT, c.SIGWINCH)


class Spawned:
    """A child that has been cloned and given its id maps. The supervisor owns it from here on."""

    def __init__(self, plan: Plan, facts: HostFacts) -> None:
        self.plan = plan
        self.facts = facts
        self.pid = -1
        self.control = -1
        self.signals = -1
        self.old_mask = b""
        self.pumps: list[Pump] = []


def spawn(plan: Plan, facts: HostFacts) -> Spawned:
    """Clone the child and release it into its program. Raises LaunchError; then nothing is left behind.

    This process must have one thread. Signals in WATCHED are blocked from here on.
    """
    program = lower(plan)
    buffer = prepare(program)
    spawned = Spawned(plan, facts)
    spawned.old_mask = signals.block((*WATCHED, c.SIGTTOU, c.SIGTTIN))
    _clone_trees(plan, program, buffer, facts)

    ours, theirs = packet_pair()
    streams, given = _prepare_streams(spawned)
    try:
        pid = clone(plan.namespaces.flags())
    except OSError as error:
        from hexe.sandbox.diagnose import explain_clone

        raise explain_clone(plan, error, facts) from None
    if pid == 0:
        # A copy of the caller's end would keep it from ever seeing the caller's death.
        os.close(ours)
        for pump in spawned.pumps:
            os.close(pump.target if pump.close_target else pump.source)
        Child(plan, program, buffer, theirs, streams, spawned.old_mask).main()
    spawned.pid = pid
    spawned.control = ours
    os.close(theirs)
    for fd in given:
        os.close(fd)
    try:
        if plan.maps:
            directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            program.set(buffer, "child_proc", directory)
            failed = run(program.stages["maps"], buffer)
            os.close(directory)
            if failed is not None:
                raise _explain(plan, program, "maps", failed, facts)
        try:
            send(ours, b"G")
        except BrokenPipeError:
            pass  # somebody killed it: the supervisor hears that first, and says so
    except (LaunchError, OSError):
        os.kill(pid, c.SIGKILL)
        os.waitpid(pid, 0)
        raise
    spawned.signals = signals.open_signalfd(WATCHED)
    for operation in plan.host:
        fd = program.value(buffer, operation.slot)
        if fd >= 0:
            os.close(fd)
    return spawned


def _clone_trees(plan: Plan, program: Program, buffer: bytearray, facts: HostFacts) -> None:
    """Run the stage host, with a user namespace for every owner whose files are to be shown as the sandbox's own."""
    if not plan.host:
        return
    from hexe.linux.namespaces import user_namespace_for_idmap

    namespaces: dict[tuple[int, int], int] = {}
    try:
        for operation in plan.host:
            if operation.idmap and operation.idmap not in namespaces:
                uid, gid = operation.idmap
                try:
                    namespace = user_namespace_for_idmap(uid, facts.root_stand_in, gid, facts.root_stand_in)
                except OSError as error:
                    from hexe.sandbox.diagnose import explain_idmap

                    raise explain_idmap(operation, error, facts) from None
                namespaces[operation.idmap] = namespace
                program.set(buffer, f"idmap.{uid}.{gid}", namespace)
        failed = run(program.stages["host"], buffer)
    finally:
        for namespace in namespaces.values():
            os.close(namespace)
    if failed is not None:
        raise _explain(plan, program, "host", failed, facts)


def _explain(plan: Plan, program: Program, stage: str, failed: tuple[int, int], facts: HostFacts) -> LaunchError:
    from hexe.sandbox.diagnose import explain_step

    return explain_step(plan, program, stage, failed[0], failed[1], facts)


def _prepare_streams(spawned: Spawned) -> tuple[tuple[int, int, int], list[int]]:
    """The descriptors that become the child's 0, 1, 2, and those of them that only the child keeps."""
    chosen: list[int] = []
    given: list[int] = []
    stand_in = spawned.facts.host_root and bool(spawned.plan.maps)
    for number, planned in enumerate(spawned.plan.streams):
        becomes, fd = planned, number
        if becomes == "write-only":
            try:
                fd = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
                given.append(fd)
            except OSError:
                becomes = "relay"  # another user's terminal: a pipe gives away even less
        if becomes == "relay":
            from hexe.sandbox.relay import Pump

            if number == 2 and spawned.plan.streams[1] == "relay" and _same_file(1, 2):
                chosen.append(chosen[1])  # one pipe for both: what is written to them keeps its order
                continue
            reader, writer = os.pipe()
            # Our end must not block the loop, whatever the sandbox does with the other one: it can open that again,
            # and fill or empty the pipe between our poll and our call.
            os.set_blocking(writer if number == 0 else reader, False)
            if number == 0:
                fd = reader
                spawned.pumps.append(Pump(0, writer, close_target=True))
            else:
                fd = writer
                spawned.pumps.append(Pump(reader, number, close_target=False))
            given.append(fd)
        if stand_in and becomes in ("pass", "relay"):
            _let_reopen(fd, 0o004 if number == 0 else 0o002)
        chosen.append(fd)
    return (chosen[0], chosen[1], chosen[2]), given


def _let_reopen(fd: int, bit: int) -> None:
    """Root's pipe is root's: let the sandbox's unprivileged id open it again as /dev/stdin or /dev/stdout, no more."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
        os.fchmod(fd, stat.S_IMODE(mode) | bit)


def _same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other) and fcntl.fcntl(one, fcntl.F_GETFL) == fcntl.fcntl(other, fcntl.F_GETFL)
