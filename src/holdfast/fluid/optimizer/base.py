"""Optimizer: what all rules share - the learning rate, accumulators, clipping, regularization, and the order of it all.

A rule says in `accumulators` what it remembers of a parameter and in `attributes` how it is set; its operator does the rest.
"""

from __future__ import annotations

import numbers
import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.fluid import unique_name
from holdfast.fluid.backward import append_backward
from holdfast.fluid.clip import GradientClipBase, append_error_clip_ops, append_gradient_clip_ops
from holdfast.fluid.framework import (
    Block,
    Operator,
    OpRole,
    Parameter,
    Program,
    Variable,
    default_main_program,
    program_guard,
)
from holdfast.fluid.initializer import Constant
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.tensor import create_global_var
from holdfast.fluid.regularizer import WeightDecayRegularizer, append_regularization_ops

Pairs = list[tuple[Parameter, Variable]]


@dataclass(frozen=True, slots=True)
class Accumulator:
    """What a rule remembers of each parameter, as a persistable `<parameter>_<name>_0`.

    Attributes:
        name: as in files.
        input, output: slots of the rule's operator; no output if something else changes it.
        fill: its value at the start.
        scalar: shape [1] instead of the parameter's.
    """

    name: str
    input: str
    output: str | None
    fill: float = 0.0
    scalar: bool = False


