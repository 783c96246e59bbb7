"""PyTorch: modules, tensors, optimizers and generators in a state.

All that a module's `state_dict()` holds are parameters: buffers with trainable=False, as Fluid has it for moving statistics,
and so are those with requires_grad=False. Wrappers (DDP, FSDP, torch.compile, activation checkpointing, AveragedModel) leave
no trace in the names: they are known by their types, so a layer of the user's own that is called `module` keeps its name.
"""

from __future__ import annotations

import base64
import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.adapters import torch_data, torch_objects, torch_optim, torch_tensors
from holdfast.adapters.objects import References, add_object, tags
from holdfast.adapters.parameter_names import note_parameter
from holdfast.adapters.state import Arrays, Leaf, Mark, Value
from holdfast.format.values import Tagged, UnsupportedValueError, encode

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

log = logging.getLogger(__name__)
_GENERATOR = "torch.Generator"

# Type → the child whose own name is left out. Whoever has such a module has loaded where it comes from.
_WRAPPERS = (
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel", "_fsdp_wrapped_module"),
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.distributed.algorithms._checkpoint.checkpoint_wrapper", "ActivationWrapper", "_checkpoint_wrapped_module"),
    ("torch.optim.swa_utils", "AveragedModel", "module"),
)

_FULLY_SHARDED = (("torch.distributed.fsdp", "FSDPModule"), ("torch.distributed._composable.fsdp", "FSDPModule"))


