"""PaddlePaddle: layers, tensors, optimizers, schedulers, generators, and static programs in the scope of now.

Layers go by the names of their structure (`fc.weight`), which are the same in every process; those that Paddle counts
(`linear_0.w_0`) depend on what was made before. A static program has no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from holdfast.adapters import paddle_optim, paddle_schedulers, paddle_tensors
from holdfast.adapters.objects import References, object_problem
from holdfast.adapters.parameter_names import note_parameter
from holdfast.adapters.state import Arrays, Leaf, Mark, Value
from holdfast.format.values import Tagged

if TYPE_CHECKING:
    from holdfast.adapters.tree import Scanner

_CORE = paddle.framework.core
_PROGRAMS = (paddle.static.Program, paddle.base.framework.Program, _CORE.pir.Program)
_GENERATOR = "paddle.Generator"
_WORDS = 312  # of the 64-bit Mersenne Twister, whose text is so many words and a position


def visit(scanner: Scanner, node: Any, name: str, mark: Mark, container: Any, key: Any) -> bool:  # noqa: ARG001
    """See `Framework`."""
    if isinstance(node, paddle.Tensor):
        if not name:
            return False
        is_parameter = isinstance(node, paddle.base.framework.EagerParamBase) and not mark.fixed
        note_parameter(scanner, node, name, name, "")
        _add_tensor(scanner, node, name, Mark("parameter", not node.stop_gradient) if is_parameter else mark)
    elif isinstance(node, paddle.nn.Layer):
        kind = mark.kind if mark.fixed else "parameter"
        _add_layer(scanner, node, name, name, Mark(kind, mark.trainable or not mark.fixed))
    elif isinstance(node, paddle.optimizer.Optimizer):
        scanner.later(lambda: paddle_optim.add_optimizer(scanner, node, name or "optimizer", mark))
    elif isinstance(node, paddle.optimizer.lr.LRScheduler):
        _add_scheduler(scanner, node, name or "scheduler", mark)
    elif isinstance(node, _PROGRAMS):
        _add_program(scanner, node, name, mark)
    elif isinstance(node, _CORE.Generator):
        _add_generator(scanner, node, name or "generator")
    else:
        return False
    return True


def is_model(node: Any) -> bool:
    """See `Framework`."""
    return isinstance(node, (paddle.nn.Layer, paddle.base.framework.EagerParamBase, *_PROGRAMS))


def leaf(node: Any) -> Leaf | str | None:
    """See `Framework`."""
    return paddle_tensors.describe(node) if isinstance(node, paddle.Tensor) else None


def native(array: np.ndarray) -> Any:
    """See `Framework`."""
    return paddle_tensors.from_array(array)


def owns(node: Any) -> bool:
    """See `Framework`."""
    return any(kind.__module__.partition(".")[0] == "paddle" for kind in type(node).__mro__)


def _add_tensor(scanner: Scanner, tensor: Any, name: str, mark: Mark) -> None:
    first, _ = scanner.known.setdefault(("paddle tensor", mark.kind, id(tensor)), (name, tensor))
    if first != name:
        scanner.add_alias(name, first)
    else:
        leaf = paddle_tensors.describe(tensor)
        scanner.add_leaf(name, leaf, mark)
        if isinstance(leaf, Leaf) and leaf.access is None and leaf.array is not None and leaf.array.size:
            scanner.note_change(tensor, _bump)


def _bump(tensors: list[Any]) -> None:
    for tensor in tensors:
        tensor._bump_inplace_version()


def _add_layer(scanner: Scanner, layer: Any, name: str, root: str, mark: Mark) -> None:
    prefix = f"{name}." if name else ""
    for key, parameter in layer._parameters.items():
        if parameter is not None:
            full = prefix + key
            note_parameter(scanner, parameter, full, full.removeprefix(f"{root}.") if root else full, root)
            _add_tensor(scanner, parameter, full, Mark(mark.kind, mark.trainable and not parameter.stop_gradient))
    for key, buffer in layer._buffers.items():
        if buffer is not None and key not in layer._non_persistable_buffer_names_set:
            _add_tensor(scanner, buffer, prefix + key, Mark(mark.kind, False))
    for key, child in layer._sub_layers.items():
        if child is not None:
            is_wrapped = isinstance(layer, paddle.DataParallel) and key == "_layers"
            _add_layer(scanner, child, name if is_wrapped else prefix + key, root, mark)


def _add_scheduler(scanner: Scanner, scheduler: Any, name: str, mark: Mark) -> None:
    references = References(scanner, name, mark, paddle_optim.frameworks())
    tree = references.made_of(paddle_schedulers.state_of(scheduler))

    def problem(value: Any) -> str | None:
        return object_problem(value) or paddle_schedulers.problem(scheduler, value)

    def put(value: Any, arrays: Arrays) -> None:
        paddle_schedulers.give(scheduler, references.resolved(value, arrays, paddle_optim.frameworks()[0]))

    scanner.add(Value(name, tree, put, problem, is_object=True, identity=id(scheduler)))


def _add_program(scanner: Scanner, program: Any, name: str, mark: Mark) -> None:
    """The persistable variables of a static program, with their values in the scope of now (`paddle.static.scope_guard`)."""
    scope = paddle.static.global_scope()
    for variable in program.list_vars():
        if not variable.persistable:
            continue
        label = f"{name}.{variable.name}" if name else variable.name
        held = scope.find_var(variable.name)
        if held is None or not held.get_tensor()._is_initialized():
            scanner.refuse(label, "has no value in the scope of now: run the startup program first, in the same scope")
            continue
        tensor = held.get_tensor()
        ours = paddle_tensors.name_of(variable.dtype)
        if ours is None:
            scanner.refuse(label, f"dtype {variable.dtype} is not one that the format holds")
            continue
        kind = mark
        if not mark.fixed:
            is_parameter = bool(variable.is_parameter)
            kind = Mark("parameter" if is_parameter else "persistable", not (is_parameter and variable.stop_gradient))
        shape = tuple(tensor.shape())
        scanner.add_leaf(label, Leaf(ours, shape, None, paddle_tensors.InScope(tensor, ours)), kind)


def _add_generator(scanner: Scanner, generator: Any, name: str) -> None:
    device = generator.get_state().__getstate__()[0]

    def problem(value: Any) -> str | None:
        if not (isinstance(value, Tagged) and value.tag == "$random"):
            return "the checkpoint has a plain value there, the target a generator of Paddle"
        kind, state = value.value
        if kind != _GENERATOR or not isinstance(state, list) or len(state) != 4:
            return f"the checkpoint has the state of a {str(kind)[:60]}, the target is a {_GENERATOR}"
        if state[0] != device:
            return f"the checkpoint has a generator of device {str(state[0])[:20]}, the target one of {device}"
        return None if _is_state(state) else "its random state is not one that such a generator can have"

    def put(value: Any, _: Arrays) -> None:
        device, seed, offset, text = value.value[1]
        state = _CORE.GeneratorState.__new__(_CORE.GeneratorState)
        state.__setstate__((device, seed, offset, list(text.encode())))
        generator.set_state(state)

    device, seed, offset, text = generator.get_state().__getstate__()
    content = [device, seed, offset, bytes(text).decode("ascii")]
    scanner.add(Value(name, Tagged("$random", [_GENERATOR, content]), put, problem, identity=id(generator)))


def _is_state(state: list[Any]) -> bool:
    """Whether a generator can have it. The library looks at nothing: a position outside would read foreign memory."""
    _, seed, offset, text = state
    if type(seed) is not int or type(offset) is not int or not 0 <= seed < 1 << 64 or not 0 <= offset < 1 << 64:
        return False
    if type(text) is not str or len(text) > 8000:
        return False
    words = text.split(" ")
    if not text or not all(word.isascii() and word.isdigit() for word in words) or len(words) != _WORDS + 1:
        return not text and state[0] != -1  # a device's generator has its seed and offset only
    return all(int(word) < 1 << 64 for word in words) and int(words[-1]) <= _WORDS