class Optimizer:
    """Base of the rules.

    Args:
        learning_rate: a number, which becomes the persistable `learning_rate_0`, or a variable, such as a schedule gives.
        parameter_list: parameters or their names; None for all that are trainable.
        regularization: for parameters that have none of their own in `ParamAttr`.
        grad_clip: a rule of `fluid.clip` for the gradients of all parameters.
        name: is put before the names of accumulators.

    Attributes:
        type: of the rule's operator.
        accumulators: in the order in which they are created; a property where they depend on settings.
    """

    type = ""
    accumulators: Sequence[Accumulator] = ()
    uses_rate = True

    def __init__(
        self,
        learning_rate: Any,
        parameter_list: Iterable[Any] | None = None,
        regularization: WeightDecayRegularizer | None = None,
        grad_clip: GradientClipBase | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(learning_rate, bool) or not isinstance(learning_rate, numbers.Real | Variable):
            raise TypeError(f"learning_rate must be a number or a variable, not {learning_rate!r}")
        if grad_clip is not None and not isinstance(grad_clip, GradientClipBase):
            raise TypeError(f"grad_clip must be a rule of fluid.clip, such as GradientClipByNorm, not {grad_clip!r}")
        if regularization is not None and not isinstance(regularization, WeightDecayRegularizer):
            raise TypeError(
                f"regularization must be a rule of fluid.regularizer, such as L2Decay, not {regularization!r}"
            )
        self.regularization = regularization
        self._grad_clip = grad_clip
        self._learning_rate: Any = learning_rate
        self._parameter_list = None if parameter_list is None else list(parameter_list)
        self._name = name
        self._attributes: dict[str, Any] = {}
        self._dtype: Any = None
        self._learning_rate_map: weakref.WeakKeyDictionary[Program, Variable] = weakref.WeakKeyDictionary()
        if isinstance(learning_rate, Variable):
            self._learning_rate_map[learning_rate.block.program] = learning_rate
        # By name and parameter, for the program that was optimized last.
        self._accumulators: dict[str, dict[str, Variable]] = {}

    def attributes(self, parameter: Parameter) -> dict[str, Any]:
        """The attributes of the operator that updates a parameter."""
        return self._attributes

    def inputs(self) -> dict[str, Any]:
        """What the operator reads beside parameter, gradient, rate and accumulators."""
        return {}

    def minimize(
        self,
        loss: Variable,
        startup_program: Program | None = None,
        parameter_list: Iterable[Any] | None = None,
        no_grad_set: Collection[Any] | None = None,
        grad_clip: GradientClipBase | None = None,
    ) -> tuple[list[Operator], Pairs]:
        """Add the operators that compute gradients and update the parameters; every run of the program then trains.

        Args:
            loss: float, of one element.
            startup_program: gets the initialisation of what the rule remembers; None for the default one.
            parameter_list: parameters or their names; None for those of the optimizer.
            no_grad_set: variables or names that gradients stop at.
            grad_clip: instead of the optimizer's.

        Returns:
            The operators of the update, and the parameters with the variables of their gradients.

        Raises:
            ValueError: the loss has more than one element, or depends on no trainable parameter; or the learning rate is a
                variable of another program.
        """
        pairs = self.backward(loss, startup_program, parameter_list, no_grad_set)
        if grad_clip is None:
            return self.apply_optimize(loss, startup_program, pairs), pairs
        if not isinstance(grad_clip, GradientClipBase):
            raise TypeError(f"grad_clip must be a rule of fluid.clip, such as GradientClipByNorm, not {grad_clip!r}")
        own, self._grad_clip = self._grad_clip, grad_clip
        try:
            return self.apply_optimize(loss, startup_program, pairs), pairs
        finally:
            self._grad_clip = own

    def backward(
        self,
        loss: Variable,
        startup_program: Program | None = None,
        parameter_list: Iterable[Any] | None = None,
        no_grad_set: Collection[Any] | None = None,
        callbacks: Sequence[Any] | None = None,
        *,
        checkpoints: Any = None,
    ) -> Pairs:
        """The first part of `minimize`: add the operators that compute gradients.

        Args:
            loss, startup_program, parameter_list, no_grad_set: see `minimize`.
            callbacks: see `append_backward`.
            checkpoints: see `append_backward`.

        Returns:
            The parameters with the variables of their gradients.
        """
        if not isinstance(loss, Variable):
            raise TypeError(f"the loss must be a variable of a program, not {loss!r}")
        self._dtype = loss.dtype
        program = loss.block.program
        self._check_rate(program)
        if parameter_list is None:
            parameter_list = self._parameter_list
        with program_guard(program, startup_program):
            pairs = append_backward(loss, parameter_list, no_grad_set, callbacks, checkpoints)
            append_error_clip_ops(program.global_block())
        if not pairs:
            raise ValueError(
                f"there is nothing to minimize: {loss.name} depends on no trainable parameter"
                + ("" if parameter_list is None and not no_grad_set else " of parameter_list and outside no_grad_set")
            )
        return pairs

    def apply_optimize(self, loss: Variable, startup_program: Program | None, params_grads: Pairs) -> list[Operator]:
        """The second part of `minimize`; see `apply_gradients`."""
        with program_guard(loss.block.program, startup_program):
            return self.apply_gradients(params_grads)

    def apply_gradients(self, params_grads: Iterable[tuple[Parameter, Variable | None]]) -> list[Operator]:
        """Add to the default main program what clips, regularizes and applies gradients.

        Args:
            params_grads: as `backward` gives them; other variables may stand in the place of gradients.

        Returns:
            The operators of the update.
        """
        # By name, as Fluid sorts them since 1.0: the order of accumulators in the program follows.
        pairs = sorted(((p, g) for p, g in params_grads if g is not None), key=lambda pair: pair[0].name)
        clip = append_gradient_clip_ops if self._grad_clip is None else self._grad_clip
        return self._update(append_regularization_ops(clip(pairs), self.regularization))

    def _update(self, pairs: Pairs) -> list[Operator]:
        block = default_main_program().global_block()
        start = len(block.ops)
        self._create_accumulators([p for p, _ in pairs if p.trainable])
        self._create_global_learning_rate()
        with block.program.op_role_guard(OpRole.Optimize):
            for parameter, gradient in pairs:
                if parameter.trainable:
                    self._append_update(block, parameter, gradient)
            self._finish(block, [p for p, _ in pairs if p.trainable])
        return block.ops[start:]

    def _append_update(self, block: Block, parameter: Parameter, gradient: Variable) -> None:
        inputs: dict[str, Any] = {"Param": parameter, "Grad": gradient, **self.inputs()}
        outputs: dict[str, Any] = {"ParamOut": parameter}
        for accumulator in self.accumulators:
            variable = self._get_accumulator(accumulator.name, parameter)
            inputs[accumulator.input] = variable
            if accumulator.output is not None:
                outputs[accumulator.output] = variable
        if self.uses_rate:
            inputs["LearningRate"] = self._rate_of(parameter)
        block.append_op(self.type, inputs, outputs, self.attributes(parameter))

    def _finish(self, block: Block, parameters: Sequence[Parameter]) -> None:
        """Add what the rule's operator does not do by itself."""

    def _check_rate(self, program: Program) -> None:
        if isinstance(self._learning_rate, Variable) and program not in self._learning_rate_map:
            raise ValueError(
                f"the learning rate {self._learning_rate.name} is a variable of another program than the loss; build the "
                "schedule inside program_guard() of the program that is to be trained"
            )

    def _create_global_learning_rate(self) -> None:
        program = default_main_program()
        self._check_rate(program)
        if program in self._learning_rate_map:
            return
        self._learning_rate_map[program] = create_global_var(
            [1],
            float(self._learning_rate),
            "float32" if self._dtype is None else self._dtype,
            persistable=True,
            name=unique_name.generate("learning_rate"),
        )

    def _global_learning_rate(self, program: Program | None = None) -> Variable | None:
        return self._learning_rate_map.get(default_main_program() if program is None else program)

    def _rate_of(self, parameter: Parameter) -> Variable:
        """The learning rate of a parameter: the common one times the factor in its `ParamAttr`."""
        factor = parameter.optimize_attr["learning_rate"]
        if isinstance(factor, Variable):
            return factor
        rate = self._global_learning_rate()
        assert rate is not None
        if factor == 1.0:
            return rate
        block = rate.block.program.global_block()
        with block.program.op_role_guard(OpRole.Optimize | OpRole.LRSched):
            scaled = block.create_var(name=unique_name.generate("tmp"), dtype=rate.dtype, shape=rate.shape)
            block.append_op("scale", {"X": rate}, {"Out": scaled}, {"scale": float(factor)})
        return scaled

    def _create_accumulators(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            for each in self.accumulators:
                self._add_accumulator(
                    each.name, parameter, fill_value=each.fill, shape=[1] if each.scalar else parameter.shape
                )

    def _add_accumulator(
        self,
        name: str,
        param: Parameter,
        dtype: Any = None,
        fill_value: float = 0.0,
        shape: Sequence[int] | None = None,
    ) -> Variable:
        if self._name is not None:
            name = f"{self._name}_{name}"
        held = self._accumulators.setdefault(name, {})
        if param.name in held and held[param.name].block.program is param.block.program:
            raise ValueError(
                f"{type(self).__name__} optimizes {param.name} already, and has {held[param.name].name} for it: call "
                "minimize() once for each program, or make another optimizer"
            )
        helper = LayerHelper(type(self).__name__)
        variable = helper.create_global_variable(
            name=unique_name.generate(f"{param.name}_{name}"),
            shape=param.shape if shape is None else shape,
            dtype=param.dtype if dtype is None else dtype,
            persistable=True,
        )
        helper.set_variable_initializer(variable, Constant(float(fill_value)))
        held[param.name] = variable
        return variable

    def _get_accumulator(self, name: str, param: Parameter) -> Variable:
        if self._name is not None:
            name = f"{self._name}_{name}"
        if param.name not in self._accumulators.get(name, {}):
            raise ValueError(f"{type(self).__name__} has no accumulator {name} for {param.name}; call minimize() first")
        return self._accumulators[name][param.name]
