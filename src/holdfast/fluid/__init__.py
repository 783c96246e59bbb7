"""A Fluid-style front end: Programs that are built first, compiled with JAX, and run by an Executor on a Scope."""

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
    math_op_patch,
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

globals().update(unsupported.stubs("fluid"))
globals().update(unsupported.modules())
