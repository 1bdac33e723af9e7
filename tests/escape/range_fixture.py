"""The ranges of the escape suite: one for root, one for an ordinary user, each prepared once."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator

import pytest
from shooting_range import Range

from support import Caller


@pytest.fixture(scope="session")
def range_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Range]]:
    """Gives the range of ``root`` or ``user``, preparing it when it is first asked for."""
    made: dict[str, Range] = {}

    def give(name: str) -> Range:
        if name not in made:
            if name == "root" and os.geteuid() != 0:
                pytest.skip("the suite doesn't run as root: what root gets from hexe can't be tested")
            entry = pwd.getpwuid(os.geteuid())
            if name == "user" and os.geteuid() == 0:
                entry = request.getfixturevalue("ordinary_user")
            script = request.getfixturevalue("hexe_script")
            caller = Caller(name, entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir, script)
            made[name] = Range(caller)
        return made[name]

    yield give
    for each in made.values():
        each.close()
