"""Removing what nobody needs from a store that machines share."""

from pipeline.commands.site_options import Collect
from pipeline.commands.summary import show_size
from pipeline.console.answer import ANSWER
from pipeline.console.progress import print_line
from pipeline.remote.place import open_place
from pipeline.shared.collection import remove, take_inventory
from pipeline.store.gc import Entry, plan_collection

_MIB = 1 << 20


def collect_shared(options: Collect) -> None:
    """The least recently used goes first, and what no statement names any more."""
    assert options.store
    place = open_place(options.store)
    inventory = take_inventory(place)
    plan = plan_collection(inventory.entries, options.keep_mib * _MIB)
    gone = iter(plan.doomed) if options.dry else remove(place, inventory, plan.doomed)
    verb = "would remove" if options.dry else "removed"
    for entry in gone:
        print_line(f"  {verb} {show_size(entry.size):>9}  {entry.path}")
    ANSWER.add(
        "",
        keep=options.keep,
        dry=options.dry,
        busy=False,
        removed=[_as_json(entry) for entry in plan.doomed],
        left=[_as_json(entry) for entry in (*plan.spared, *plan.kept)],
        freed_bytes=plan.freed,
        left_bytes=plan.left,
        needed_bytes=sum(entry.size for entry in plan.kept),
    )
    litter = f", {len(inventory.litter)} files of no entry" if inventory.litter else ""
    print_line(
        f"{show_size(plan.freed)} {'would go' if options.dry else 'removed'}{litter}, "
        f"{show_size(plan.left)} left in {options.store}; keep={options.keep}"
    )


def _as_json(entry: Entry) -> dict[str, object]:
    return {"path": str(entry.path), "bytes": entry.size, "needed_by": entry.needed_by}
