"""Each test has a folder of data sets of its own, and modules that remember nothing of the test before."""

from pathlib import Path

import pytest

from holdfast.fluid.paddle.dataset import common, movielens, sentiment, uci_housing, wmt16


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "datasets"
    monkeypatch.setattr(common, "DATA_HOME", str(folder))
    monkeypatch.setattr(uci_housing, "UCI_TRAIN_DATA", None)
    monkeypatch.setattr(uci_housing, "UCI_TEST_DATA", None)
    for cached in (movielens._meta, sentiment._reviews, sentiment._samples, wmt16._dictionary):
        cached.cache_clear()
    return folder
