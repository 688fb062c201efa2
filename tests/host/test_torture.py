"""Random kills and damages for two thirds of a minute, others every day (CONTRIBUTING.md)."""

import os
from pathlib import Path

import pytest

from pipeline.namespace import is_root
from tests.conftest import require
from tests.torture.__main__ import repeat
from tests.torture.damages import Damages
from tests.torture.kills import GUEST, Torture
from tests.torture.program import Ground
from tests.turns import TODAY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(4 * 3600)]

SHARE_S = 20.0


def budget(name: str) -> tuple[int, float]:
    """How many are asked for, however long they take; else as many as there is time for."""
    asked = os.environ.get(f"DOMU_TORTURE_{name}")
    return (int(asked), float("inf")) if asked else (10_000, SHARE_S)


def test_random_kills_leave_nothing_and_nothing_wrong(tmp_path: Path) -> None:
    torture = Torture(Ground.make(tmp_path / "ground", GUEST), TODAY)
    done, wrong = repeat(torture.kill_one, *budget("KILLS"))
    print(f"{done} kills: {dict(sorted(torture.ended.items()))}")
    assert not wrong, "\n".join(wrong)


def test_what_is_damaged_is_mended_or_refused_and_never_used(tmp_path: Path) -> None:
    require(is_root(), "changes owners")
    damages = Damages(tmp_path, TODAY)
    done, wrong = repeat(damages.damage_one, *budget("DAMAGES"))
    print(f"{done} damages: {dict(sorted(damages.outcomes.items()))}")
    assert not wrong, "\n".join(wrong)
