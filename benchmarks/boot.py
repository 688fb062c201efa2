"""`python -m benchmarks.boot`: from `xl create` to the login prompt, by image.

Every image that `python -m benchmarks` kept is booted in the Xen test host of `doit prove`, by the
same configuration, kernel and ramdisk: what differs is what is in the image.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

from benchmarks import page
from benchmarks.__main__ import KEPT
from benchmarks.contenders import GUEST, OURS, PEER, list_contenders
from benchmarks.measurement import call
from pipeline.errors import GuestFailed, PipelineError
from pipeline.project import Project
from pipeline.proof.prove import prove
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES

PHASES = ("create", "boot to login")


def boot(recipe: Recipe, image: Path, *, is_swapped: bool) -> float | None:
    """Seconds from `xl create` to the login prompt; None when none came."""
    spec = load_all(recipe.project.guests)[GUEST]
    for stage in STAGES:
        recipe.build(stage.name, spec)
    folder = recipe.project.artifact(GUEST)
    disk = folder / "disk.img"
    disk.unlink()  # the volume's own file is the same inode
    call(["cp", "--sparse=always", image, disk])
    configuration = folder / f"{GUEST}.cfg"
    text = configuration.read_text()
    if is_swapped:  # xen-tools has swap first, and says so in its fstab
        text = text.replace("xvda1", "xvda0").replace("xvda2", "xvda1").replace("xvda0", "xvda2")
    configuration.write_text(text)
    proof = folder / "proof" / "proof.json"
    proof.unlink(missing_ok=True)
    try:
        prove(recipe, spec)
    except GuestFailed as error:  # a peer's guest fails other checks: it has other keys
        print(f"  {error.brief}")
    except PipelineError as error:  # the test host's fault is no guest's
        raise SystemExit(f"{error.brief}\nDOMU_PROOF_PATIENCE=3 waits longer") from error
    found = json.loads(proof.read_text())["seconds"] if proof.is_file() else {}
    reached = "network" in found
    return sum(found[name] for name in PHASES) if reached else None


def main() -> None:
    """Boot each kept image in turn, several rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boot", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/explanation/performance.md"
    )
    options = parser.parse_args()
    here = Project.here()
    output = here.output / "benchmarks" / "boot"
    recipe = Recipe(Project(here.root, output, here.guests), STAGES)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    store = here.output / "store"
    if store.is_dir():  # with the test host, which takes minutes to make
        call(["cp", "-al", store, output / "store"])
    kept = [one for one in list_contenders(KEPT) if one.kept is not None and one.kept.is_file()]
    if not kept:
        raise SystemExit("no images are kept: run `python -m benchmarks` first")
    found: dict[str, list[float | None]] = {}
    for _ in range(options.rounds):
        for one in kept:
            assert one.kept is not None
            seconds = boot(recipe, one.kept, is_swapped=one.name == PEER)
            print(f"boot: {one.name:<42} {seconds or 'no login prompt'}", flush=True)
            found.setdefault(one.name, []).append(seconds)
    table = render(found)
    print(f"\n{table}")
    if options.write:
        page.write("boot", table)


def render(found: dict[str, list[float | None]]) -> str:
    """The table; ratios are to ours."""
    medians = {
        name: statistics.median(seen)
        if (seen := [one for one in all_ if one is not None])
        else None
        for name, all_ in found.items()
    }
    own = medians.get(OURS)
    lines = ["| image | `xl create` to login | to ours |", "|---|---|---|"]
    for name, seconds in medians.items():
        if seconds is None:
            lines.append(f"| {name} | no login prompt | - |")
        else:
            ratio = f"{seconds / own:.2f}" if own else "-"
            lines.append(f"| {name} | {seconds:.1f} s | {ratio} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
