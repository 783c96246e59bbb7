"""Inferencer: predicts with parameters that a Trainer saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.fluid import core, unique_name
from holdfast.fluid.executor import Executor
from holdfast.fluid.framework import Program, program_guard
from holdfast.fluid.io import variables
from holdfast.fluid.scope import Scope, scope_guard
from holdfast.fluid.trainer import check_and_get_place, on_all_devices

__all__ = ["Inferencer"]


class Inferencer:
    """A program for prediction, with parameters of its own.

    Args:
        infer_func: builds the program, as it was built for training; returns what is predicted.
        param_path: what `Trainer.save_params` or `fluid.io.save_params` wrote.
        place: None for a GPU if there is one, else the CPU.
        parallel: whether to use all devices of the place's kind.

    Raises:
        CheckpointNotFoundError, MismatchError: as `fluid.io.load_params`.
    """

    def __init__(
        self,
        infer_func: Callable[[], Any],
        param_path: str | os.PathLike[str],
        place: core.Place | None = None,
        parallel: bool = False,
    ) -> None:
        self.param_path = param_path
        self.scope = Scope()
        self.parallel = parallel
        self.place = check_and_get_place(place)
        self.exe = Executor(self.place)
        built = Program()
        with program_guard(built, Program()), unique_name.guard():
            self.predict_var = infer_func()
        self.inference_program = built.clone(for_test=True)
        with scope_guard(self.scope):
            variables.load_params(self.exe, param_path, self.inference_program)

    def infer(self, inputs: Mapping[str, Any], return_numpy: bool = True) -> list[Any]:
        """Predict.

        Args:
            inputs: an array for every data variable, by name.
            return_numpy: False gives `LoDTensor` objects.

        Returns:
            The values of what `infer_func` returned.

        Raises:
            ValueError: the inputs are no dict, or do not fit the data variables.
        """
        if not isinstance(inputs, Mapping):
            raise ValueError("inputs should be a map of {'input_name': input_var}")  # noqa: TRY004 - as Fluid does
        wanted = self.predict_var if isinstance(self.predict_var, list | tuple) else [self.predict_var]
        program: Any = self.inference_program
        with scope_guard(self.scope):
            if self.parallel:
                program = on_all_devices(program, self.place)
            return self.exe.run(program, feed=dict(inputs), fetch_list=list(wanted), return_numpy=return_numpy)
