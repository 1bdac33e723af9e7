"""Guessing what somebody meant. Imported only when something is already wrong."""

from __future__ import annotations

import difflib


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """``; did you mean 'full'?`` for the nearest known word, or an empty string when none is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
