"""Blocks that run only if a condition holds: Switch, cond, case, switch_case; and Print.

Each is a `conditional_block` operator. Its inputs list everything that the block reads from outside, and the values that its
outputs have before, as it keeps them where the condition does not hold.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax import tree_util

from holdfast.fluid.core import VarType
from holdfast.fluid.framework import Block, Variable
from holdfast.fluid.layer_helper import LayerHelper
from holdfast.fluid.layers.compare import equal, logical_and, logical_not
from holdfast.fluid.layers.tensor import assign, cast, fill_constant


@contextlib.contextmanager
def conditional_block(condition: Variable) -> Iterator[Block]:
    """Layers inside are added to a block that runs only if the condition, bool of shape [1], holds."""
    program = condition.block.program
    LayerHelper("conditional_block")
    block = program._create_block()
    try:
        yield block
    except BaseException:
        program._rollback()
        program.blocks.remove(block)
        raise
    program._rollback()
    around = program.current_block()
    add_conditional_block(around, block, condition, around.create_var(type=VarType.STEP_SCOPES))


def add_conditional_block(around: Block, block: Block, condition: Any, scope: Any) -> None:
    """Add the operator that runs a finished block.

    Args:
        around: the block in which it runs.
        block: the finished one.
        condition: a variable, or its name.
        scope: the variable that Fluid's operator has for its temporaries, or its name; nothing is put into it.
    """
    reads, writes = outer_names(block)
    before = {name for b in _chain(around) for op in b.ops for name in op.output_arg_names}
    for name in writes:
        variable = around._var_recursive(name)
        if name not in reads and (name in before or variable.persistable or variable.is_data):
            reads.append(name)
    around.append_op(
        "conditional_block",
        inputs={"Cond": [condition], "Input": reads},
        outputs={"Out": writes, "Scope": [scope]},
        attrs={"sub_block": block.idx, "is_scalar_condition": True},
    )


def _chain(block: Block | None) -> Iterator[Block]:
    while block is not None:
        yield block
        block = block.parent


def outer_names(block: Block) -> tuple[list[str], list[str]]:
    """The names from outside that a block reads before it writes them, and those that it writes."""
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for op in block.ops:
        for name in op.input_arg_names:
            if name not in block.vars and name not in writes:
                reads.setdefault(name)
        for slot, names in op.outputs.items():
            if slot != "Scope":
                for name in names:
                    if name not in block.vars:
                        writes.setdefault(name)
    return list(reads), list(writes)


class Switch:
    """Cases that are tried in order; the layers of the first whose condition holds run.

    Example:
        >>> import holdfast.fluid as fluid
        >>> from holdfast.fluid import layers
        >>> with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard():
        ...     rate = layers.create_global_var([1], 0.0, "float32", persistable=True, name="rate")
        ...     step = layers.autoincreased_step_counter()
        ...     with layers.Switch() as switch:
        ...         with switch.case(layers.less_than(step, layers.fill_constant([1], "int64", 100))):
        ...             _ = layers.assign(layers.fill_constant([1], "float32", 0.1), rate)
        ...         with switch.default():
        ...             _ = layers.assign(layers.fill_constant([1], "float32", 0.01), rate)
    """

    def __init__(self, name: str | None = None) -> None:
        self.helper = LayerHelper("switch", name=name)
        self._inside = False
        self._none_before: Variable | None = None  # whether no case so far held

    def __enter__(self) -> Switch:
        self._inside = True
        return self

    def __exit__(self, *_: object) -> None:
        self._inside = False

    @contextlib.contextmanager
    def case(self, condition: Variable) -> Iterator[None]:
        """The layers inside run if the condition, bool of shape [1], holds, and none before did."""
        if not self._inside:
            raise ValueError("case() must stand inside `with fluid.layers.Switch() as switch:`")
        if self._none_before is None:
            self._none_before = logical_not(condition)
            chosen = condition
        else:
            none_before = self._none_before
            self._none_before = logical_and(none_before, logical_not(condition))
            chosen = logical_and(none_before, condition)
        with conditional_block(chosen):
            yield

    @contextlib.contextmanager
    def default(self) -> Iterator[None]:
        """The layers inside run if no case's condition holds."""
        if self._none_before is None:
            raise ValueError("default() must come after a case()")
        with conditional_block(self._none_before):
            yield


