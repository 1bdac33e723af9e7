"""What the command line says when something goes wrong that nobody has foreseen."""

from __future__ import annotations

from errno import EIO

import pytest

from hexe.cli.main import explain_failure
from hexe.errors import CommandError

FAILURES = (RuntimeError("boom"), OSError(EIO, "read: it is broken", "/some/file"))


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001 - with its traceback, as dispatch has it
        return caught


@pytest.mark.parametrize("error", FAILURES, ids=["bug", "kernel"])
def test_a_message_and_no_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HEXE_TRACEBACK", raising=False)
    assert explain_failure(raised(error)) == 125
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("hexe: ") and "\n  fix: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", FAILURES, ids=["bug", "kernel"])
def test_the_traceback_for_whoever_asks(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEXE_TRACEBACK", "1")
    assert explain_failure(raised(error)) == 125
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("Traceback") and "in raised" in err
    assert "\nhexe: " in err


def test_an_error_of_ours_brings_its_own_status(capfd: pytest.CaptureFixture[str]) -> None:
    assert explain_failure(CommandError("x: not found", exit_code=127, hint="look again")) == 127
    assert capfd.readouterr().err == "hexe: x: not found\n  fix: look again\n"


def test_a_reader_that_is_gone_is_for_main() -> None:
    with pytest.raises(BrokenPipeError):
        explain_failure(raised(BrokenPipeError()))
