"""What xen-tools' four programs do here: a guest is made and installed, listed, upgraded, removed.

Each is what our own commands do, one after the other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import process
from pipeline.commands.build import say_built
from pipeline.commands.delete import delete
from pipeline.commands.foreign_options import CreateImage, DeleteImages, ListImages, NamedImages
from pipeline.commands.host import on_host
from pipeline.commands.install import install, remove
from pipeline.commands.options import Delete, Install, RemoveInstalled, Ssh, Start
from pipeline.commands.power import start
from pipeline.commands.ssh import ssh_words
from pipeline.console.answer import ANSWER
from pipeline.console.progress import print_line
from pipeline.console.terminal import print_error
from pipeline.dom0 import power
from pipeline.dom0.configuration import LIMIT, Grammar
from pipeline.dom0.inventory import read_installed
from pipeline.dom0.layout import Layout
from pipeline.dom0.toolstack import is_dom0
from pipeline.errors import CommandFailed, PipelineError, UsageError
from pipeline.files import read_bytes
from pipeline.recipe import Recipe
from pipeline.spec import Spec, Specs

_SKIPPED = ("~", ".sxp", "xl.conf")
_UPGRADE = (
    "export DEBIAN_FRONTEND=noninteractive; apt-get --quiet update && apt-get --quiet --yes upgrade"
)
_LOGIN_S = 120


def create_image(recipe: Recipe, spec: Spec, asked: CreateImage) -> None:
    """Put what was built in its place, and start it where that is asked for."""
    say_built(recipe, spec, asked)
    layout = Layout.here()
    if not is_dom0() and layout.root == Path("/"):
        print_line(f"note: no Xen host: nothing is put into {layout.configs}, nothing is started")
        return
    wanted = {"name": spec.name, "unproven": True, "replace": asked.replace}
    install(recipe, {}, Install.model_validate(wanted))
    ANSWER.add(spec.name, start=f"doit start name={spec.name}")
    if asked.start:
        start(recipe, {}, Start.model_validate({"name": spec.name}))


def list_images(_recipe: Recipe, specs: Mapping[str, Spec], asked: ListImages) -> None:
    """Every configuration as xen-list-images shows it."""
    folder = asked.folder or Layout.here().configs
    shown = [
        path
        for path in sorted(folder.glob(f"*{asked.extension}"))
        if path.is_file() and not path.name.endswith(_SKIPPED) and ".dpkg-" not in path.name
    ]
    blocks = ("\n".join(_describe(path, specs)) for path in shown)
    print_line("\n\n".join(blocks))


def _describe(path: Path, specs: Mapping[str, Spec]) -> Iterator[str]:
    text = read_bytes(path, limit=LIMIT, follow=True).decode(errors="surrogateescape")
    try:
        values = Grammar("xl").values(text)
    except ValueError as error:
        yield f"Name: {path.stem}\nConfig: {path} ({error})"
        return
    name = str(values.get("name", ""))
    vif = values.get("vif", [])
    card = dict(
        part.strip().split("=", 1)
        for part in (vif[0] if isinstance(vif, list) and vif else "").split(",")
        if "=" in part
    )
    spec = specs.get(name)
    fixed = [str(each.ip) for at in (spec.cards[:1] if spec else ()) for each in at.addresses]
    address = card.get("ip") or "".join(fixed[:1])
    mac = f" [MAC: {card['mac']}]" if "mac" in card else ""
    yield f"Name: {name}"
    yield f"Memory: {values.get('memory', 0)} MB"
    yield f"IP: {address}{mac}" if address else f"DHCP{mac}"
    yield f"Config: {path}"


def _for_each(names: str, act: Callable[[str], None]) -> None:
    """One guest after the other: the last error is raised when all had their turn."""
    errors: list[PipelineError] = []
    for name in names.split(","):
        try:
            act(name)
        except PipelineError as error:
            errors.append(error)
    for earlier in errors[:-1]:
        print_error(earlier)
    if errors:
        raise errors[-1]


def delete_images(recipe: Recipe, specs: Specs, asked: DeleteImages) -> None:
    """What is installed of them, what was built, and the spec: without a question, as ever."""

    def act(name: str) -> None:
        installed = read_installed(Layout.here(), name) is not None
        is_known = name in specs.names or name in recipe.project.built
        if not installed and not is_known:
            raise UsageError(
                f"{name} was neither built nor installed by doit",
                hint=f"a guest of xen-tools' own: xl destroy {name}, then remove its disks and "
                f"{Layout.here().config(name)}",
            )
        if installed and asked.dry:
            print_line(f"  would remove {Layout.here().config(name)} and its disks")
        elif installed:
            remove(recipe, {}, RemoveInstalled.model_validate({"name": name, "yes": True}))
        if is_known:
            wanted = {"name": name, "spec": True, "yes": True, "dry": asked.dry}
            delete(recipe, specs, Delete.model_validate(wanted))

    _for_each(asked.names, act)


@on_host
def update_images(recipe: Recipe, _specs: object, asked: NamedImages) -> None:
    """Start each guest, let its own apt upgrade it, shut it down again."""

    def act(name: str) -> None:
        host = power.open_host(recipe.project, log_name=name)
        guest = power.find_guest(host, name)
        if name in host.require_xen().domains():
            print_line(f"Skipping xen guest '{name}' - it appears to be running.")
            return
        power.start(host, guest)
        try:
            words = _wait_for_login(recipe, name)
            process.run([*words, _UPGRADE], log=host.log, on_line=print_line)
        finally:
            power.shut_down(host, [guest], timeout_s=180)
        print_line(f"{name} is upgraded and shut down; what was said: {host.log}")

    _for_each(asked.names, act)


def _wait_for_login(recipe: Recipe, name: str) -> Sequence[str]:
    """ssh's words for a guest that was just started, once one of them worked."""
    end = time.monotonic() + _LOGIN_S
    while True:
        try:
            words = ssh_words(recipe, Ssh.model_validate({"name": name}))
            words[1:1] = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
            process.run([*words, "true"])
        except (CommandFailed, PipelineError):
            if time.monotonic() > end:
                raise
            time.sleep(2)
        else:
            return words
