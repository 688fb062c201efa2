"""Where packages come from: mirrors, the caching proxy, releases."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pipeline.commands.site_options import MirrorProxy, Mirrors, Releases
from pipeline.console.progress import print_line, print_table
from pipeline.errors import PipelineError, UsageError
from pipeline.mirror.keyrings import borrow_keyring
from pipeline.mirror.mirrors import list_named, resolve_mirrors
from pipeline.mirror.probe import Probe, Question, probe_all
from pipeline.mirror.proxy.control import ProxyControl, find_upstreams
from pipeline.mirror.proxy.settings import MANAGED, ProxySettings, read_settings
from pipeline.mirror.proxy.units import render_units, unit_to_disable, unit_to_enable, write_units
from pipeline.recipe import Recipe
from pipeline.spec import Spec
from pipeline.suites import SUITES, Suite, describe_age, facts_of
from pipeline.suites.accounts import NEVER, read_accounts, read_proven

# what fits in a terminal
_SHORT = ("suite", "version", "state", "until", "init", "kernel", "fs", "built", "proven")
_HEAD = ("", "mirror", "suite", "dated", "valid until", "lag", "answer", "speed", "signed by")


def mirrors(recipe: Recipe, specs: Mapping[str, Spec], options: Mirrors) -> None:
    """Probe every mirror that is known here, or those that are named."""
    found = probe_all(list(_questions(recipe, specs, options)))
    if options.json_form:
        print(json.dumps([one.as_json() for one in found], indent=1))
        return
    print_table([_row(one) for one in found], head=_HEAD)
    for one in found:
        if one.trouble:
            print_line(f"  {one.name} {one.suite}: {one.trouble}")
    for one in found:
        if one.is_best:
            print_line(f"best for {one.suite}: mirror={one.name}  ({one.url})")


def _questions(recipe: Recipe, specs: Mapping[str, Spec], options: Mirrors) -> Iterator[Question]:
    folder = recipe.project.mirrors
    names = [*options.mirrors] or ["host", *list_named(folder)]
    if MANAGED not in names and ProxyControl(recipe.project).status().is_running:
        names.append(MANAGED)
    wanted = options.suites or sorted({spec.suite for spec in specs.values()})
    for suite in (SUITES[name] for name in wanted):
        for name in names:
            try:
                archives = resolve_mirrors(name, suite, folder)
            except UsageError as error:
                if "suites:" not in error.brief:
                    raise
                continue
            for archive in archives:
                keyring = archive.keyring or suite.keyring
                yield Question(name, archive, suite, _path(recipe, keyring, suite))


def _path(recipe: Recipe, keyring: str, suite: Suite) -> Path:
    """The keyring itself, or the one that is borrowed from a verified package."""
    path, kept = Path(keyring), recipe.project.cache.keyrings / Path(keyring).name
    if path.is_file() or suite.keyring_package != "ubuntu-keyring":
        return path
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        cache, log = recipe.project.cache, kept.with_name("log")
        borrow_keyring(suite.keyring_package, kept.name, kept, cache=cache, log=log)
    return kept


def _row(one: Probe) -> tuple[str, ...]:
    if one.date is None:
        return ("-", one.name, one.suite, "not usable, see below", "", "", "", "", "")
    return (
        "*" if one.is_best else "",
        one.name,
        one.suite,
        f"{one.date:%Y-%m-%d %H:%M}",
        f"{one.valid_until:%Y-%m-%d %H:%M}" if one.valid_until else "",
        f"{one.lag_s / 3600:.0f} h" if one.lag_s else "",
        f"{one.latency_s * 1000:.0f} ms",
        f"{one.bytes_per_s / 2**20:.1f} MiB/s",
        " ".join(one.signed_by),
    )


def suites(_recipe: Recipe, _specs: object, options: Releases) -> None:
    """The releases: what differs between them, and how old they are."""
    today = datetime.now(UTC).date()
    chosen = [SUITES[name] for name in options.suites or SUITES]
    rows = [{**facts_of(suite, today), **_dates(suite.name)} for suite in chosen]
    if options.json_form:
        print(json.dumps({row["suite"]: row for row in rows}, indent=1))
        return
    if options.suites:  # every fact, a suite a column
        facts = [fact for fact in rows[0] if fact != "suite"]
        head = ("suite", *(row["suite"] for row in rows))
        print_table([(fact, *(row[fact] for row in rows)) for fact in facts], head=head)
    else:
        print_table([tuple(row[fact] for fact in _SHORT) for row in rows], head=_SHORT)
        print_line("every fact of some: doit suites suites=lenny,bookworm")
    for suite in chosen:
        note = describe_age(suite, today)
        if note:
            print_line(f"  {suite.name}: {note}")


def _dates(suite: str) -> dict[str, str]:
    account, booted = read_accounts().get(suite), read_proven().get(suite)
    built = account.built if account else ""
    return {"built": built or NEVER, "proven": booted[0] if booted else NEVER}


def mirror_proxy(recipe: Recipe, _specs: object, options: MirrorProxy) -> None:
    """Run the caching proxy until interrupted, or ask and tell the one that runs."""
    asked = {"proxy": options.proxy, "upstream": options.upstream, "port": options.port}
    given = {key: value for key, value in asked.items() if value is not None}
    settings = read_settings(recipe.project.mirrors)
    try:
        settings = ProxySettings.model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        reasons = (str(mistake["msg"]).removeprefix("Value error, ") for mistake in error.errors())
        raise UsageError(
            f"mirror-proxy: {'; '.join(reasons)}",
            hint=f"another {' or '.join(f'{key}=' for key in sorted(given))}",
        ) from None
    if options.units:
        _write_units(recipe, settings, options.units)
        return
    control = ProxyControl(recipe.project, settings)
    if options.stop:
        print_line("the proxy is stopped" if control.stop() else "the proxy did not run")
    elif options.status:
        say_status(control)
    else:
        _run_proxy(control, stays=options.stay)


def _write_units(recipe: Recipe, settings: ProxySettings, folder: Path) -> None:
    upstreams = find_upstreams(settings.upstream, recipe.project.mirrors)
    for path in write_units(render_units(settings.proxy, settings.port, upstreams), folder):
        print_line(f"wrote {path}")
    print_line("  on the machine that is to serve the lab, as root:")
    for words in (
        f"apt-get install {settings.proxy}",
        f"systemctl disable --now {unit_to_disable(settings.proxy)}",
        f"cp -r {folder}/etc /",
        f"systemctl daemon-reload && systemctl enable --now {unit_to_enable(settings.proxy)}",
    ):
        print_line(f"    {words}")
    print_line(f"  on each build machine:  mirror=HOST:{settings.port}")


def _run_proxy(control: ProxyControl, *, stays: bool) -> None:
    was_started = control.ensure(stays=stays)
    say_status(control)
    if stays or not was_started:
        print_line("  stop it:   doit mirror-proxy stop=yes")
        return
    print_line("  it ends with Ctrl-C; stay=yes lets it run on")
    try:
        while control.status().is_running:
            time.sleep(1)
        raise PipelineError("the proxy ended by itself", hint=f"see {control.log}")
    finally:
        control.stop()


def say_status(control: ProxyControl) -> None:
    """What runs, where, and how much it holds."""
    now = control.status()
    state = f"runs, process {now.pid}" if now.is_running else "does not run"
    print_line(f"{now.settings.proxy} on {now.settings.address} {state}")
    print_line(
        f"  cache:     {now.cache_bytes / 2**20:.0f} MiB in {now.files} files, {control.cache}"
    )
    print_line(f"  use it:    mirror=proxy, or mirror={now.settings.address}")
