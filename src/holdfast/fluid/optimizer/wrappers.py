"""Optimizers around an optimizer, and names of Fluid's that are not planned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from holdfast.fluid.framework import Block, Operator, OpRole, Program, Variable, default_startup_program, program_guard
from holdfast.fluid.layers.tensor import create_global_var
from holdfast.fluid.optimizer.base import Optimizer, Pairs


class LookaheadOptimizer:
    """Every k steps of another optimizer, go back to a slow copy of the parameters, which has moved some of the way.

    Args:
        inner_optimizer: makes the steps.
        alpha: how much of the way the slow parameters go, from 0 to 1.
        k: how many steps are made before.
    """

    def __init__(self, inner_optimizer: Optimizer, alpha: float = 0.5, k: int = 5) -> None:
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha must be from 0 to 1, not {alpha}")
        if k < 1 or k != int(k):
            raise ValueError(f"k must be a whole number of steps, at least 1, not {k!r}")
        self.inner_optimizer = inner_optimizer
        self.alpha = alpha
        self.k = k
        self.type = "lookahead"

    def minimize(self, loss: Variable, startup_program: Program | None = None) -> tuple[list[Operator], Pairs]:
        """Add the inner optimizer's operators and the exchange with the slow parameters `<parameter>@SLOW`.

        Returns:
            What the inner optimizer returns.
        """
        made = self.inner_optimizer.minimize(loss, startup_program=startup_program)
        block = loss.block.program.global_block()
        startup = (default_startup_program() if startup_program is None else startup_program).global_block()
        with program_guard(block.program, startup_program):
            slow = [self._slow(block, startup, p.name) for p in block.all_parameters()]
            k = create_global_var([1], self.k, "int32", persistable=True, name="lookahead_k")
            alpha = create_global_var([1], self.alpha, "float32", persistable=True, name="lookahead_alpha")
            step = create_global_var([1], 0, "int32", persistable=True, name="lookahead_step")
            with block.program.op_role_guard(OpRole.Optimize):
                block.append_op("increment", {"X": step}, {"Out": step}, {"step": 1.0})
                for fast, copy in zip(block.all_parameters(), slow, strict=True):
                    inputs = {"Param": fast, "Slow": copy, "Step": step, "K": k, "Alpha": alpha}
                    block.append_op("lookahead", inputs, {"ParamOut": fast, "SlowOut": copy})
        return made

    @staticmethod
    def _slow(block: Block, startup: Block, name: str) -> Variable:
        fast = block.var(name)
        wanted = {"name": f"{name}@SLOW", "shape": fast.shape, "dtype": fast.dtype, "persistable": True}
        startup.append_op("assign", {"X": startup.var(name)}, {"Out": startup.create_var(**wanted)})
        return block.create_var(**wanted, stop_gradient=True)


class RecomputeOptimizer:
    """Runs another optimizer; what is kept for the backward pass is left to XLA.

    Args:
        optimizer: makes the steps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._checkpoints: list[Any] | None = None

    def _set_checkpoints(self, checkpoints: Sequence[Any]) -> None:
        self._checkpoints = list(checkpoints)

    def backward(
        self,
        loss: Variable,
        startup_program: Program | None = None,
        parameter_list: Iterable[Any] | None = None,
        no_grad_set: Collection[Any] | None = None,
        callbacks: Sequence[Any] | None = None,
    ) -> Pairs:
        """See `Optimizer.backward`.

        Raises:
            ValueError: `_set_checkpoints` was not called.
        """
        if self._checkpoints is None:
            raise ValueError("RecomputeOptimizer needs _set_checkpoints([variables]) before minimize()")
        return self._optimizer.backward(
            loss, startup_program, parameter_list, no_grad_set, callbacks, checkpoints=self._checkpoints
        )

    def apply_gradients(self, params_grads: Pairs) -> list[Operator]:
        """See `Optimizer.apply_gradients`."""
        return self._optimizer.apply_gradients(params_grads)

    def apply_optimize(self, loss: Variable, startup_program: Program | None, params_grads: Pairs) -> list[Operator]:
        """See `Optimizer.apply_optimize`."""
        return self._optimizer.apply_optimize(loss, startup_program, params_grads)

    def minimize(
        self,
        loss: Variable,
        startup_program: Program | None = None,
        parameter_list: Iterable[Any] | None = None,
        no_grad_set: Collection[Any] | None = None,
    ) -> tuple[list[Operator], Pairs]:
        """See `Optimizer.minimize`."""
        pairs = self.backward(loss, startup_program, parameter_list, no_grad_set)
        return self.apply_optimize(loss, startup_program, pairs), pairs


class _Unplanned:
    """A name that programs may import, but not call."""

    why = ""

    def __init__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} is not supported, and not planned: {self.why}")


class DpsgdOptimizer(_Unplanned):
    """Differentially private descent: not planned."""

    # Fluid's kernel draws one number for a whole parameter: that protects nobody.
    why = "use a library for differential privacy, as Fluid's rule does not give the privacy it is named for"


class DGCMomentumOptimizer(_Unplanned):
    """Momentum on compressed gradients of many machines: not planned."""

    why = "gradients are not compressed here; use Momentum"


class PipelineOptimizer(_Unplanned):
    """A program cut over several devices: not planned."""

    why = "use fluid.CompiledProgram(...).with_data_parallel() for several devices"
