"""Folders of guests, empty."""

from pathlib import Path

import pytest

from pipeline.project import Project


@pytest.fixture
def guests(tmp_path: Path) -> Path:
    folder = tmp_path / "guests"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path, guests: Path) -> Project:
    return Project(tmp_path, tmp_path / "output", guests)
