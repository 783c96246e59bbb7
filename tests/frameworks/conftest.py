"""Fixtures of several frameworks' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of PyTorch, of this process alone."""
    dist = pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
