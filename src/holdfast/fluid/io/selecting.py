"""Which variables of a program a save or a load is about: by kind, by predicate, or as listed. Knows no values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.fluid.core import VarType
from holdfast.fluid.framework import OpRole, Parameter, Program, Variable, default_main_program
from holdfast.fluid.infer import is_gradient

Predicate = Callable[[Variable], bool]

# What has no value that a file could hold.
_VALUELESS = (VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER, VarType.RAW)


def is_parameter(var: Variable) -> bool:
    """Whether a variable is a parameter: what `save_params` saves."""
    return isinstance(var, Parameter)


def is_persistable(var: Variable) -> bool:
    """Whether a variable lives across runs and has a value: what `save_persistables` saves. Parameters do."""
    return var.persistable and var.type not in _VALUELESS


def is_checkpoint_variable(var: Variable) -> bool:
    """Whether resuming needs a variable: what `save_checkpoint` saves.

    Every persistable but gradients, and a gradient is what the backward pass computes. Fluid went by parts of names, and so
    lost the variables of a layer that was called `my.block`.
    """
    return is_persistable(var) and (isinstance(var, Parameter) or not _is_gradient(var))


def _is_gradient(var: Variable) -> bool:
    return any(
        is_gradient(op) or op.role & OpRole.Backward
        for op in var.block.program.all_ops()
        if var.name in op.output_arg_names
    )


def is_belong_to_optimizer(var: Variable) -> bool:
    """Whether a variable is a persistable that is no parameter, such as an accumulator: what `.pdopt` files hold."""
    return is_persistable(var) and not isinstance(var, Parameter)


def get_program_parameter(program: Program) -> list[Variable]:
    """The parameters of a program."""
    return [v for v in program.list_vars() if is_parameter(v)]


def get_program_persistable_vars(program: Program) -> list[Variable]:
    """The persistables of a program, parameters among them."""
    return [v for v in program.list_vars() if is_persistable(v)]


def program_of(given: Any) -> Program:
    """The program that a `main_program` argument means: None for the default one; a CompiledProgram for its own.

    Raises:
        TypeError: it is no program.
    """
    program = default_main_program() if given is None else getattr(given, "program", given)
    if not isinstance(program, Program):
        raise TypeError(f"main_program must be a fluid.Program or fluid.CompiledProgram, not {given!r}")
    return program


def select(program: Program, predicate: Predicate | None = None, vars: Iterable[Any] | None = None) -> list[Variable]:
    """The chosen variables of a program, by name, so that no order of `list_vars` reaches a file.

    Args:
        program: the program.
        predicate: is asked about every persistable; None, without `vars`, for all of them.
        vars: variables, or their names.

    Raises:
        ValueError: both are given; `vars` names what the program does not have, or temporaries.
    """
    known: dict[str, Variable] = {}
    for v in program.list_vars():
        known.setdefault(v.name, v)
    if vars is None:
        chosen = [v for v in known.values() if is_persistable(v) and (predicate is None or predicate(v))]
        return sorted(chosen, key=lambda v: v.name)
    if predicate is not None:
        raise ValueError("give predicate= or vars=, not both")
    wanted = {v if isinstance(v, str) else v.name for v in ([vars] if isinstance(vars, str | Variable) else vars)}
    if absent := sorted(wanted - known.keys()):
        raise ValueError(f"vars= names what the program does not have: {', '.join(absent)}")
    if lost := sorted(n for n in wanted if not is_persistable(known[n])):
        raise ValueError(
            f"vars= names temporaries, which have no value after a run: {', '.join(lost)}; leave them out, or set "
            "their .persistable = True before the program runs"
        )
    return [known[name] for name in sorted(wanted)]
