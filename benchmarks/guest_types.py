"""`python -m benchmarks.guest_types`: from `xl create` to the login prompt, by type and boot.

One guest of bookworm as PV, as PVH and as PVH by GRUB, proven in turn in the test host of
`doit prove`, several rounds; the times are those of its proof.json.
"""

import argparse
import json
import statistics

from benchmarks import page
from benchmarks.boot import PHASES
from benchmarks.measurement import call
from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.proof.names import FOLDER, PROOF
from pipeline.proof.prove import prove
from pipeline.recipe import Recipe
from pipeline.spec import load_all
from pipeline.stages import STAGES

GUESTS = {
    "PV, direct kernel": ("pv", 'type = "pv"\n'),
    "PVH, direct kernel": ("pvh", ""),
    "PVH, its own kernel by GRUB": ("pvh-grub", 'boot = "grub"\n'),
}
Seconds = dict[str, list[float]]


def make_recipe() -> Recipe:
    """The three guests, built below output/benchmarks/."""
    here = Project.here()
    output = here.output / "benchmarks" / "guest-types"
    guests = output / "specs"
    guests.mkdir(parents=True, exist_ok=True)
    for name, keys in GUESTS.values():
        (guests / f"{name}.toml").write_text(f'suite = "bookworm"\nsize = "1G"\n{keys}')
    if here.store.is_dir() and not (output / "store").exists():  # with the test host
        call(["cp", "-al", here.store, output / "store"])
    recipe = Recipe(Project(here.root, output, guests), STAGES)
    for spec in load_all(guests).values():
        for stage in STAGES:
            recipe.build(stage.name, spec)
    return recipe


def measure(recipe: Recipe, name: str) -> float:
    """Seconds of one proof from `xl create` to the login prompt."""
    try:
        prove(recipe, load_all(recipe.project.guests)[name])
    except PipelineError as error:
        raise SystemExit(f"{error.brief}\nDOMU_PROOF_PATIENCE=3 waits longer") from error
    proof = json.loads((recipe.project.artifact(name) / FOLDER / PROOF).read_bytes())
    return float(sum(proof["seconds"][phase] for phase in PHASES))


def render(found: Seconds) -> str:
    """The table; ratios are to the first line."""
    rounds = min(map(len, found.values()))
    medians = {kind: statistics.median(seconds) for kind, seconds in found.items()}
    first = next(iter(medians.values()))
    lines = [
        f"bookworm, 1G, 256 MiB; medians of {rounds}, in turn, slowest and fastest beside them.",
        "",
        "| guest | `xl create` to login | from, to | ratio |",
        "|---|---|---|---|",
    ]
    for kind, seconds in found.items():
        spread = f"{min(seconds):.1f}, {max(seconds):.1f} s"
        ratio = f"{medians[kind] / first:.2f}"
        lines.append(f"| {kind} | {medians[kind]:.1f} s | {spread} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prove each guest in turn, several rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest_types", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="0 builds the guests, no more")
    parser.add_argument("--more", action="store_true", help="add to the rounds of the last time")
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/explanation/performance.md"
    )
    options = parser.parse_args()
    recipe = make_recipe()
    kept = recipe.project.output / "seconds.json"
    is_added = options.more and kept.is_file()
    found: Seconds = json.loads(kept.read_bytes()) if is_added else {kind: [] for kind in GUESTS}
    for _ in range(options.rounds):
        for kind, (name, _) in GUESTS.items():
            found[kind].append(measure(recipe, name))
            print(f"{kind:<30} {found[kind][-1]:.1f} s", flush=True)
        kept.write_text(json.dumps(found))
    if all(found.values()):
        table = render(found)
        print(f"\n{table}")
        if options.write:
            page.write("types", table)


if __name__ == "__main__":
    main()
