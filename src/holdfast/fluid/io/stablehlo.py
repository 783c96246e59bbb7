"""A program for prediction as StableHLO, through jax.export: it runs with JAX alone.

The exported function takes two dicts, weights and feeds by name, and gives the list of the targets. Flat, its arguments are the
weights in the order of their sorted names, then the feeds likewise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from holdfast.fluid import core
from holdfast.fluid.framework import Program
from holdfast.fluid.lowering import analyse, lower

log = logging.getLogger(__name__)
_PLATFORMS = ("cpu", "cuda", "tpu")


class NotExportableError(ValueError):
    """The program cannot be exported; the message says why."""


def exported(program: Program, weights: Mapping[str, Any], feeds: Sequence[str], fetches: Sequence[str]) -> bytes:
    """The serialised export.

    Args:
        program: pruned, for prediction.
        weights: arrays by name, of which only shape and dtype count.
        feeds, fetches: names.

    Raises:
        NotExportableError: it draws random numbers, changes persistables, or an operator needs to know every dimension.
    """
    analysis = analyse(program, fetches)
    if analysis.draws or analysis.chance:
        raise NotExportableError("the program draws random numbers")
    changed = [n for n in analysis.writes if n not in weights]
    if changed:
        raise NotExportableError(f"the program computes persistables: {', '.join(changed)}")
    lowered = lower(program, fetches, analysis)

    def function(held: dict[str, Any], fed: dict[str, Any]) -> list[Any]:
        return lowered({**held, **fed}, jax.random.wrap_key_data(jnp.zeros(2, np.uint32)))[0]

    shapes = {name: jax.ShapeDtypeStruct(np.shape(a), a.dtype) for name, a in weights.items()}
    failure: Exception | None = None
    # One batch for all feeds is what most programs want; if sizes are independent, each unknown one gets a name.
    for shared in (True, False):
        scope = export.SymbolicScope()
        block = program.global_block()
        fed = {
            name: jax.ShapeDtypeStruct(
                export.symbolic_shape(_symbols(block.vars[name].shape, number, shared), scope=scope),
                core.to_numpy(block.vars[name].dtype),
            )
            for number, name in enumerate(feeds)
        }
        for platforms in (_PLATFORMS, None):
            try:
                with jax.enable_x64(True):
                    made = export.export(jax.jit(function), platforms=platforms)(shapes, fed)
                    return bytes(made.serialize())
            except Exception as error:  # noqa: BLE001 - whatever JAX cannot do with a dimension that it does not know
                failure = failure or error
    log.info("no StableHLO for this program", exc_info=failure)
    raise NotExportableError(f"JAX cannot export it: {str(failure).splitlines()[0][:300]}") from failure


def _symbols(shape: Sequence[int], number: int, shared: bool) -> str:
    dims = [
        str(n) if n >= 0 else "batch" if shared and not axis else f"n{number}_{axis}" for axis, n in enumerate(shape)
    ]
    return ", ".join(dims)
