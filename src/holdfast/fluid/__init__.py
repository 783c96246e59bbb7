"""A Fluid-style front end: Programs that are built first, compiled with JAX, and run by an Executor on a Scope."""

from holdfast.fluid import backward, core, framework, initializer, layers, ops, regularizer, unique_name
from holdfast.fluid.backward import append_backward, gradients
from holdfast.fluid.checks import HazardWarning, OverwriteError
from holdfast.fluid.compiler import BuildStrategy, CompiledProgram, ExecutionStrategy, ParallelExecutor
from holdfast.fluid.core import CPUPlace, CUDAPinnedPlace, CUDAPlace, is_compiled_with_cuda
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
from holdfast.fluid.param_attr import ParamAttr, WeightNormParamAttr
from holdfast.fluid.reader import DataLoader, PyReader
from holdfast.fluid.scope import LoDTensor, Scope, global_scope, scope_guard
