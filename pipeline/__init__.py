"""The DomU image and appliance pipeline: from a short text file to a Xen guest known to boot."""

import os

# pydantic looks for plugins in the metadata of every installed package: 15 ms, and there are none
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline"
