"""Every command of README and docs/ is one, and its variables are the command's or a spec's."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands import COMMANDS
from pipeline.commands.command_line import read_command_line
from pipeline.commands.options import variables_of
from pipeline.spec import Spec
from pipeline.spec.load import load_all
from pipeline.spec.xen_create_image.options import translate_options
from pipeline.stages import STAGES
from tests.unit.test_ssh_keys import ed25519_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# doit's own, which takes no variables of ours
_STEPS = ("list", "info", "help", "ignore", "forget")
_SCREENS = ("-h", "--help", "--version")


def code_of(text: str) -> Iterator[str]:
    """Lines of code blocks, joined where one goes on, and code within the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks += ["\n".join(re.findall(r"^ {4}(.*)$", text, re.MULTILINE))]
    for block in blocks:
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", text)


def commands_of(page: Path) -> list[str]:
    """What a reader would type; a remark behind two blanks or # is none of it."""
    found = []
    for line in code_of(page.read_text(encoding="utf-8")):
        typed = re.match(r"(?:sudo )?(?:[A-Z_]+=\S+ )*(?:\./)?doit (.*)", line.strip())
        if typed and not re.search(r"[\[|<]", typed[1]):
            found.append(re.split(r"  +|\s#", typed[1])[0].strip())
    return found


def with_values(words: list[str]) -> list[str]:
    """The line with something that is one in place of NAME, FOLDER and ..."""
    command = next((COMMANDS[word] for word in words if word in COMMANDS), None)
    fields = variables_of(command.options) if command else {}
    known = {**Spec.model_fields, **fields}
    filled = []
    for word in words:
        key, sign, value = word.partition("=")
        if word in ("...", "web1") or not word:
            continue
        if sign and (value in ("...", "N") or (value.isupper() and value.isalpha())):
            example = known[key].examples if key in known else None
            value = str(example[0]) if example and key != "authorized_keys" else value
        filled.append(f"{key}{sign}{value}")
    given = {word.partition("=")[0] for word in filled}
    is_one = command is not None and command.is_of_host and "appliance" in fields
    is_one = is_one and given.isdisjoint({"all", "appliance"})
    needed = [
        f"{name}={field.examples[0] if field.examples else 'web1'}"
        for name, field in fields.items()
        if (field.is_required() or (is_one and name == "name")) and name not in given
    ]
    return filled + needed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_and_variable_is_known(page: Path) -> None:
    for typed in commands_of(page):
        words = shlex.split(typed)
        if words and words[0] not in _STEPS and not words[0].isupper() and words[0] not in _SCREENS:
            line = read_command_line(with_values(words))
            translated = translate_options(
                {
                    name: text
                    for name, text in line.variables.items()
                    if name not in Spec.model_fields
                }
            )
            assert translated.problems == [], f"{page.name}: doit {typed}"


def test_the_pages_have_commands_to_read() -> None:
    """So that the test above cannot be right by finding none."""
    counts = {page: len(commands_of(page)) for page in PAGES}
    assert counts[ROOT / "README.md"] > 20
    assert sum(counts.values()) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_guest_is_a_spec_without_a_mistake(page: Path, tmp_path: Path) -> None:
    """A block of TOML that begins with the name of its file."""
    (tmp_path / "guests").mkdir()
    (tmp_path / "key.pub").write_text(ed25519_line())
    blocks = re.findall(
        r"(?:^ {4}.*\n|^\n(?= {4}))+", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    for block in blocks:
        text = re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip()
        if named := re.match(r"# guests/(\w+)\.toml\n", text):
            tomllib.loads(text)
            text = re.sub(r'"~/\.ssh/\w+\.pub"', f'"{tmp_path}/key.pub"', text)
            (tmp_path / f"guests/{named[1]}.toml").write_text(text)
    load_all(tmp_path / "guests")


def test_the_picture_in_readme_names_every_stage_and_true_commands() -> None:
    picture = (ROOT / "docs/flow.svg").read_text(encoding="utf-8")
    words = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    names = [stage.name for stage in STAGES]
    assert sorted(set(words) & set(names)) == sorted(names)
    drawn = re.findall(r"\./doit ([\w, ]+)", " ".join(words))
    asked = {name for text in drawn for name in re.findall(r"^\w+|(?<=, )\w+", text)}
    assert asked >= {"build", "install", "start", "ssh", "prove"}
    assert asked <= set(COMMANDS)
