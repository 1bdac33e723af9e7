"""Breaks the engine on purpose, in many ways, each in a process of its own, and says what came of each launch.

Run as a script by hexe's own interpreter: ``python3 -c SOURCE HOW [hexe run options]``. It prints a
JSON list of records: what was broken, whether the command ran, the exit status, and the message.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from hexe.cli.options import RUN_OPTIONS, parse
from hexe.cli.run import plan_for
from hexe.errors import HexeError
from hexe.linux.syscalls import NUMBERS
from hexe.policy.host import HostFacts
from hexe.sandbox import init, spawn
from hexe.sandbox.plan import Plan
from hexe.sandbox.program import STAGES, Program, Step, lower
from hexe.sandbox.supervise import Supervisor

Launch = Callable[[], int]
Result = dict[str, Any]
NO_DESCRIPTOR = 0x7FFFFFFF


def launch(plan: Plan, facts: HostFacts, promised: Plan) -> int:
    """Start ``plan``, while the caller believes that it is ``promised``."""
    spawned = spawn.spawn(plan, facts)
    spawned.plan = promised
    return Supervisor(spawned).run().status


def observe(what: str, attempt: Launch) -> Result:
    """Make the attempt in a process of its own."""
    said_reader, said_writer = os.pipe()
    word_reader, word_writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.dup2(said_writer, 1)
        os.close(said_reader)
        result: Result = {"status": -1, "kind": "", "message": ""}
        try:
            result["status"] = attempt()
        except HexeError as error:
            result.update(status=error.exit_code, kind=type(error).__name__, message=str(error))
        except Exception as error:  # noqa: BLE001 - a crash of the engine counts as a refusal too
            result.update(status=125, kind=type(error).__name__, message=str(error))
        finally:
            os.write(word_writer, json.dumps(result).encode())
            os._exit(0)
    os.close(said_writer)
    os.close(word_writer)
    word, said = drain(word_reader), drain(said_reader)
    os.waitpid(pid, 0)
    return {"what": what, "ran": b"it ran" in said, **json.loads(word)}


def drain(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


# -- the ways --------------------------------------------------------------------------------------------------------


def nothing(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """Break nothing."""
    yield "nothing", lambda: launch(plan, facts, plan)


def every_step(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """Each system call of the program fails once: it is a close of a descriptor that can't be, EBADF."""
    for stage in STAGES:
        for index, step in enumerate(lower(plan).stages[stage]):

            def attempt(stage: str = stage, index: int = index, step: Step = step) -> int:
                def broken(plan: Plan) -> Program:
                    program = lower(plan)
                    args = (NO_DESCRIPTOR,)
                    program.stages[stage][index] = Step(
                        step.name, NUMBERS["close"], args, step.out, step.tolerate, step.operation, step.about
                    )
                    return program

                spawn.lower = broken  # type: ignore[attr-defined]
                return launch(plan, facts, plan)

            yield f"{stage} {index} {step.name}", attempt


def every_operation(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """Each operation is left out once, as if the kernel had said yes and done nothing."""
    for stage in ("outer", "inner", "seal"):
        operations = plan.stage(stage)
        for index, operation in enumerate(operations):
            weaker = plan.replace(**{stage: operations[:index] + operations[index + 1 :]})
            name = f"{type(operation).__name__} {getattr(operation, 'target', getattr(operation, 'path', ''))}"
            yield name.strip(), lambda weaker=weaker: launch(weaker, facts, plan)  # type: ignore[misc]


def every_namespace(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """Each namespace is left out once."""
    for kind in plan.namespaces.kinds:
        kinds = tuple(other for other in plan.namespaces.kinds if other != kind)
        weaker = plan.replace(namespaces=plan.namespaces.replace(kinds=kinds))
        yield kind, lambda weaker=weaker: launch(weaker, facts, plan)  # type: ignore[misc]


def every_bind(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """Each read-only bind is made writable once."""
    for index, operation in enumerate(plan.outer):
        attrs = getattr(operation, "attrs", 0)
        if attrs & 1 and not getattr(operation, "slot", ""):
            changed = operation.replace(attrs=attrs & ~1)
            weaker = plan.replace(outer=(*plan.outer[:index], changed, *plan.outer[index + 1 :]))
            yield operation.describe(), lambda weaker=weaker: launch(weaker, facts, plan)  # type: ignore[misc]


def every_stage_killed(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, Launch]]:
    """The sandbox's first process is killed by somebody before each of its stages."""
    for doomed in ("outer", "inner", "seal"):

        def attempt(doomed: str = doomed) -> int:
            original = init.Child._run

            def run(self: init.Child, stage: str) -> bool:
                if stage == doomed:
                    # Not even pid 1 can shield itself from the parent's namespace; a stand-in for the OOM killer.
                    os.kill(os.getpid(), signal.SIGKILL) if os.getpid() != 1 else os._exit(137)
                return original(self, stage)

            init.Child._run = run  # type: ignore[method-assign]
            return launch(plan, facts, plan)

        yield doomed, attempt


WAYS = {
    way.__name__: way for way in (nothing, every_step, every_operation, every_namespace, every_bind, every_stage_killed)
}


def main(how: str, arguments: list[str]) -> None:
    parsed = parse([*arguments, "--", "/bin/sh", "-c", "echo it ran"], RUN_OPTIONS, "run")
    _, facts, plan = plan_for(parsed)
    results = [observe(what, attempt) for what, attempt in WAYS[how](plan, facts)]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
