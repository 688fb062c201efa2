"""A proof for a fleet's worker: the artifact comes sealed, the evidence goes back in the answer.

Of both nothing stays but a log: they are in scratch, for this order alone.
"""

import base64
import shutil
import time
from collections.abc import Mapping
from typing import Any

from pipeline.proof.prove import prove_commission
from pipeline.proof.testhost import TOOLS
from pipeline.recipe import Recipe
from pipeline.scratch import scratch_folder
from pipeline.shared.shared_store import SharedStore


def can_prove() -> bool:
    """Whether this machine has what a test host needs."""
    return all(shutil.which(tool) for tool in TOOLS)


def prove(recipe: Recipe, shared: SharedStore, order: Mapping[str, Any]) -> dict[str, Any]:
    """Prove what was sent; what to say of it. Raises Broken, PlaceTrouble, VerificationError."""
    begun = time.monotonic()
    with scratch_folder(recipe.project.scratch, "commission", mode=0o700) as work:
        room = work / "sent"
        room.mkdir(mode=0o700)
        shared.pull_sealed(order["sealed"], room, base64.b64decode(order["key"]))
        (folder,) = room.iterdir()
        files = prove_commission(recipe, folder, order["told"], work)
    return {
        "seconds": round(time.monotonic() - begun, 3),
        "files": files,
        "moved": shared.moved.pulled_bytes,
    }
