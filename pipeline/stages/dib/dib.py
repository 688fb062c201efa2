"""diskimage-builder as it is run here: its own scripts, with quick answers where it asks slowly.

Its program is started as its entry point would (disk_image_create.py sets `_LIB` and calls bash),
from a folder of links to its library in which `dib-run-parts` is ours. The shims stand first on
PATH. Together that is a third of what a rootfs without packages takes.
"""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from pipeline import process
from pipeline.walls.cage import SCRIPT_WALLS, place_in_cage

SHIMS = Path(__file__).resolve().parent / "shims"
_RUN_PARTS = "dib-run-parts"


def _package() -> Path:
    module = importlib.util.find_spec("diskimage_builder")
    assert module is not None and module.origin is not None
    return Path(module.origin).parent


def stock_elements() -> Path:
    """The folder of diskimage-builder's own elements."""
    return _package() / "elements"


def version() -> str:
    """diskimage-builder's version."""
    return importlib.metadata.version("diskimage-builder")


def prepare_program(folder: Path) -> list[str | Path]:
    """Make `folder` the library that it runs from; returns the beginning of its command line."""
    folder.mkdir()
    for path in (_package() / "lib").iterdir():
        target = SHIMS / path.name if path.name == _RUN_PARTS else path
        (folder / path.name).symlink_to(place_in_cage(target))
    return ["bash", folder / "disk-image-create"]


def program_environment(library: Path) -> dict[str, str]:
    """What it and the shims have to be told, whatever is built."""
    tools = [str(SHIMS), str(Path(sys.executable).parent), process.PATH]
    return {
        "PATH": ":".join(tools),
        "_LIB": str(library),
        "DIB_PYTHON_EXEC": str(SHIMS / "dib-python"),
        "DIB_DOMU_PYTHON": sys.executable,
        "DIB_DOMU_WALLS": " ".join(SCRIPT_WALLS),
        "DIB_DOMU_STOCK_ELEMENTS": str(stock_elements()),
        "DIB_DOMU_DIB_VERSION": version(),
    }
