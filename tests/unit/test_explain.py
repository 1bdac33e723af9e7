"""A plan for people: nothing of it is left out, and no secret gets in."""

from __future__ import annotations

import json

import pytest
from factories import plan_of, policy_of, root_facts, user_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import command_lines, hosts, with_sources

from hexe.errors import Unsatisfiable, UsageError
from hexe.policy.host import HostFacts, Stream
from hexe.policy.profiles import PROFILES
from hexe.sandbox.check import operations
from hexe.sandbox.explain import STREAM_TEXTS, plan_as_data, plan_as_text, step_as_text, steps_of
from hexe.sandbox.program import STAGES, lower


@settings(deadline=None, max_examples=50)
@given(command_lines, hosts(), st.data(), st.booleans())
def test_every_operation_is_told_with_its_reason(
    words: list[str], facts: HostFacts, data: st.DataObject, syscalls: bool
) -> None:
    try:
        facts = data.draw(with_sources(facts, policy_of(facts, *words)))
        plan = plan_of(facts, *words, argv=("echo", "a b"))
    except (UsageError, Unsatisfiable):
        return
    lines = plan_as_text(plan, facts, syscalls, "hexe").split("\n")
    told = plan_as_data(plan, facts, syscalls)
    assert json.loads(json.dumps(told)) == told
    for operation in operations(plan):
        assert operation.because.strip()
        at = lines.index(f"  {operation.describe()}")
        assert lines[at + 1].startswith("      because: ")
    reasons = [line.removeprefix("      because: ") for line in lines if line.startswith("      because: ")]
    head = [plan.namespaces.because] if plan.namespaces.kinds else []
    assert reasons == head + [operation.because for operation in operations(plan)]
    for stage in STAGES:
        assert [(each["operation"], each["text"], each["because"]) for each in told["stages"][stage]] == [
            (type(each).__name__, each.describe(), each.because) for each in plan.stage(stage)
        ]
    assert told["command"] == ["echo", "a b"]
    assert "  execute echo 'a b'" in lines
    for note in plan.notes:
        assert f"note: {note}" in lines and note in told["notes"]
    for becomes in plan.streams:
        assert any(line.endswith(STREAM_TEXTS[becomes]) for line in lines)


TTYS = (Stream("tty"), Stream("tty"), Stream("tty"))


@pytest.mark.parametrize("facts", [user_facts(streams=TTYS), root_facts(streams=TTYS)], ids=["user", "root"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_system_call_is_told(profile: str, facts: HostFacts) -> None:
    plan = plan_of(facts, "--isolation", profile)
    program = lower(plan)
    text = plan_as_text(plan, facts, True, "hexe")
    told = plan_as_data(plan, facts, True)
    for stage in STAGES:
        shown = [step_as_text(program, step) for step in program.stages[stage]]
        assert [call for each in told["stages"][stage] for call in each["syscalls"]] == shown
        for call in shown:
            assert f"      {call}\n" in text
        for index in range(len(plan.stage(stage))):
            assert steps_of(program, stage, index)
    assert "syscalls" not in json.dumps(plan_as_data(plan, facts, False))


@pytest.mark.parametrize("syscalls", [True, False])
def test_values_of_variables_are_not_told(syscalls: bool) -> None:
    facts = user_facts()
    plan = plan_of(facts, "--pass-env", "TOKEN", "--env", "KEY=correct horse")
    for text in (plan_as_text(plan, facts, syscalls, "hexe"), json.dumps(plan_as_data(plan, facts, syscalls))):
        assert "TOKEN" in text and "KEY" in text
        assert "hunter2" not in text and "correct horse" not in text
