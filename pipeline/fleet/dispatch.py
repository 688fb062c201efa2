"""A build by a fleet: all is handed over at once, each doit task waits for its own part.

What a worker has built lies in the shared store, where the ordinary build of this machine finds it
by its fingerprint: so a worker that understands something else by the same spec is seen, and never
used. What no worker can do, or did not, is built here.
"""

import base64
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client, Future

from pipeline import interruption
from pipeline.console.progress import WARNING, print_line
from pipeline.errors import EnvironmentFault, PipelineError, UsageError
from pipeline.files import fingerprint
from pipeline.fleet import engine
from pipeline.fleet.address import count_local, read_address
from pipeline.fleet.handshake import require_party, require_scheduler
from pipeline.fleet.local_fleet import Joined, LocalFleet
from pipeline.fleet.orders import find_mirror_tie, find_tie, pack_site, write_order, write_sources
from pipeline.fleet.result import Built, Proven
from pipeline.fleet.task_graph import PROVE, FleetTask, Key, is_asked_here, key_of, make_tasks
from pipeline.fleet.toolchain import compare_toolchains, read_toolchain, toolchain_resource
from pipeline.fleet.workplace import TOPIC, carry_out
from pipeline.project import Project
from pipeline.recipe import Recipe
from pipeline.shared.fleet_file import find_certificates, find_party_name
from pipeline.shared.sealed import KEY_BYTES
from pipeline.shared.shared_store import SharedStore, open_store
from pipeline.spec import Spec
from pipeline.stages import firmware
from pipeline.walls.certificates import Party

_POLL_S = 0.2
_CANCEL_S, _START_S = 2.0, 60.0
Tell = Callable[[str, Mapping[str, object]], None]


@dataclass
class _Lost:
    """Since when the scheduler does not answer, and how often its work was handed over again."""

    times: int = 0
    for_good: bool = False


