"""A plan as text and as data, for people: every operation with its reason, and on request its system calls. Pure."""

from __future__ import annotations

from hexe.sandbox.program import STAGES, Ptr, lower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hexe.policy.host import HostFacts
    from hexe.sandbox.plan import Plan
    from hexe.sandbox.program import Program, Step

STAGE_TITLES = {
    "host": "host: the caller, before the child exists",
    "maps": "maps: the caller, for the child",
    "outer": "outer: the child, building the new root",
    "inner": "inner: the child, from the pivot on",
    "seal": "seal: the last privileges go; nothing after this but the command",
}
STREAM_TEXTS = {
    "pass": "passed straight through",
    "terminal": "a terminal of the sandbox's own",
    "write-only": "passed write-only: keys can't be read from it",
    "relay": "relayed through a pipe: the file can't be opened again with more rights",
}
STREAM_NAMES = ("standard input", "standard output", "standard error")


def plan_as_text(plan: Plan, facts: HostFacts, syscalls: bool, program_name: str) -> str:
    """The plan for reading. ``syscalls`` adds the Program, as strace would show it."""
    program = lower(plan) if syscalls else None
    policy = plan.policy
    lines = [f"profile {policy.profile}, command: {plan.execute.describe().removeprefix('execute ')}"]
    if plan.namespaces.kinds:
        lines += ["", f"  {plan.namespaces.describe()}", f"      because: {plan.namespaces.because}"]
        if syscalls:
            lines.append(f"      clone3({{flags={plan.namespaces.flags():#x}, exit_signal=SIGCHLD}})")
    for stage in STAGES:
        operations = plan.stage(stage)
        if not operations:
            continue
        lines += ["", STAGE_TITLES[stage]]
        for index, operation in enumerate(operations):
            lines += [f"  {operation.describe()}", f"      because: {operation.because}"]
            if program is not None:
                lines += [f"      {step_as_text(program, step)}" for step in steps_of(program, stage, index)]
    lines += ["", "exec: the command"]
    for name, becomes in zip(STREAM_NAMES, plan.streams):
        lines.append(f"  {name}: {STREAM_TEXTS[becomes]}")
    lines.append(f"  environment: {' '.join(sorted(name for name, _ in plan.execute.environment))}")
    lines.append(f"  {plan.execute.describe()}")
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(lines)


def plan_as_data(plan: Plan, facts: HostFacts, syscalls: bool) -> dict[str, Any]:
    """The plan as JSON-ready data. Values of variables are left out: they may be secrets."""
    program = lower(plan) if syscalls else None
    stages: dict[str, Any] = {}
    for stage in STAGES:
        stages[stage] = []
        for index, operation in enumerate(plan.stage(stage)):
            entry: dict[str, Any] = {
                "operation": type(operation).__name__,
                "text": operation.describe(),
                "because": operation.because,
            }
            if program is not None:
                entry["syscalls"] = [step_as_text(program, step) for step in steps_of(program, stage, index)]
            stages[stage].append(entry)
    return {
        "profile": plan.policy.profile,
        "namespaces": list(plan.namespaces.kinds),
        "namespaces_because": plan.namespaces.because,
        "clone_flags": plan.namespaces.flags(),
        "stages": stages,
        "streams": dict(zip(("stdin", "stdout", "stderr"), plan.streams)),
        "environment": sorted(name for name, _ in plan.execute.environment),
        "command": list(plan.execute.argv),
        "notes": list(plan.notes),
        "kernel": list(facts.kernel),
    }


def steps_of(program: Program, stage: str, operation: int) -> list[Step]:
    """The steps that one operation of a stage lowered itself to."""
    return [step for step in program.stages[stage] if step.operation == operation]


def step_as_text(program: Program, step: Step) -> str:
    """``mkdirat($root, "home", 0755)``: strings shown, slots by name, structures as their address."""
    names = {at: name for name, at in program.slots.items()}
    shown = []
    for position, value in enumerate(step.args):
        if type(value) is int:
            shown.append(str(value) if -4096 < value < 4096 else hex(value))
        elif isinstance(value, Ptr):
            shown.append(_string(program, step, position, int(value)))
        else:
            shown.append("$" + names.get(int(value), str(int(value))))
    text = f"{step.name}({', '.join(shown)})"
    if step.out >= 0:
        text += f" -> ${names[step.out]}" if step.out in names else f" -> [&{step.out}]"
    if step.repeat > 1:
        text += f" and {step.repeat - 1} times more, its second argument counting up"
    if step.tolerate:
        from errno import errorcode

        text += " or " + "|".join(errorcode[number] for number in step.tolerate)
    return text


# Which arguments of which call are strings; the other pointers are structures.
_STRINGS = {
    "openat": (1,),
    "openat2": (1,),
    "open_tree": (1,),
    "mkdirat": (1,),
    "mknodat": (1,),
    "symlinkat": (0, 2),
    "move_mount": (1, 3),
    "mount_setattr": (1,),
    "mount": (1,),
    "fsopen": (0,),
    "fsconfig": (2, 3),
    "pivot_root": (0, 1),
    "umount2": (0,),
    "chdir": (0,),
    "sethostname": (0,),
    "write": (1,),
}


def _string(program: Program, step: Step, position: int, at: int) -> str:
    if position in _STRINGS.get(step.name, ()):
        end = program.data.index(0, at)
        return '"' + program.data[at:end].decode("utf-8", "replace").replace("\n", "\\n") + '"'
    return f"&{at}"
