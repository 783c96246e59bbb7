"""Small calls of Fluid's that set or ask for things which JAX and XLA decide here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.fluid.core import CUDAPinnedPlace

_flags: dict[str, Any] = {}


def set_flags(flags: Mapping[str, Any]) -> None:
    """Keep Fluid's flags for `get_flags`; none of them does anything here.

    Raises:
        TypeError: not a dict.
    """
    if not isinstance(flags, Mapping):
        raise TypeError(f"set_flags needs a dict of flags, not {flags!r}")
    _flags.update(flags)


def get_flags(flags: str | Sequence[str]) -> dict[str, Any]:
    """What `set_flags` kept, None for others."""
    return {name: _flags.get(name) for name in ([flags] if isinstance(flags, str) else flags)}


@contextlib.contextmanager
def device_guard(device: str | None = None) -> Iterator[None]:
    """Has no effect: the whole program runs on the executor's device.

    Raises:
        ValueError: the device is neither `cpu` nor `gpu`.
    """
    if device is not None and device.split(":")[0] not in ("cpu", "gpu"):
        raise ValueError(f"device_guard needs 'cpu', 'gpu' or None, not {device!r}")
    yield


def require_version(min_version: str, max_version: str | None = None) -> None:
    """Check versions of Fluid that a program asks for against 1.8.5, whose behaviour this front end follows.

    Raises:
        TypeError: a version is no text.
        RuntimeError: 1.8.5 is outside what the program asks for.
    """
    for version in (min_version, max_version):
        if version is not None and not isinstance(version, str):
            raise TypeError(f"require_version needs texts such as '1.6.0', not {version!r}")
    have = (1, 8, 5)
    if _parts(min_version) > have or (max_version is not None and _parts(max_version) < have):
        raise RuntimeError(
            f"the program asks for Fluid from {min_version} to {max_version or 'any'}; this front end behaves as 1.8.5"
        )


def _parts(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(p) for p in version.split("."))
    except ValueError as error:
        raise ValueError(f"{version!r} is no version such as '1.6.0'") from error


def cuda_pinned_places(device_count: int | None = None) -> list[CUDAPinnedPlace]:
    """Places in the processor's memory, one if no number is given."""
    return [CUDAPinnedPlace()] * (device_count or 1)
