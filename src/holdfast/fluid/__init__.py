"""A Fluid-style front end: Programs that are built first, compiled with JAX, and run by an Executor on a Scope."""

from importlib.util import find_spec as _find_spec

from holdfast.errors import MissingExtraError as _MissingExtraError

if _find_spec("jax") is None:
    raise _MissingExtraError("holdfast.fluid needs JAX: pip install 'holdfast[fluid]'")

from holdfast.fluid import (
    average,
    backward,
    clip,
    core,
    evaluator,
    framework,
    initializer,
    io,
    layers,
    math_op_patch as _operators,  # noqa: F401 - gives variables their + and [ ]
    metrics,
    nets,
    ops,
    optimizer,
    profiler,
    regularizer,
    transpiler,
    unique_name,
    unsupported,
)
from holdfast.fluid.backward import append_backward, gradients
from holdfast.fluid.checks import HazardWarning, OverwriteError
from holdfast.fluid.compiler import BuildStrategy, CompiledProgram, ExecutionStrategy, ParallelExecutor
from holdfast.fluid.core import CPUPlace, CUDAPinnedPlace, CUDAPlace, is_compiled_with_cuda
from holdfast.fluid.data import data
from holdfast.fluid.data_feeder import DataFeeder
from holdfast.fluid.executor import Executor
from holdfast.fluid.framework import (
    Program,
    Variable,
    cpu_places,
    cuda_places,
    default_main_program,
    default_startup_program,
    in_dygraph_mode,
    name_scope,
    program_guard,
)
from holdfast.fluid.inferencer import Inferencer
from holdfast.fluid.input import embedding, one_hot
from holdfast.fluid.layers import learning_rate_scheduler as learning_rate_decay
from holdfast.fluid.lod_tensor import create_lod_tensor, create_random_int_lodtensor
from holdfast.fluid.options import cuda_pinned_places, device_guard, get_flags, require_version, set_flags
from holdfast.fluid.param_attr import ParamAttr, WeightNormParamAttr
from holdfast.fluid.reader import DataLoader, PyReader
from holdfast.fluid.saving import load, load_program_state, save, set_program_state
from holdfast.fluid.scope import LoDTensor, Scope, Tensor, global_scope, scope_guard
from holdfast.fluid.trainer import (
    BeginEpochEvent,
    BeginStepEvent,
    CheckpointConfig,
    EndEpochEvent,
    EndStepEvent,
    Trainer,
)
from holdfast.fluid.transpiler import memory_optimize, release_memory

__all__ = [
    "BeginEpochEvent",
    "BeginStepEvent",
    "BuildStrategy",
    "CPUPlace",
    "CUDAPinnedPlace",
    "CUDAPlace",
    "CheckpointConfig",
    "CompiledProgram",
    "DataFeeder",
    "DataLoader",
    "EndEpochEvent",
    "EndStepEvent",
    "ExecutionStrategy",
    "Executor",
    "HazardWarning",
    "Inferencer",
    "LoDTensor",
    "OverwriteError",
    "ParallelExecutor",
    "ParamAttr",
    "Program",
    "PyReader",
    "Scope",
    "Tensor",
    "Trainer",
    "Variable",
    "WeightNormParamAttr",
    "append_backward",
    "average",
    "backward",
    "clip",
    "core",
    "cpu_places",
    "create_lod_tensor",
    "create_random_int_lodtensor",
    "cuda_pinned_places",
    "cuda_places",
    "data",
    "default_main_program",
    "default_startup_program",
    "device_guard",
    "embedding",
    "evaluator",
    "framework",
    "get_flags",
    "global_scope",
    "gradients",
    "in_dygraph_mode",
    "initializer",
    "io",
    "is_compiled_with_cuda",
    "layers",
    "learning_rate_decay",
    "load",
    "load_program_state",
    "memory_optimize",
    "metrics",
    "name_scope",
    "nets",
    "one_hot",
    "ops",
    "optimizer",
    "profiler",
    "program_guard",
    "regularizer",
    "release_memory",
    "require_version",
    "save",
    "scope_guard",
    "set_flags",
    "set_program_state",
    "transpiler",
    "unique_name",
]

# Names that are planned, or not: they say so when they are called.
globals().update(unsupported.stubs("fluid"))
globals().update(unsupported.modules())
