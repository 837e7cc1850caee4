"""A scene of known truth, and a model that gets it right."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from serve.colours import colour_predictor, draw_scene, write_scene

from ovrs import Predictor
from ovrs.serve import Limits, Service, Session

WORDS = ["water", "tree", "building", "road"]


@pytest.fixture
def predictor() -> Predictor:
    return colour_predictor()


@pytest.fixture
def truth() -> np.ndarray:
    """[100, 140] indices into WORDS."""
    return draw_scene()[0]


@pytest.fixture
def scene(tmp_path: Path, truth: np.ndarray) -> Path:
    """The picture of the truth, in UTM, pixels of half a metre."""
    folder = tmp_path / "my scenes"
    folder.mkdir()
    return write_scene(folder / "town.tif", truth, WORDS)


@pytest.fixture
def make_service(predictor: Predictor) -> Iterator[Callable[..., Service]]:
    """Build services with other limits."""
    services = []

    def make(**limits: float) -> Service:
        services.append(Service(predictor, Limits(**limits)))
        return services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


def upload(service: Service, path: Path, name: str = "", **options) -> Session:
    """Do what page and REST interface do with a file that came in."""
    incoming = service.new_upload()
    shutil.copy(path, incoming)
    return service.open(incoming, name or path.name, **options)


@pytest.fixture
def session(service: Service, scene: Path) -> Session:
    return upload(service, scene)
