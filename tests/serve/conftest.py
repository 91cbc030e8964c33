"""Servers and models that the tests of this folder share."""

from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from serving import serving, write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two models with both directions, one with one, and one for gray pictures."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "gray.safetensors", 2, channels_in=1, channels_out=1)
    write_model(folder / "oneway.safetensors", 1, both=False)
    return SimpleNamespace(
        folder=folder,
        first=write_model(folder / "day2night.safetensors"),
        oneway=folder / "oneway.safetensors",
        gray=folder / "gray.safetensors",
    )


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("tmp")
    with serving(models.first, models.oneway, models.gray, tmp=tmp, megapixels=1, megabytes=2) as served:
        served.tmp = tmp
        yield served
