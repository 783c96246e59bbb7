"""Copies of programs: whole, for tests, or pruned to what some targets need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.fluid import registry
from holdfast.fluid.framework import (
    RANDOM_STATE,
    Block,
    Operator,
    OpRole,
    Parameter,
    Program,
    Variable,
    uses_random_state,
)

_TRAINING = OpRole.Backward | OpRole.Optimize | OpRole.LRSched


def clone(program: Program, *, for_test: bool) -> Program:
    """See `Program.clone`."""
    if not for_test:
        return _copy(program, lambda op: True)
    made = _copy(program, lambda op: not op.role & _TRAINING)
    _set_test(made)
    _drop_unused(made, program)
    return made


def _set_test(program: Program) -> None:
    for op in program.all_ops():
        if registry.exists(op.type) and "is_test" in registry.find(op.type).attrs:
            op.attrs["is_test"] = True


def _copy(program: Program, keep: Callable[[Operator], bool]) -> Program:
    made = Program()
    made._seed = program._seed
    made.current_block_idx = program.current_block_idx
    made.blocks = [Block(made, b.idx, b.parent_idx) for b in program.blocks]
    for old, new in zip(program.blocks, made.blocks, strict=True):
        for name, variable in old.vars.items():
            new.vars[name] = _copy_variable(variable, new)
        for op in old.ops:
            if keep(op):
                new.ops.append(copy_operator(op, new))
    for block in made.blocks:
        for op in block.ops:
            for name in op.output_arg_names:
                if (made_by := block.find(name)) is not None:
                    made_by.op = op
    made.feeders = list(program.feeders)
    made.feed_names, made.fetch_names = list(program.feed_names), list(program.fetch_names)
    return made


def _copy_variable(variable: Variable, block: Block) -> Variable:
    made = copy.copy(variable)
    made.block, made.op = block, None
    if isinstance(made, Parameter):
        made.optimize_attr = dict(made.optimize_attr)
    return made


def copy_operator(op: Operator, block: Block) -> Operator:
    """The same operator for another block; it keeps its uid."""
    return Operator(block, op.type, op.inputs, op.outputs, op.attrs, uid=op.uid)


def _drop_unused(made: Program, original: Program) -> None:
    """Remove variables that operators of the original named, and none of the copy does."""
    named = {name for op in original.all_ops() for name in (*op.input_arg_names, *op.output_arg_names)}
    still = {name for op in made.all_ops() for name in (*op.input_arg_names, *op.output_arg_names)}
    random = any(uses_random_state(op) for op in made.all_ops())
    for block in made.blocks:
        for name, variable in list(block.vars.items()):
            gone = name in named - still and not isinstance(variable, Parameter) and not variable.is_data
            if gone or (name == RANDOM_STATE and not random):
                del block.vars[name]


def prune(program: Program, targets: Any, feeds: Iterable[str] = ()) -> Program:
    """A copy that has only what computes the targets.

    Args:
        program: stays as it is.
        targets: variables, or their names.
        feeds: names of variables that are given; what computes them is left out.
    """
    needed = {
        t.name if isinstance(t, Variable) else str(t)
        for t in (targets if isinstance(targets, list | tuple) else [targets])
    }
    fed = set(feeds)
    kept: set[int] = set()
    block = program.global_block()
    wanted = set(needed)
    for op in reversed(block.ops):
        if wanted & (set(op.output_arg_names) - fed):
            kept.add(id(op))
            # In-place outputs stay wanted: an earlier operator may have made the value that this one changes.
            wanted -= set(op.output_arg_names) - set(op.input_arg_names)
            wanted |= set(op.input_arg_names)
    made = _copy(program, lambda op: op.block.idx != 0 or id(op) in kept)
    named = {name for op in made.all_ops() for name in (*op.input_arg_names, *op.output_arg_names)} | needed | fed
    for each in made.blocks:
        for name in list(each.vars):
            if name not in named and not (name == RANDOM_STATE and any(uses_random_state(o) for o in made.all_ops())):
                del each.vars[name]
    # A reader goes on feeding only what is still computed from all that it gives.
    known = made.global_block().vars
    made.feeders = [f for f in made.feeders if set(f.names) <= set(known) - fed]
    made.feed_names = [n for n in made.feed_names if n in known]
    made.fetch_names = [n for n in made.fetch_names if n in known]
    return made
