"""Which file of the newest checkpoint may stand for one that is to be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import holdfast
from holdfast import LocalStore, Variable
from holdfast.engine import catalog, links, plan as plans
from holdfast.engine.plan import FilePlan, plan_files
from support import flip_bit

VALUES = [np.arange(3 << 20, dtype=np.float64), np.arange(5, dtype=np.float32), np.zeros(0)]  # three blocks, one, none
VARIABLES = [
    Variable(n, "persistable", True, d, v.shape) for n, d, v in zip("abc", ("F64", "F32", "F64"), VALUES, strict=True)
]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> catalog.Found:
    monkeypatch.setattr(plans, "UNCUT_BYTES", 1 << 30)
    holdfast.save_checkpoint(dict(zip("abc", VALUES, strict=True)), tmp_path)
    return next(catalog.complete(LocalStore().at(tmp_path)))


@pytest.fixture
def plan() -> FilePlan:
    (made,) = plan_files(VARIABLES)
    return made


def made_links(found: catalog.Found, unchanged: links.Unchanged = "link") -> links.Links:
    made = links.links_to(found, unchanged)
    assert made is not None
    return made


def test_digests_are_compared_up_to_the_first_that_differs(found: catalog.Found, plan: FilePlan) -> None:
    known = made_links(found).like(plan)
    assert known is not None

    for place, looked_at in ((0, 1), (1 << 20, 2), ((3 << 20) - 1, 3)):
        values = [VALUES[0].copy(), *VALUES[1:]]
        values[0][place] = -1
        seen: list[str] = []
        assert not known.matches(links.block_digests(plan, values, None), seen)
        assert len(seen) == looked_at
    for values in ([VALUES[0], VALUES[1] + 1, VALUES[2]], VALUES):
        seen = []
        assert known.matches(links.block_digests(plan, values, None), seen) == (values is VALUES)
        assert len(seen) == 4


def test_another_header_is_another_file(found: catalog.Found) -> None:
    for changed in ({"name": "d"}, {"shape": (1 << 20, 3)}, {"dtype": "I64"}):
        fields = {"name": "a", "kind": "persistable", "trainable": True, "dtype": "F64", "shape": (3 << 20,)} | changed
        (plan,) = plan_files([Variable(**fields), *VARIABLES[1:]])  # type: ignore[arg-type]
        assert made_links(found).like(plan) is None


def test_nothing_is_known_of_no_checkpoint_or_if_nothing_is_to_be_linked(found: catalog.Found) -> None:
    assert links.links_to(None, "link") is None
    assert links.links_to(found, "write") is None


@pytest.mark.parametrize("at", [None, 9, 4096, 4096 + (8 << 20), -1, "short", "long", "gone"])
def test_file_is_read_back_before_it_is_linked(
    at: int | str | None, found: catalog.Found, plan: FilePlan, tmp_path: Path
) -> None:
    path = Path(str(found.folder)) / plan.name
    made = made_links(found, "verify")
    known = made.like(plan)
    assert known is not None
    digests = list(links.block_digests(plan, VALUES, None))
    blocks = list(zip(links.block_ends(plan, VALUES), digests, strict=True))
    if isinstance(at, int):
        flip_bit(path, at)
    elif at == "gone":
        path.unlink()
    elif at is not None:
        data = path.read_bytes()
        path.write_bytes(data[:-1] if at == "short" else data + b"x")

    linked = made.link(known, LocalStore().at(tmp_path / "second"), blocks)

    assert linked == (at is None) == (tmp_path / "second").exists()
