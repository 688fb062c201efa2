"""Who called: what was typed for this program, and the folder where it was typed.

The wrapper says both in the environment, since it follows links and goes to the project's folder.
"""

import os
import re
import shlex
import shutil
from pathlib import Path

NAME, FOLDER = "DOMU_CALLED_AS", "DOMU_CALLER"
# a command in a text: no path that ends in doit, no doit's, no word of another program
_COMMAND = re.compile(r"(?<![\w./-])(?:\./doit\b|doit(?= [a-z]))")


def typed_name() -> str:
    """What can be typed to call the program again: `./doit`, `/opt/domu/doit`, or `domu`."""
    path = os.environ.get(NAME) or "./doit"
    name = os.path.basename(path)
    return shlex.quote(name if shutil.which(name) == path else path)


def as_typed(text: str) -> str:
    """The text with each `doit COMMAND` in it as it can be typed here; twice is as good as once."""
    return _COMMAND.sub(lambda _match: typed_name(), text) if "doit" in text else text


def caller_folder() -> Path:
    """The folder that relative paths of the command line are relative to."""
    return Path(os.environ.get(FOLDER) or ".").absolute()


def shorten_path(path: Path) -> Path:
    """Relative to where the caller stands, if it lies below that."""
    folder = caller_folder()
    return path.relative_to(folder) if path.is_relative_to(folder) else path
