"""Averages of parameters over the last steps: programs that put them in the place of the parameters, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.framework import Block, OpRole, Parameter, Program, Variable, default_main_program, program_guard
from holdfast.fluid.layers.tensor import autoincreased_step_counter, create_global_var
from holdfast.fluid.optimizer.base import Optimizer
from holdfast.fluid.scope import global_scope

_COUNTER = "@EMA_STEP_COUNTER@"


class _Averages:
    """Exchanges parameters and averages in the scope that is global at the time.

    Attributes:
        apply_program: keeps every parameter in its backup and puts the average in its place.
        restore_program: puts the backups back.
    """

    apply_program: Program
    restore_program: Program
    _backups: Sequence[tuple[Parameter, Variable]]

    def _build(
        self, backups: Sequence[tuple[Parameter, Variable]], average: Callable[[Block, Variable, Parameter], None]
    ) -> None:
        self._backups = backups
        self.apply_program, self.restore_program = Program(), Program()
        with program_guard(self.apply_program):
            block = self.apply_program.global_block()
            for parameter, backup in backups:
                here = _in(block, parameter)
                block.append_op("assign", {"X": here}, {"Out": _in(block, backup)})
                average(block, here, parameter)
        block = self.restore_program.global_block()
        for parameter, backup in backups:
            here = _in(block, parameter)
            block.append_op("restore_parameter", {"Param": here, "Backup": _in(block, backup)}, {"ParamOut": here})

    @contextlib.contextmanager
    def apply(self, executor: Any, need_restore: bool = True) -> Iterator[None]:
        """Put the averages in the place of the parameters inside the block.

        Args:
            executor: runs the programs.
            need_restore: False leaves the averages in place; `restore` then ends it.
        """
        executor.run(self.apply_program)
        try:
            yield
        finally:
            if need_restore:
                self.restore(executor)

    def restore(self, executor: Any) -> None:
        """Put the parameters back.

        Raises:
            RuntimeError: they are not away: `apply` was not called in this scope.
        """
        scope = global_scope()
        held = [scope.find_var(backup.name) for _, backup in self._backups]
        if any(variable is None or variable.held is None for variable in held):
            raise RuntimeError("restore() puts back what apply() has put away; in this scope it has put away nothing")
        executor.run(self.restore_program)
        for variable in held:
            assert variable is not None
            variable.held = None


def _in(block: Block, variable: Variable) -> Variable:
    """The same variable for another program, where it lives across runs."""
    return block.create_var(
        name=variable.name, shape=variable.shape, dtype=variable.dtype, persistable=True, stop_gradient=True
    )


def _backup(parameter: Parameter, name: str) -> Variable:
    # A temporary in the program that trains, as in Fluid: no save of that program's persistables takes it along.
    return parameter.block.create_var(
        name=name, shape=parameter.shape, dtype=parameter.dtype, persistable=False, stop_gradient=True
    )


def _averaged() -> list[Parameter]:
    return [p for p in default_main_program().global_block().all_parameters() if p.do_model_average is not False]


class ModelAverage(_Averages, Optimizer):
    """The mean of the parameters over a window of steps; make it after `minimize`.

    The window grows with the number of updates: its length is `average_window_rate` of them, within the limits.

    Args:
        average_window_rate: the length of the window as a part of all updates so far.
        min_average_window, max_average_window: limits of the length.
        regularization: accepted as Fluid has it; without effect.
        name: is put before the names of the sums.

    Example:
        >>> import holdfast.fluid as fluid
        >>> main, startup = fluid.Program(), fluid.Program()
        >>> with fluid.program_guard(main, startup), fluid.unique_name.guard():
        ...     loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 1))
        ...     _ = fluid.optimizer.SGD(0.1).minimize(loss)
        ...     average = fluid.optimizer.ModelAverage(0.15, min_average_window=2, max_average_window=100)
        >>> exe = fluid.Executor(fluid.CPUPlace())
        >>> with fluid.scope_guard(fluid.Scope()):
        ...     _ = exe.run(startup)
        ...     with average.apply(exe, need_restore=False):
        ...         pass  # evaluate with the averages
        ...     average.restore(exe)
    """

    _SUMS = ("sum_1", "sum_2", "sum_3")
    _COUNTS = ("num_accumulates", "old_num_accumulates", "num_updates")

    def __init__(
        self,
        average_window_rate: float,
        min_average_window: int = 10000,
        max_average_window: int = 10000,
        regularization: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(0.0, regularization=regularization, name=name)
        if not 0 < min_average_window <= max_average_window:
            raise ValueError(
                f"min_average_window={min_average_window} must be above 0, and not above "
                f"max_average_window={max_average_window}"
            )
        self._attributes = {
            "average_window": float(average_window_rate),
            "min_average_window": int(min_average_window),
            "max_average_window": int(max_average_window),
        }
        backups = [(p, _backup(p, unique_name.generate(f"{p.name}.tmp"))) for p in _averaged()]
        for parameter, _ in backups:
            self._accumulate(parameter)
        self._build(backups, self._average)

    def _accumulate(self, parameter: Parameter) -> None:
        held = {name: self._add_accumulator(name, parameter) for name in self._SUMS}
        held |= {name: self._add_accumulator(name, parameter, dtype="int64", shape=[1]) for name in self._COUNTS}
        block = parameter.block
        with block.program.op_role_guard(OpRole.Optimize):
            block.append_op(
                "average_accumulates",
                {"param": parameter, **{f"in_{name}": variable for name, variable in held.items()}},
                {f"out_{name}": variable for name, variable in held.items()},
                self._attributes,
            )

    def _average(self, block: Block, here: Variable, parameter: Parameter) -> None:
        sums, counts = (
            [_in(block, self._get_accumulator(name, parameter)) for name in names]
            for names in (self._SUMS, self._COUNTS[:2])
        )
        block.append_op("apply_average", {"Param": here, "Sums": sums, "Counts": counts}, {"ParamOut": here})


class ExponentialMovingAverage(_Averages):
    """Averages that forget: `average = decay * average + (1 - decay) * parameter`, corrected for their zero start.

    Make it after `minimize` and call `update()` to add the operators. Fluid 1.8.5 writes the corrected values over the
    averages themselves in `apply`, so that a second one corrects them twice; here the averages stay as they are.

    Args:
        decay: how much of the averages stays.
        thres_steps: a variable with the number of steps; the decay is then at most `(steps + 1) / (steps + 10)`.
        name: is put before the names of the averages, `<parameter>_ema_0`.

    Example:
        >>> import holdfast.fluid as fluid
        >>> main, startup = fluid.Program(), fluid.Program()
        >>> with fluid.program_guard(main, startup), fluid.unique_name.guard():
        ...     loss = fluid.layers.mean(fluid.layers.fc(fluid.layers.data("x", [2]), 1))
        ...     _ = fluid.optimizer.SGD(0.1).minimize(loss)
        ...     average = fluid.optimizer.ExponentialMovingAverage(0.99)
        ...     average.update()
        >>> exe = fluid.Executor(fluid.CPUPlace())
        >>> with fluid.scope_guard(fluid.Scope()):
        ...     _ = exe.run(startup)
        ...     with average.apply(exe):
        ...         pass  # evaluate with the averages
    """

    def __init__(self, decay: float = 0.999, thres_steps: Variable | None = None, name: str | None = None) -> None:
        prefix = name or ""
        self._decay = float(decay)
        self._decay_var = self._scheduled(thres_steps)
        parameters = _averaged()
        backups = [(p, _backup(p, unique_name.generate(f"{prefix}{p.name}.ema_tmp"))) for p in parameters]
        self._ema_vars = {
            p.name: create_global_var(
                p.shape, 0.0, p.dtype, persistable=True, name=unique_name.generate(f"{prefix}{p.name}_ema")
            )
            for p in parameters
        }
        self._step: Variable | None = None
        self._build(backups, self._average)

    def _scheduled(self, steps: Variable | None) -> Variable:
        program = default_main_program()
        decay = create_global_var([1], self._decay, "float32", persistable=True, name="scheduled_ema_decay_rate")
        if steps is not None:
            with program.op_role_guard(OpRole.LRSched):
                program.global_block().append_op(
                    "limited_decay", {"Steps": steps, "Decay": decay}, {"DecayOut": decay}, {"most": self._decay}
                )
        return decay

    def _average(self, block: Block, here: Variable, parameter: Parameter) -> None:
        step = block.create_var(name=_COUNTER, shape=[1], dtype="int64", persistable=True, stop_gradient=True)
        inputs = {
            "Param": here,
            "Average": _in(block, self._ema_vars[parameter.name]),
            "Decay": _in(block, self._decay_var),
            "Step": step,
        }
        block.append_op("apply_moving_average", inputs, {"ParamOut": here})

    def update(self) -> None:
        """Add the operators that move the averages at every run; call it once.

        Raises:
            RuntimeError: it was called before.
        """
        if self._step is not None:
            raise RuntimeError(
                "update() adds the operators to the program and was called before; every run moves the averages"
            )
        program = default_main_program()
        block = program.global_block()
        with program.op_role_guard(OpRole.Optimize):
            self._step = autoincreased_step_counter(_COUNTER)
            for parameter, _ in self._backups:
                average = self._ema_vars[parameter.name]
                inputs = {"Param": parameter, "Average": average, "Decay": self._decay_var}
                block.append_op("moving_average", inputs, {"AverageOut": average})
