"""Fixtures of the tests: tiny experiments and bundles made here, and WeNet's references beside the repository."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fixture_types import MakeExperiment
from places import SHARED


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Without Qt, or without a library of the system that it needs, pytest-qt would end every test run."""
    try:
        import PySide6.QtTest
        import PySide6.QtWidgets  # noqa: F401
    except ImportError:
        pluginmanager.unregister(name="pytest-qt")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of references and recordings beside the repository; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: WeNet's references are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def make_experiment(tmp_path_factory: pytest.TempPathFactory) -> MakeExperiment:
    """``make(seed=0, **settings)``: an experiment with random weights; settings as for ``model_helpers.train_yaml``."""
    from model_helpers import train_yaml, write_experiment

    def make(seed: int = 0, **settings: Any) -> Path:
        return write_experiment(tmp_path_factory.mktemp("experiment"), train_yaml(**settings), seed)

    return make


@pytest.fixture(scope="session")
def pristine(make_experiment: MakeExperiment) -> Path:
    """The tiny streaming MoE experiment; read only."""
    return make_experiment()


@pytest.fixture
def experiment(pristine: Path, tmp_path: Path) -> Path:
    """A copy of ``pristine`` to damage."""
    return shutil.copytree(pristine, tmp_path / "exp")


@pytest.fixture(scope="session")
def tiny_bundle(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pristine`` as a bundle; read only."""
    from edge.export.convert import convert

    return convert(pristine, tmp_path_factory.mktemp("bundles") / "tiny").directory
