"""No command ends in a traceback, whatever it is given. More of the same: ``any_input.py``."""

from __future__ import annotations

import pytest

from tests.support.any_input import STATUSES, commands, tried


def test_the_commands_are_found() -> None:
    assert {("run",), ("leaderboard", "build"), ("study", "build"), ("data", "prepare")} <= {
        *commands()
    }


@pytest.mark.slow
def test_no_generated_input_ends_in_a_traceback() -> None:
    faults = [call for call in tried(100, seed=5) if call[2] not in STATUSES]
    assert not faults, "\n".join(map(str, faults))
