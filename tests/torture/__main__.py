"""`python -m tests.torture [kills=400] [damages=500] [seconds=60] [seed=20261129]`.

Ends with 1 at the first thing that is wrong, and says with which seed it comes again.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from tests.leaks import adopt_orphans
from tests.torture.damages import Damages
from tests.torture.kills import GUEST, Torture, WrongAfterwards
from tests.torture.program import Ground

MOST_WRONG = 20


def repeat(action: Callable[[], None], times: int, seconds: float) -> tuple[int, list[str]]:
    """So often, or as long as there is time; how often it was, and what was wrong."""
    end, done = time.monotonic() + seconds, 0
    wrong: list[str] = []
    while done < times and time.monotonic() < end and len(wrong) < MOST_WRONG:
        done += 1
        try:
            action()
        except WrongAfterwards as error:
            wrong.append(str(error))
            print(f"WRONG: {error}", flush=True)
        if done % 25 == 0:
            print(f"  {done}, {len(wrong)} wrong", flush=True)
    return done, wrong


def main(*words: str) -> int:
    """Both, as asked for."""
    asked = {"kills": 0, "damages": 0, "seconds": 10**9, "seed": date.today().toordinal()}
    for word in words:
        name, _, value = word.partition("=")
        asked[name] = int(value)
    adopt_orphans()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        if asked["kills"]:
            torture = Torture(Ground.make(Path(folder, "kills"), GUEST), asked["seed"])
            done, new = repeat(torture.kill_one, asked["kills"], asked["seconds"])
            wrong += new
            print(f"{done} kills, {len(new)} wrong: {dict(sorted(torture.ended.items()))}")
        if asked["damages"]:
            damages = Damages(Path(folder, "damages"), asked["seed"])
            done, new = repeat(damages.damage_one, asked["damages"], asked["seconds"])
            wrong += new
            print(f"{done} damages, {len(new)} wrong: {dict(sorted(damages.outcomes.items()))}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
