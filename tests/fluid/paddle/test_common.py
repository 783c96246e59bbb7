"""Where data sets are looked for, and the small modules that old programs import."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fluid.paddle import archives

from holdfast.fluid import paddle
from holdfast.fluid.paddle import compat
from holdfast.fluid.paddle.dataset import common
from holdfast.fluid.paddle.utils import plot

ASK = "from holdfast.fluid.paddle.dataset import common; print(common.DATA_HOME)"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOLDFAST_DATASETS": "/data/sets"}, "/data/sets"),
        ({"HOLDFAST_DATASETS": "~/sets"}, "/home/me/sets"),
        ({"HOLDFAST_DATASETS": ""}, "/home/me/.cache/paddle/dataset"),
        ({}, "/home/me/.cache/paddle/dataset"),
    ],
)
def test_data_home_is_holdfast_s_or_else_paddle_s(environment: dict[str, str], expected: str) -> None:
    variables = {"PATH": os.environ["PATH"], "HOME": "/home/me", "PYTHONPATH": ":".join(sys.path), **environment}

    printed = subprocess.run(
        [sys.executable, "-c", ASK], env=variables, check=True, capture_output=True, text=True
    ).stdout

    assert printed == expected + "\n"


def test_download_finds_a_file_under_either_spelling(home: Path) -> None:
    path = archives.write(home / "imdb" / "imdb%2Fset.tgz", b"data")
    digest = hashlib.md5(b"data").hexdigest()

    assert common.download("https://host/imdb%2Fset.tgz", "imdb", digest) == str(path)
    assert common.download("https://host/other", "imdb", None, "imdb%2Fset.tgz") == str(path)
    assert common.md5file(path) == digest


def test_download_downloads_nothing_and_says_where_to_put_the_file(home: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"needs {home}/mine/set\.tgz.*https://host/mine%2Fset\.tgz.*put it there"
    ):
        common.download("https://host/mine%2Fset.tgz", "mine", None)
    assert not home.exists()


def test_download_rejects_another_digest(home: Path) -> None:
    archives.write(home / "mine" / "set.tgz", b"data")

    with pytest.raises(
        ValueError, match=r"set\.tgz has the MD5 digest 8d777f385d3dfec8815d20f7496026dc, expected 0{32}"
    ):
        common.download("https://host/set.tgz", "mine", "0" * 32)


def test_split_files_are_shared_among_trainers(tmp_path: Path) -> None:
    def dumper(samples: list[object], file) -> None:
        file.write(json.dumps(samples).encode())

    common.must_mkdirs(tmp_path / "parts")
    common.must_mkdirs(tmp_path / "parts")
    pattern = str(tmp_path / "parts" / "%02d.json")
    common.split(lambda: iter(range(7)), 2, pattern, dumper)

    assert len(list(tmp_path.glob("parts/*"))) == 4
    readers = [
        common.cluster_files_reader(str(tmp_path / "parts" / "*.json"), 2, trainer, json.load) for trainer in (0, 1)
    ]
    assert [list(reader()) for reader in readers] == [[0, 1, 4, 5], [2, 3, 6]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: common.split(lambda: iter([]), 2),
        lambda: common.cluster_files_reader("*", 1, 0),
        lambda: common.convert("folder", lambda: iter([]), 10, "x"),
    ],
)
def test_nothing_is_pickled(call) -> None:
    with pytest.raises(NotImplementedError, match="pickle"):
        call()


def test_top_level_names() -> None:
    assert paddle.__version__ == paddle.version.full_version == "1.8.5"
    assert paddle.in_dynamic_mode() is False
    paddle.enable_static()
    with pytest.raises(NotImplementedError, match="no eager"):
        paddle.disable_static()
    with pytest.raises(AttributeError, match=r"paddle\.to_tensor is not provided.*batch"):
        paddle.to_tensor  # noqa: B018
    assert not hasattr(paddle, "Model")


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    paddle.version.show()

    assert "full_version: 1.8.5" in capsys.readouterr().out
    assert paddle.version.mkl() == "OFF"


def test_datasets_are_attributes() -> None:
    assert paddle.dataset.mnist.__name__ == "holdfast.fluid.paddle.dataset.mnist"
    with pytest.raises(NotImplementedError, match=r"paddle\.dataset\.flowers\.train is not provided"):
        paddle.dataset.flowers.train()
    with pytest.raises(AttributeError, match=r"no paddle\.dataset\.coco.*mnist"):
        paddle.dataset.coco  # noqa: B018


def test_compat_converts_text_and_bytes() -> None:
    assert compat.to_text([b"a", {b"b": [b"c"]}, {b"d"}, None, 1]) == ["a", {"b": ["c"]}, {"d"}, None, 1]
    assert compat.to_bytes({"é": "x"}) == {"é".encode(): b"x"}
    held = [b"a", b"b"]
    assert compat.to_text(held) is not held
    assert compat.to_text(held, inplace=True) is held
    assert held == ["a", "b"]
    sets, pairs = {b"a"}, {b"k": b"v"}
    assert compat.to_text(sets, inplace=True) is sets == {"a"}
    assert compat.to_text(pairs, inplace=True) is pairs == {"k": "v"}


def test_compat_rounds_halves_away_from_zero() -> None:
    assert [compat.round(value) for value in (0.5, 1.5, 2.5, -0.5, -2.5, 0.0)] == [1.0, 2.0, 3.0, -1.0, -3.0, 0.0]
    assert compat.round(2.675, 1) == 2.7
    assert compat.floor_division(7, -2) == -4
    assert compat.get_exception_message(ValueError("why")) == "why"
    assert compat.long_type is compat.int_type is int


def test_ploter_keeps_points_where_plotting_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISABLE_PLOT", "True")
    curves = plot.Ploter("train", "test")
    curves.append("train", 1, 0.5)
    curves.plot(str(tmp_path / "curve.png"))
    curves.reset()

    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError, match=r"no curve 'validation'.*\['test', 'train'\]"):
        curves.append("validation", 1, 0.5)


def test_ploter_draws_with_matplotlib_or_says_that_it_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DISABLE_PLOT", raising=False)
    monkeypatch.setenv("MPLBACKEND", "agg")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        with pytest.warns(UserWarning, match="Ploter draws nothing: matplotlib is not installed"):
            curves = plot.Ploter("train")
        drawn = False
    else:
        curves, drawn = plot.Ploter("train"), True

    curves.append("train", 1, 0.5)
    curves.plot()
    curves.plot(str(tmp_path / "curve.png"))

    assert (tmp_path / "curve.png").exists() is drawn