class Dispatch:
    """The workers of a fleet, as the recipe knows them (elsewhere.py)."""

    def __init__(
        self,
        recipe: Recipe,
        specs: Sequence[Spec],
        workers: str,
        *,
        store: str = "",
        party: Party | None = None,
        tell: Tell = lambda _event, _facts: None,
    ) -> None:
        """Nothing is started or connected before the first wait.

        `workers` is an address, or local:N; `store` the URL of the shared store.
        """
        self._recipe, self._specs = recipe, list(specs)
        self._tell = tell
        self._local: LocalFleet | None = None
        if count := count_local(workers):
            self._local = LocalFleet(recipe.project, count)
            self._join = self._local.start
        else:
            address = read_address(workers)
            joined = Joined(address, require_party(address, party), store)
            if not store:
                raise UsageError(
                    f"workers={workers}: through which shared store?",
                    hint="add store=s3://..., sftp://... or file:///..., or write it in fleet.toml",
                )
            self._join = lambda: joined
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._tasks: dict[Key, FleetTask] = {}
        self._futures: dict[Key, Future[Built | Proven]] = {}
        self._orders: dict[Key, Mapping[str, Any]] = {}
        self._sealed: dict[str, SharedStore] = {}
        self._provers = 0
        self._told: set[str] = set()
        self._lost = _Lost()
        self._made_of = ""
        self._trouble: PipelineError | None = None
        self.built: dict[Key, Built] = {}

    def wait(self, stage: str, spec: Spec) -> bool:
        """Return when a worker has built it; False where it is to be built here."""
        recipe = self._recipe_of(stage)
        if is_asked_here(recipe, stage):
            return False
        with self._lock:
            if self._trouble is not None:
                raise self._trouble
            if not self._made_of and not self._lost.for_good:
                self._once(self._hand_over)
        key = key_of(recipe, stage, spec, made_of=self._made_of)
        if key not in self._tasks:
            return False
        built = self._await(key)
        if not isinstance(built, Built):
            return False
        with self._lock:
            is_new = key not in self.built
            self.built[key] = built
        if is_new:
            self._say_built(key, built)
        return True

    def _recipe_of(self, stage: str) -> Recipe:
        """With what is of no guest, where that is meant: UEFI for all who start by it."""
        own = stage in self._recipe.stages
        return self._recipe if own else self._recipe.with_stage(firmware.STAGE)

    def serve(self, recipe: Recipe, specs: Iterable[Spec]) -> None:
        """The run builds these by this recipe: a night asks its mirrors anew."""
        self._recipe, self._specs = recipe, list(specs)

    def prove(
        self, spec: Spec, folder: Path, told: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, bytes]] | None:
        """Have a worker prove the artifact in `folder`, which goes through the store sealed.

        Returns who did, and the files of its evidence; None where it is to be proven here, which
        was said.
        """
        with self._lock:
            if self._trouble is not None:
                raise self._trouble
            if self._client is None and not self._lost.for_good:
                self._once(self._meet)
        if why := self._find_no_prover() or find_mirror_tie(spec, self._recipe.project):
            self._warn(f"{spec.name} is proven here: {why}")
            return None
        key = (PROVE, f"{spec.name}@{secrets.token_hex(4)}")
        try:
            proven = self._have_proven(key, spec, folder, told)
        except PipelineError as error:  # of the store
            self._warn(f"{_show(key)} is proven here: {error.brief}")
            return None
        if not isinstance(proven, Proven):
            return None
        print_line(f"  {_show(key)}  took {proven.seconds:.1f} s ({proven.worker})")
        files = {name: base64.b64decode(text) for name, text in proven.files.items()}
        return proven.worker, files

    def _find_no_prover(self) -> str:
        if self._lost.for_good or self._client is None:
            return f"{self._address} is lost"
        if not self._provers:
            return f"no worker of {self._address} has a slot for proofs"
        # its order holds what opens the artifact
        return "" if self._address.is_encrypted else f"{self._address} is not encrypted"

    def _have_proven(
        self, key: Key, spec: Spec, folder: Path, told: Mapping[str, Any]
    ) -> Built | Proven | None:
        """What its worker says; nothing of the artifact is in the store afterwards."""
        store = _open_store(self._recipe.project, self._joined)
        sealed, secret = f"{spec.name[:60]}-{secrets.token_hex(16)}", secrets.token_bytes(KEY_BYTES)
        order = {
            "stage": PROVE,
            "sealed": sealed,
            "key": base64.b64encode(secret).decode(),
            "told": dict(told),
            **self._of_all(),
        }
        self._sealed[sealed] = store
        try:
            store.push_sealed(sealed, folder, secret)
            with self._lock:
                self._tasks[key] = FleetTask(key, PROVE, spec.name, slot=PROVE)
                self._orders[key] = order
                self._submit([key])
            return self._await(key)
        finally:
            self._remove_sealed(sealed)
            with self._lock:
                for table in (self._tasks, self._orders, self._futures):
                    table.pop(key, None)

    def _remove_sealed(self, name: str) -> None:
        """What cannot be removed now, `doit gc store=` removes a day later."""
        with suppress(PipelineError, KeyError):
            self._sealed[name].remove_sealed(name)
            del self._sealed[name]

    def compare(self, stage: str, spec: Spec, mine: str) -> None:
        """Say so where a worker that built this understood something else by it."""
        key = key_of(self._recipe, stage, spec, made_of=self._made_of)
        built = self.built.get(key)
        if built is not None and built.fingerprint != mine:
            self._warn(
                f"{_show(key)} is {built.fingerprint[:8]} for {built.worker} and {mine[:8]} here:"
                " its inputs differ there; what it built was not used"
            )

    def close(self) -> None:
        """Take back what nobody waits for any more, and leave."""
        is_held = self._lock.acquire(timeout=_CANCEL_S)  # who begins has it, and is interrupted too
        client, self._client = self._client, None
        futures, self._futures = dict(self._futures), {}
        self._lost.for_good = True
        if is_held:
            self._lock.release()
        if client is not None:
            with suppress(OSError, TimeoutError, RuntimeError):  # the scheduler may be gone
                if client.status == "running":
                    client.cancel(list(futures.values()), asynchronous=False)
                client.close(timeout=_CANCEL_S)
        for name in list(self._sealed):
            self._remove_sealed(name)
        if self._local is not None:
            self._local.end()

    def _once(self, step: Callable[[], None]) -> None:
        """What is wrong with the fleet is wrong for every stage."""
        try:
            step()
        except PipelineError as error:
            self._trouble = error
            raise

    def _meet(self) -> None:
        """Meet the scheduler, see whose tools are ours."""
        interruption.at_interruption(self.close)
        joined = self._joined = self._join()
        self._address = joined.address
        require_scheduler(joined.address, joined.party)
        self._client = engine.connect(joined.address, joined.party)
        if self._recipe.shared is None:
            self._recipe.shared = _open_store(self._recipe.project, joined)
        self._client.subscribe_topic(TOPIC, self._on_event)
        if self._local is not None:
            self._client.wait_for_workers(1, timeout=_START_S)
        self._require_workers(read_toolchain())

    def _of_all(self) -> dict[str, str]:
        """What every order says of this machine."""
        return {
            "store": self._joined.store,
            "site": pack_site(self._recipe.project),
            "sources": write_sources(),
        }

    def _hand_over(self) -> None:
        """The whole graph at once."""
        if self._client is None:
            self._meet()
        of_all, uefi = self._of_all(), firmware.STAGE.name
        own = [firmware.own_spec(spec) for spec in self._specs if spec.is_uefi]
        wanted = [(self._recipe, self._specs, "image"), (self._recipe_of(uefi), own, uefi)]
        asked = [self._ask_mirrors(recipe, specs) for recipe, specs, _ in wanted]
        self._made_of = fingerprint([dict(read_toolchain()), of_all, asked])[:8]
        for (recipe, specs, last), states in zip(wanted, asked, strict=True):
            chosen = {spec.name: spec for spec in specs if spec.name in states}
            tasks = make_tasks(recipe, chosen.values(), made_of=self._made_of, last=(last,))
            self._orders |= {
                key: {**write_order(chosen[task.guest], task.stage, states[task.guest]), **of_all}
                for key, task in tasks.items()
            }
            self._tasks |= tasks
        self._submit(self._tasks)

    def _ask_mirrors(self, recipe: Recipe, specs: Iterable[Spec]) -> dict[str, dict[str, str]]:
        """By guest what workers build from; without those that only this machine can build."""
        states: dict[str, dict[str, str]] = {}
        for spec in specs:
            try:
                why = find_tie(spec, recipe.project)
                states |= {} if why else {spec.name: self._share_mirrors(recipe, spec)}
            except PipelineError as error:  # of its mirror: its own build says it in full
                why = error.brief
            if why:
                self._warn(f"{spec.name} is built here: {why}")
        return states

    def _share_mirrors(self, recipe: Recipe, spec: Spec) -> dict[str, str]:
        """Ask the guest's mirror, unless that was done; its identity is what workers build from."""
        states = {}
        for stage in recipe.stages:
            if is_asked_here(recipe, stage):
                state = recipe.build(stage, spec)
                if recipe.shared is not None:
                    recipe.shared.push(state.folder)
                states[stage] = state.identity
        return states

    def _require_workers(self, toolchain: Mapping[str, str]) -> None:
        """Name the workers that get nothing of us. EnvironmentFault where none would."""
        assert self._client is not None
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        fit = 0
        for worker in workers:
            facts = worker.get("metrics", {}).get(TOPIC) or {}
            differs = compare_toolchains(facts.get("toolchain", {}), toolchain)
            if differs:
                self._warn(f"{facts.get('name', worker['name'])} gets no work of ours: {differs}")
            fit += not differs
            self._provers += not differs and facts.get("slots", {}).get(PROVE, 0) > 0
        if not fit:
            raise EnvironmentFault(
                f"{self._address} has no worker that builds what this machine would",
                details="\n".join(sorted(self._told)),
                hint="start one with this very version: doit fleet worker; or build without"
                " workers=",
            )

    def _submit(self, keys: Iterable[Key]) -> None:
        """What of these is not built yet; in their order what others wait for stands first.

        A proof that went wrong for a worker's fault goes to each other one that proves.
        """
        assert self._client is not None
        resource = toolchain_resource(read_toolchain())
        for key in keys:
            task = self._tasks[key]
            if key in self.built:
                continue
            before = [self._futures[upper] for upper in task.after if upper in self._futures]
            self._futures[key] = self._client.submit(
                carry_out,
                self._orders[key],
                *before,
                key=key,
                priority=task.priority,
                resources={task.slot: 1, resource: 1},
                retries=min(engine.RETRIES, self._provers - 1)
                if task.slot == PROVE
                else engine.RETRIES,
                pure=False,
            )

    def _await(self, key: Key) -> Built | Proven | None:
        """Its result; None where it is to be done here, which was said."""
        while True:
            with self._lock:
                future, times = self._futures.get(key), self._lost.times
            if future is None:
                return None
            if future.status == "pending":
                time.sleep(_POLL_S)
                continue
            if future.status == "finished":
                return self._take(future, key)
            if future.status == "error":
                self._say_failed(key, future)
                return None
            if not self._is_back(times):
                return None

    def _take(self, future: Future[Built | Proven], key: Key) -> Built | Proven | None:
        try:
            return future.result(timeout=engine.CONNECT_S)
        except (OSError, TimeoutError, CancelledError) as error:
            self._warn(
                f"{_show(key)} is {_done(key)} here: its worker's answer did not come ({error})"
            )
            return None

    def _is_back(self, times: int) -> bool:
        """Whether the scheduler is there again, after it was lost; its work is handed over anew."""
        with self._lock:
            if self._lost.for_good or self._client is None:
                return False
            if self._lost.times != times:
                return True
            self._warn(f"{self._address} is lost; looking for it for {engine.PATIENCE_S:.0f} s")
            end = time.monotonic() + 2 * engine.PATIENCE_S
            while time.monotonic() < end and self._client.status == "connecting":
                time.sleep(_POLL_S)
            if self._client.status != "running":
                self._lost.for_good = True
                self._warn(f"{self._address} stays lost: what is not built yet is built here")
                self._futures.clear()
                return False
            self._lost.times += 1
            self._futures.clear()
            self._submit(self._tasks)
            return True

    def _on_event(self, event: tuple[float, Any]) -> None:
        facts = event[1]
        key = tuple(facts.get("begins", ()))
        if key in self._tasks:
            print_line(f"  {_show(key)}  begun by {facts['by']}")
            self._tell("fleet began", {"task": _show_plain(key), "worker": facts["by"]})

    def _say_built(self, key: Key, built: Built) -> None:
        did = f"built in {built.seconds:.1f} s" if built.was_built else "was there already"
        print_line(f"  {_show(key)}  {did} ({built.worker})")
        facts = {"worker": built.worker, "seconds": built.seconds, "built": built.was_built}
        facts |= {"moved": built.moved}
        told = {"task": _show_plain(key), "fingerprint": built.fingerprint, **facts}
        self._tell("fleet ended", told)

    def _say_failed(self, key: Key, future: Future[Built | Proven]) -> None:
        error = future.exception(timeout=engine.CONNECT_S)
        why = str(error).strip().splitlines() or [type(error).__name__]
        self._warn(f"{_show(key)} is {_done(key)} here: {why[0]}")
        self._tell("fleet failed", {"task": _show_plain(key), "error": why[0]})

    def _warn(self, text: str) -> None:
        with self._lock:
            if text in self._told:
                return
            self._told.add(text)
        print_line(WARNING, f" {text}")


def _open_store(project: Project, joined: Joined) -> SharedStore:
    folder = joined.party.folder if joined.party else find_certificates(project)
    name = joined.party.name if joined.party else find_party_name(project)
    return open_store(joined.store, folder, project.scratch, name=name)


def _done(key: Key) -> str:
    return "proven" if key[0] == PROVE else "built"


def _show(key: Key) -> str:
    return f"{key[0]:<8} {key[1].partition('@')[0]:<20}"


def _show_plain(key: Key) -> str:
    return f"{key[0]}:{key[1].partition('@')[0]}"