def cond(
    pred: Variable,
    true_fn: Callable[[], Any] | None = None,
    false_fn: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """What one of two functions adds to the program, chosen by a condition at run time.

    Args:
        pred: bool, shape [1].
        true_fn, false_fn: add layers, and return a variable, or a list, tuple or dict of variables, of one structure.
        name: without effect.

    Raises:
        TypeError: `true_fn` or `false_fn` cannot be called.
        ValueError: what they return does not have the same structure.
    """
    LayerHelper("cond", name=name)
    results: list[Any] = []
    for label, function in (("true_fn", true_fn), ("false_fn", false_fn)):
        if function is None:
            results.append(None)
            continue
        if not callable(function):
            raise TypeError(f"cond: {label} must be a function, not {function!r}")
        condition = pred if label == "true_fn" else logical_not(pred)
        with conditional_block(condition) as block:
            found = function()
            results.append(None if found is None else tree_util.tree_map(functools.partial(_passed_out, block), found))
    chosen, other = results
    if chosen is None and other is None:
        return None
    structures: list[Any] = [tree_util.tree_structure(result) for result in (chosen, other)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"Incompatible return values of true_fn and false_fn in cond: {structures[0]} and {structures[1]}"
        )
    number = cast(pred, "int32")
    return tree_util.tree_map(lambda no, yes: _selected([no, yes], number), other, chosen)


def _passed_out(block: Block, variable: Variable) -> Variable:
    assert block.parent is not None
    out = block.parent.create_var(dtype=variable.dtype, shape=variable.shape)
    assign(variable, out)
    return out


def _selected(inputs: list[Variable], number: Variable) -> Variable:
    helper = LayerHelper("select_input")
    out = helper.create_variable(dtype=inputs[0].dtype, shape=inputs[0].shape)
    helper.append_op("select_input", {"X": inputs, "Mask": [number]}, {"Out": [out]})
    return out


def case(
    pred_fn_pairs: Sequence[tuple[Variable, Callable[[], Any]]],
    default: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """What the function of the first condition that holds returns.

    Args:
        pred_fn_pairs: conditions (bool, shape [1]) with their functions.
        default: for the case that none holds; the last function if None.
        name: without effect.
    """
    LayerHelper("case", name=name)
    pairs: list[Any] = list(pred_fn_pairs)
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Variable) and callable(pair[1])):
            raise TypeError(f"case needs tuples of a condition and a function, not {pair!r}")
    if default is None:
        default = pairs.pop()[1]
    elif not callable(default):
        raise TypeError(f"case: the default must be a function, not {default!r}")
    chosen = default
    for condition, function in reversed(pairs):
        chosen = functools.partial(cond, pred=condition, true_fn=function, false_fn=chosen)
    return chosen()


def switch_case(
    branch_index: Variable,
    branch_fns: Any,
    default: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """What the function of a number returns.

    Args:
        branch_index: int32 or int64, shape [1].
        branch_fns: functions by number: a dict, a list of pairs, or a list of functions.
        default: for other numbers; the function of the highest number if None.
        name: without effect.
    """
    LayerHelper("switch_case", name=name)
    if branch_index.dtype not in (VarType.UINT8, VarType.INT32, VarType.INT64):
        raise TypeError(f"switch_case: {branch_index.name} must be int32 or int64, not {branch_index.dtype.name}")
    if isinstance(branch_fns, Mapping):
        pairs = list(branch_fns.items())
    else:
        pairs = [p if isinstance(p, tuple) else (i, p) for i, p in enumerate(branch_fns)]
    if not pairs or not all(isinstance(k, int) and callable(f) for k, f in pairs) or len(dict(pairs)) != len(pairs):
        raise TypeError("switch_case needs functions by number, each number once")
    pairs.sort(key=lambda pair: pair[0])
    if default is None:
        default = pairs[-1][1]
        pairs = pairs[:-1]
    if branch_index.dtype != VarType.INT64:
        branch_index = cast(branch_index, "int64")
    chosen = [(equal(branch_index, fill_constant([1], "int64", number)), function) for number, function in pairs]
    result = default
    for condition, function in chosen:
        result = functools.partial(cond, pred=condition, true_fn=function, false_fn=result)
    return result()


def Print(
    input: Variable,
    first_n: int = -1,
    message: str | None = None,
    summarize: int = 20,
    print_tensor_name: bool = True,
    print_tensor_type: bool = True,
    print_tensor_shape: bool = True,
    print_tensor_lod: bool = True,
    print_phase: str = "both",
) -> Variable:
    """The tensor itself; every run of the program prints it.

    Args:
        input: the tensor.
        first_n: print only so many times; -1 for always.
        message: stands before it.
        summarize: how many elements; -1 for all.
        print_tensor_name, print_tensor_type, print_tensor_shape: what of it.
        print_tensor_lod: accepted as Fluid has it; there are no sequences yet.
        print_phase: `forward`, `backward` or `both`; gradients are not printed.
    """
    helper = LayerHelper("print_" + input.name)
    attrs = {
        "first_n": first_n,
        "summarize": summarize,
        "message": message or "",
        "print_tensor_name": print_tensor_name,
        "print_tensor_type": print_tensor_type,
        "print_tensor_shape": print_tensor_shape,
        "print_tensor_lod": print_tensor_lod,
        "print_phase": print_phase.upper(),
    }
    return helper.op("print", {"In": [input]}, attrs)
