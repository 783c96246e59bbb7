"""CompiledProgram and ParallelExecutor: one program, data parallel over JAX's devices.

A batch is cut by rows over the devices, parameters are on each of them, and XLA adds up the gradients: the values are those of
one device with the whole batch. Fluid's are not quite: there a fetched loss has an entry for each device, and batch_norm
looks at a device's rows only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from holdfast.fluid.core import CPUPlace, CUDAPlace, Place
from holdfast.fluid.executor import Executor
from holdfast.fluid.framework import Program, default_main_program
from holdfast.fluid.scope import Scope


class ExecutionStrategy:
    """How Fluid's threads ran; every attribute is accepted, and XLA decides."""

    class ExecutorType(enum.Enum):
        """Kinds of Fluid's executors."""

        Default = 0
        Experimental = 1

    def __init__(self) -> None:
        self.num_threads = 0
        self.num_iteration_per_drop_scope = 1
        self.num_iteration_per_run = 1
        self.use_cuda = False
        self.allow_op_delay = False


class BuildStrategy:
    """How Fluid changed a program before it ran; every attribute is accepted, and XLA decides."""

    class ReduceStrategy(enum.Enum):
        """How gradients are added up."""

        AllReduce = 0
        Reduce = 1

    class GradientScaleStrategy(enum.Enum):
        """What a loss's gradient begins with."""

        CoeffNumDevice = 0
        One = 1
        Customized = 2

    def __init__(self) -> None:
        self.reduce_strategy = self.ReduceStrategy.AllReduce
        self.gradient_scale_strategy = self.GradientScaleStrategy.CoeffNumDevice
        self.debug_graphviz_path = ""
        self.memory_optimize: bool | None = None
        self.enable_inplace: bool | None = None


class CompiledProgram:
    """A program with the devices that it runs on.

    Attributes:
        program: as given.
        devices: None for one device.
    """

    def __init__(self, program_or_graph: Any, build_strategy: BuildStrategy | None = None) -> None:
        program = getattr(program_or_graph, "program", program_or_graph)
        if not isinstance(program, Program):
            raise TypeError(f"CompiledProgram needs a fluid.Program, not {program_or_graph!r}")
        self.program: Program = program
        self.devices: list[jax.Device] | None = None

    def with_data_parallel(
        self,
        loss_name: str | None = None,
        build_strategy: BuildStrategy | None = None,
        exec_strategy: ExecutionStrategy | None = None,
        share_vars_from: Any = None,
        places: Sequence[Place] | Place | None = None,
    ) -> CompiledProgram:
        """Run the program on several devices.

        Args:
            loss_name, build_strategy, exec_strategy, share_vars_from: accepted as Fluid has them; values are shared through
                the scope anyway.
            places: None for every device that JAX sees.
        """
        if places is None:
            self.devices = list(jax.local_devices())
        else:
            given = [places] if isinstance(places, Place) else list(places)
            self.devices = list(dict.fromkeys(p.device() for p in given))
        return self

    def with_inference_optimize(self, config: Any) -> CompiledProgram:
        """The program itself: XLA optimises it anyway."""
        return self


class ParallelExecutor:
    """Runs one program on several devices, in the style before `CompiledProgram`.

    Args:
        use_cuda: GPUs instead of the CPU.
        loss_name: accepted as Fluid has it.
        main_program: None for the default.
        share_vars_from: accepted as Fluid has it; values are shared through the scope.
        num_trainers: 1.
        scope: None for the global one at each run.

    Raises:
        RuntimeError: `use_cuda`, and JAX sees no GPU.
        NotImplementedError: more than one trainer.
    """

    def __init__(
        self,
        use_cuda: bool,
        loss_name: str | None = None,
        main_program: Program | None = None,
        share_vars_from: ParallelExecutor | None = None,
        exec_strategy: ExecutionStrategy | None = None,
        build_strategy: BuildStrategy | None = None,
        num_trainers: int = 1,
        trainer_id: int = 0,
        scope: Scope | None = None,
    ) -> None:
        if num_trainers != 1:
            raise NotImplementedError(
                f"num_trainers={num_trainers}: several trainers are planned and not supported yet"
            )
        place: Place = CUDAPlace(0) if use_cuda else CPUPlace()
        self._executor = Executor(place)
        self._scope = scope
        self._compiled = CompiledProgram(main_program or default_main_program())
        self._compiled.devices = list(jax.local_devices(backend=place.device().platform))

    @property
    def device_count(self) -> int:
        """How many devices there are."""
        return len(self._compiled.devices or ())

    def run(
        self,
        fetch_list: Sequence[Any],
        feed: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        feed_dict: Mapping[str, Any] | None = None,
        return_numpy: bool = True,
    ) -> list[Any]:
        """Run the program once; see `Executor.run`. A list of feeds, one for each device, is joined."""
        given = feed if feed is not None else feed_dict
        return self._executor.run(
            self._compiled, feed=given, fetch_list=fetch_list, scope=self._scope, return_numpy=return_numpy
        )

    def drop_local_exe_scopes(self) -> None:
        """Nothing to do: temporaries do not outlive a run."""