def visit(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:  # noqa: ARG001
    """See `Framework`."""
    if isinstance(node, torch.Tensor):
        if not name:
            return False
        is_parameter = isinstance(node, torch.nn.Parameter) and not mark.fixed
        if is_parameter:
            mark = Mark("parameter", node.requires_grad)
        note_parameter(scanner, node, name, name, "")
        _add_tensor(scanner, node, name, mark)
    elif isinstance(node, torch.nn.Module):
        kind = mark.kind if mark.fixed else "parameter"
        _add_module(scanner, node, name, name, Mark(kind, mark.trainable or not mark.fixed))
    elif isinstance(node, torch.optim.Optimizer):
        scanner.later(lambda: torch_optim.add_optimizer(scanner, node, name or "optimizer", mark))
    elif isinstance(node, torch.Generator):
        _add_generator(scanner, node, name or "generator")
    elif (loader := torch_data.as_object(node, is_target=scanner.is_target)) is not None:
        loader = scanner.known.setdefault(("loader", id(node)), loader)
        add_object(scanner, name or "loader", loader, mark, [sys.modules[__name__]], replaces=True)
    elif isinstance(node, torch.amp.GradScaler):
        problem = torch_objects.scaler_fit(node)
        add_object(scanner, name or "scaler", node, mark, [sys.modules[__name__]], problem=problem)
    elif torch_objects.is_scheduler(node):
        # After its optimizer, in the scan and so in the load: it counts the groups of that by position.
        problem = torch_objects.scheduler_fit(scanner, node)
        add = lambda: add_object(scanner, name or "scheduler", node, mark, [sys.modules[__name__]], problem=problem)  # noqa: E731
        scanner.later(lambda: scanner.later(add))
    else:
        return False
    return True


def is_model(node: Any) -> bool:
    """See `Framework`."""
    return isinstance(node, torch.nn.Module | torch.nn.Parameter)


def leaf(node: Any) -> Leaf | str | None:
    """See `Framework`."""
    return torch_tensors.describe(node) if isinstance(node, torch.Tensor) else None


def native(array: np.ndarray) -> torch.Tensor:
    """See `Framework`."""
    return torch_tensors.from_array(array)


def owns(node: Any) -> bool:
    """See `Framework`."""
    origins = (kind.__module__.partition(".")[0] for kind in type(node).__mro__)
    return isinstance(node, torch_data.Loader) or any(origin in ("torch", "torchdata") for origin in origins)


def _add_tensor(scanner: Scanner, tensor: torch.Tensor, name: str, mark: Mark) -> None:
    leaf = torch_tensors.describe(tensor)
    known = ("torch tensor", mark.kind, torch_tensors.identity(tensor, leaf))
    first, _ = scanner.known.setdefault(known, (name, tensor))  # the tensor too: what is alive keeps its id
    if first != name:
        scanner.add_alias(name, first)
    else:
        scanner.add_leaf(name, leaf, mark)
        if isinstance(leaf, Leaf) and leaf.access is None and not tensor.is_inference():
            scanner.note_change(tensor, torch.autograd.graph.increment_version)


def _add_module(scanner: Scanner, module: torch.nn.Module, name: str, root: str, mark: Mark) -> None:
    if reason := _refusal(module):
        scanner.refuse(name, reason)
        return
    if _is_one_of(module, _FULLY_SHARDED):
        module.reshard()  # else what it computes with is seen, which may be of another dtype, and is thrown away
    prefix = f"{name}." if name else ""
    for key, parameter in module._parameters.items():
        if parameter is not None:
            full = prefix + key
            short = full.removeprefix(f"{root}.") if root else full
            note_parameter(scanner, parameter, full, short, root)
            _add_tensor(scanner, parameter, full, Mark(mark.kind, mark.trainable and parameter.requires_grad))
    for key, buffer in module._buffers.items():
        if buffer is None:
            continue
        if key not in module._non_persistent_buffers_set:
            _add_tensor(scanner, buffer, prefix + key, Mark(mark.kind, False))
        elif buffer.is_meta:
            log.warning("%s is a buffer that no checkpoint has, and on the meta device: give it values", prefix + key)
    if type(module).get_extra_state is not torch.nn.Module.get_extra_state:
        _add_extra_state(scanner, module, f"{prefix}_extra_state", mark)
    passed = _passed_over(module)
    for key, child in module._modules.items():
        if child is not None:
            _add_module(scanner, child, name if key == passed else prefix + key, root, mark)


def _passed_over(module: torch.nn.Module) -> str | None:
    return next((child for origin, kind, child in _WRAPPERS if _is_one_of(module, [(origin, kind)])), None)


def _is_one_of(node: Any, kinds: Iterable[tuple[str, str]]) -> bool:
    """Whether this is of one of these types, of modules that the program has loaded."""
    return any(
        origin in sys.modules and isinstance(node, getattr(sys.modules[origin], kind, ())) for origin, kind in kinds
    )


def _refusal(module: torch.nn.Module) -> str | None:
    """Why what a module holds cannot be found by looking at it."""
    if _passed_over(module) == "_fsdp_wrapped_module":
        if not getattr(module, "_use_orig_params", True):
            return "an FSDP module whose parameters are flattened; make it with use_orig_params=True"
        return None
    if _passed_over(module) or not _says_itself_what_it_saves(module):
        return None
    held = _held(module)
    known = {torch_tensors.identity(tensor) for tensor in held.values() if tensor is not None}
    if hidden := [
        str(key)
        for key, value in module.state_dict().items()
        if key not in held and not (isinstance(value, torch.Tensor) and torch_tensors.identity(value) in known)
    ]:
        return (
            f"a {type(module).__name__} saves {', '.join(hidden[:10])} in a way of its own, which no checkpoint can hold; "
            "get_extra_state() and set_extra_state() are one that it can"
        )
    return None


def _says_itself_what_it_saves(module: torch.nn.Module) -> bool:
    base = torch.nn.Module
    methods = ((module.state_dict, base.state_dict), (module._save_to_state_dict, base._save_to_state_dict))
    if any(getattr(method, "__func__", None) is not known for method, known in methods):
        return True
    return bool(module._state_dict_hooks or module._state_dict_pre_hooks)


def _held(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """What is found of a module by looking at it, under the names of `state_dict()`."""
    held: dict[str, torch.Tensor | None] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        held |= {prefix + key: parameter for key, parameter in part._parameters.items()}
        passing = part._non_persistent_buffers_set
        held |= {prefix + key: buffer for key, buffer in part._buffers.items() if key not in passing}
        held[f"{prefix}_extra_state"] = None
    return held


def _add_extra_state(scanner: Scanner, module: Any, name: str, mark: Mark) -> None:
    references = References(scanner, name, mark, [sys.modules[__name__]])
    known = scanner.known.get(("extra state", id(module)))
    if known is None:
        held = module.get_extra_state()
        known = held, references.made_of(held, name if isinstance(held, dict) else f"{name}.value")
        scanner.known["extra state", id(module)] = known
    held, tree = known
    try:
        encode(tree)
    except UnsupportedValueError as error:
        scanner.refuse(name + error.where, f"in get_extra_state(): {error}")
        return

    def put(value: Any, arrays: Arrays) -> None:
        module.set_extra_state(references.resolved(value, arrays, sys.modules[__name__], held))

    def problem(value: Any) -> str | None:
        return "the checkpoint has the state of a generator there" if "$random" in tags(value) else None

    scanner.add(Value(name, tree, put, problem, is_object=True, identity=id(module), replaces=True))


def _add_generator(scanner: Scanner, generator: torch.Generator, name: str) -> None:
    def problem(value: Any) -> str | None:
        if not (isinstance(value, Tagged) and value.tag == "$random"):
            return "the checkpoint has a plain value there, the target a torch.Generator"
        kind, state = value.value
        if kind != _GENERATOR or not isinstance(state, list) or len(state) != 2:
            return f"the checkpoint has the state of a {str(kind)[:60]}, the target is a {_GENERATOR}"
        if state[0] != generator.device.type:
            return f"the checkpoint has a generator of {str(state[0])[:20]}, the target one of {generator.device.type}"
        try:
            torch.Generator(device=generator.device).set_state(_state_of(state))
        except (RuntimeError, ValueError, TypeError) as error:
            return f"its random state does not fit: {error}"
        return None

    content = base64.b64encode(generator.get_state().numpy().tobytes()).decode()
    value = Tagged("$random", [_GENERATOR, [generator.device.type, content]])
    scanner.add(
        Value(name, value, lambda v, _: generator.set_state(_state_of(v.value[1])), problem, identity=id(generator))
    )


def _state_of(state: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(state[1], validate=True)), dtype=torch.uint8)
