"""What a fleet has and does: workers, slots, stages that are being built, bytes, versions."""

from collections.abc import Mapping
from typing import Any

from distributed import Client

from pipeline.fleet.daemons import describe, stop_worker
from pipeline.fleet.toolchain import compare_toolchains, read_toolchain


def read_status(client: Client) -> dict[str, Any]:
    """For programs: the scheduler, and each worker by its name."""
    scheduler = client.scheduler_info(n_workers=-1)
    here = read_toolchain()
    workers = {}
    for address, worker in scheduler["workers"].items():
        facts = describe(worker.get("metrics", {}))
        workers[str(worker["name"])] = {
            "address": address,
            "slots": facts.get("slots", {}),
            "building": facts.get("building", {}),
            "built": facts.get("built", 0),
            "moved": facts.get("moved", 0),
            "resting": facts.get("resting", ""),
            "differs": compare_toolchains(facts.get("toolchain", {}), here),
        }
    waiting = sum([len(keys) for keys in client.processing().values()])
    return {"scheduler": scheduler["address"], "handed_out": waiting, "workers": workers}


HEAD = ("worker", "slots", "builds", "built", "moved", "what is wrong")


def table_of(status: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a worker."""
    rows: list[tuple[str, ...]] = []
    for name, worker in sorted(status["workers"].items()):
        slots = " ".join(f"{slot} {count:.0f}" for slot, count in worker["slots"].items())
        running = [f"{what} {seconds:.0f} s" for what, seconds in worker["building"].items()]
        wrong = "; ".join(filter(None, (worker["differs"], worker["resting"])))
        moved = f"{worker['moved'] / 1e6:.1f} MB"
        row = (name, slots, ", ".join(running) or "-", str(worker["built"]), moved, wrong or "-")
        rows.append(row)
    return rows


def stop(client: Client) -> None:
    """End the scheduler and its workers, in order."""
    client.run(stop_worker)
    client.shutdown()
