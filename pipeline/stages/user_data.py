"""user-data, judged by the cloud-init that will read it: the guest's own, in a cage."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.guest.seed import CONFIG
from pipeline.scratch import remove_tree
from pipeline.stage import Job
from pipeline.walls.cage import caged, caged_script, make_room

_PLACE = "/tmp/user-data"
# what Python and cloud-init are, without what takes room
_LEFT_OUT = ("./usr/lib/modules", "./lib/modules", "./var", "./boot", "./usr/share")
_VALID = re.compile(r"^Valid (cloud-config|schema)\b", re.MULTILINE)
_ERRORS = re.compile(r"schema errors: (.*)", re.DOTALL)
# format-l4.c3: where YAML itself ends
_FORMAT = re.compile(r"format-l(\d+)\.c\d+: (?:File \S+ is not valid \w+\. )?(.*)")
_PLACED = re.compile(r"([A-Za-z0-9_.-]+): ")
_MOST_LETTERS = 160


def check_user_data(job: Job, text: str, work: Path) -> None:
    """`cloud-init schema` of what is cloud-config; raises UsageError with the line and why."""
    if not text.startswith(CONFIG):
        return
    rootfs = job.upstream("rootfs") / "rootfs.tar"
    given, room = work / "user-data", make_room(work / "schema")
    given.write_text(text)
    tree = room / "tree"
    unpack = ["tar", "-C", tree, "-xf", rootfs, *(f"--exclude={path}" for path in _LEFT_OUT)]
    words = ["cloud-init", "schema", "--config-file", _PLACE]
    script = caged_script(words, tree=tree, readable=[(given, _PLACE)])
    steps: list[list[object]] = [["mkdir", tree], unpack, ["touch", f"{tree}{_PLACE}"]]
    said = job.run(caged(script, room=room, readable=[rootfs, given], before=steps), accept=(0, 1))
    remove_tree(room)
    given.unlink()
    if not _VALID.search(said):
        raise UsageError(
            f"{job.spec.user_data}: {explain(said, text)}",
            hint="https://cloudinit.readthedocs.io has the keys; nothing was changed",
        )


def explain(said: str, text: str) -> str:
    """The first of its complaints, with the line of the text that it is about."""
    told = _ERRORS.search(said)
    first = told[1].strip().splitlines()[0] if told else ""
    if broken := _FORMAT.match(first):
        return f"line {broken[1]}: {broken[2]}"
    if placed := _PLACED.match(first):
        first = f"line {_find_line(text, placed[1].split('.'))}: {first}"
    return first[:_MOST_LETTERS] or "cloud-init does not understand it"


def _find_line(text: str, path: Sequence[str]) -> int:
    """Where a place of a document is, as far as it is there."""
    import yaml  # only a mistake pays for it

    node, line = yaml.compose(text, Loader=yaml.SafeLoader), 1
    for word in path:
        if isinstance(node, yaml.SequenceNode) and word.isdigit() and int(word) < len(node.value):
            node = node.value[int(word)]
        elif isinstance(node, yaml.MappingNode):
            named = [pair for pair in node.value if pair[0].value == word]
            if not named:
                break
            line, node = named[0][0].start_mark.line + 1, named[0][1]
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line
