"""`fluid.io`: saving and loading of a program's variables, checkpoints and models for prediction."""

from holdfast.fluid.io.checkpoints import (
    clean_checkpoint,
    get_latest_checkpoint_serial,
    load_checkpoint,
    load_persist_vars_without_grad,
    load_trainer_args,
    save_checkpoint,
    save_persist_vars_without_grad,
)
from holdfast.fluid.io.ends import append_fetch_ops, prepend_feed_ops
from holdfast.fluid.io.held import UnsavableError
from holdfast.fluid.io.inference import get_inference_program, save_inference_model
from holdfast.fluid.io.inference_loading import ScopeConflictError, load_inference_model
from holdfast.fluid.io.selecting import (
    get_program_parameter,
    get_program_persistable_vars,
    is_belong_to_optimizer,
    is_checkpoint_variable,
    is_parameter,
    is_persistable,
)
from holdfast.fluid.io.sources import saved_names
from holdfast.fluid.io.variables import (
    get_parameter_value,
    get_parameter_value_by_name,
    load_params,
    load_persistables,
    load_vars,
    save_params,
    save_persistables,
    save_vars,
)
from holdfast.fluid.paddle.batch import batch
from holdfast.fluid.paddle.reader import (
    ComposeNotAligned,
    buffered,
    cache,
    chain,
    compose,
    firstn,
    map_readers,
    multiprocess_reader,
    shuffle,
    xmap_readers,
)
from holdfast.fluid.reader import DataLoader, PyReader
from holdfast.fluid.saving import load, load_program_state, save, set_program_state

__all__ = [
    "ComposeNotAligned",
    "DataLoader",
    "PyReader",
    "ScopeConflictError",
    "UnsavableError",
    "append_fetch_ops",
    "batch",
    "buffered",
    "cache",
    "chain",
    "clean_checkpoint",
    "compose",
    "firstn",
    "get_inference_program",
    "get_latest_checkpoint_serial",
    "get_parameter_value",
    "get_parameter_value_by_name",
    "get_program_parameter",
    "get_program_persistable_vars",
    "is_belong_to_optimizer",
    "is_checkpoint_variable",
    "is_parameter",
    "is_persistable",
    "load",
    "load_checkpoint",
    "load_inference_model",
    "load_params",
    "load_persist_vars_without_grad",
    "load_persistables",
    "load_program_state",
    "load_trainer_args",
    "load_vars",
    "map_readers",
    "multiprocess_reader",
    "prepend_feed_ops",
    "save",
    "save_checkpoint",
    "save_inference_model",
    "save_params",
    "save_persist_vars_without_grad",
    "save_persistables",
    "save_vars",
    "saved_names",
    "set_program_state",
    "shuffle",
    "xmap_readers",
]
