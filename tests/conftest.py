"""What all tests share: no processes in unit tests, nothing left behind by the others."""

import os
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import Belongings, adopt_orphans, take_stock
from tests.workers import is_worker, live_apart
from tests.workshop import Workshop

ROOT = Path(__file__).resolve().parent.parent


for variable in (
    "DOMU_SITE",
    "DOMU_STORE",
    "DOMU_CALLER",
    "DOMU_CALLED_AS",
):  # of whoever starts the tests
    os.environ.pop(variable, None)

# a busy machine is no mistake of the code: nothing here is judged by its speed
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")


def pytest_sessionstart() -> None:
    """What a killed build leaves running becomes ours, so that the leak check sees it."""
    adopt_orphans()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: at the end one worker would wait for it."""
    items.sort(key=lambda item: "lvm" not in item.path.parts)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped in CI, for whatever reason and by whatever means, has failed."""
    report = yield
    is_left_out = report.skipped and not hasattr(report, "wasxfail")
    if is_left_out and os.environ.get("CI") == "true" and "unit" not in item.path.parts:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CI lacks something: {reason}"
    return report


@pytest.fixture(autouse=True)
def no_process_in_unit_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit test that starts a process is an integration test in the wrong folder."""
    if "unit" not in request.path.parts:
        return

    def refuse(*arguments: object, **_options: object) -> None:
        raise AssertionError(f"a unit test starts a process: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Mounts, loop devices, processes, temporary files are the same after an integration test."""
    if request.node.get_closest_marker("integration") is None:
        yield
        return
    before = take_stock()
    yield
    left = take_stock().since(before)
    assert left == Belongings(), f"left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Workers that run side by side do not see each other's mounts and temporary files."""
    if is_worker():
        live_apart(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The session's output folder, for the guests that we ship.

    DOMU_TEST_WORKSHOP names one that is kept from session to session, while developing. Workers
    share the store and the package cache, so that a golden half is built once; locks keep them
    apart, as they do any two builds.
    """
    if kept := os.environ.get("DOMU_TEST_WORKSHOP"):
        return Workshop(Path(kept))
    output = tmp_path_factory.mktemp("workshop") / "output"
    if is_worker():
        output.mkdir()
        for name in ("store", "cache"):
            shared = tmp_path_factory.getbasetemp().parent / name
            shared.mkdir(exist_ok=True)
            (output / name).symlink_to(shared)
    return Workshop(output)


def require(condition: bool, reason: str) -> None:
    """Skip on a developer's machine, fail in CI."""
    if not condition:
        pytest.skip(reason)
