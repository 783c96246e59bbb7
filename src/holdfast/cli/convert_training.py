"""A training checkpoint of another library as a state that `save_checkpoint` saves as it saves the live objects.

The names and kinds that come of it are those that the adapters give: what was converted is loaded into the objects themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import holdfast
from holdfast.cli.convert_sources import Content, arrays_of, plain
from holdfast.cli.exits import UsageError
from holdfast.format.values import Tagged
from holdfast.interop.optimizers import NAMELESS, Named, Optimizer, UnnamedError, named

_WRAPPERS = {"module.": "DistributedDataParallel and DataParallel write", "_orig_mod.": "torch.compile writes"}


def is_training(content: Content) -> bool:
    """Whether a source holds more than a model, and so becomes a checkpoint of a run."""
    return bool(content.values or content.optimizers or (content.kind in ("orbax", "orbax-steps") and content.others))


def with_names(content: Content, given: Sequence[str] | None) -> Content:
    """The same with the parameters' names in its optimizers, as far as the file or the caller says them; else it says why not.

    Args:
        content: of a file of PyTorch.
        given: names of the parameters of all its optimizers, in their order; None to believe the file.

    Raises:
        UsageError: the given names do not fit the file.
    """
    wanted = sum(optimizer.count for optimizer in content.optimizers)
    if given is not None and len(given) != wanted:
        raise UsageError(
            f"--names has {len(given):,} names, and the optimizers of {content.path} have {wanted:,} parameters"
            if content.optimizers
            else f"--names: {content.path} holds no optimizer whose parameters could have these names"
        )
    arrays = arrays_of(content)[0]
    begin = tuple(part for optimizer in content.optimizers for part in _parts(optimizer))
    models = {name: array for name, array in arrays.items() if not name.startswith(begin)} if begin else arrays
    at = 0
    for optimizer in content.optimizers:
        names = None if given is None else given[at : at + optimizer.count]
        at += optimizer.count
        try:
            content = _named(content, optimizer, named(optimizer, names, models))
        except UnnamedError as error:
            if given is not None:
                raise UsageError(
                    f"--names does not fit {optimizer.name or 'the optimizer'} of {content.path}: {error}"
                ) from error
            if optimizer.count:
                content.notes.append(_unnamed(optimizer, error))
    content.notes.extend(_wrapped(name for name in content.variables if name not in content.others))
    return _tied(content) if is_training(content) else content


def state_of(content: Content) -> dict[str, Any]:
    """What to give to `save_checkpoint`."""
    arrays, parameters = arrays_of(content)
    marked = {
        name: holdfast.parameters(array, trainable=name not in content.frozen) if name in parameters else array
        for name, array in arrays.items()
    }
    return marked | content.values


def _parts(optimizer: Optimizer) -> tuple[str, str]:
    prefix = f"{optimizer.name}." if optimizer.name else ""
    return f"{prefix}state.", f"{prefix}param_groups."


def _named(content: Content, optimizer: Optimizer, made: Named) -> Content:
    """The content with an optimizer's variables and values replaced."""
    prefix = f"{optimizer.name}." if optimizer.name else ""
    parts = _parts(optimizer)

    def is_its(name: str) -> bool:
        return name.startswith(parts) or f"{name}." in parts or name == f"{prefix}kinds"

    variables = {name: value for name, value in content.variables.items() if not is_its(name)} | plain(made.arrays)
    values: dict[str, Any] = {}
    for name, value in content.values.items():
        if name == optimizer.name:  # it had no arrays
            values |= {
                prefix + key: item for key, item in value.items() if key not in ("state", "param_groups", "kinds")
            }
        elif not is_its(name):
            values[name] = value
    # What kinds of optimizer it is, is known of one that was a checkpoint's before.
    kinds = {"kinds": content.values[f"{prefix}kinds"]} if f"{prefix}kinds" in content.values else {}
    values[optimizer.name or NAMELESS] = kinds | made.value
    others = {name for name in content.others if name in variables} | made.arrays.keys()
    trained = set(made.trained)
    still = {name for name in content.variables if made.module and name.startswith(made.module) and name not in trained}
    return replace(
        content, variables=variables, values=values, others=others, frozen=(content.frozen | still) - trained
    )


def _unnamed(optimizer: Optimizer, error: UnnamedError) -> str:
    what = optimizer.name or "the optimizer"
    example = next(
        (f"{_parts(optimizer)[0]}{key}.{slot}" for key, slots in optimizer.state.items() for slot in slots), ""
    )
    stays = f"its state stays under numbers ({example}), and" if example else "its settings stay under numbers, and"
    return (
        f"{what}: {stays} no live optimizer can load it: {error}. Say the names of its {optimizer.count:,} parameters, in its "
        "order and one a line, by --names FILE; or load the file once as before, and save with save_checkpoint"
    )


def _tied(content: Content) -> Content:
    """The content with parameters that are one tensor there once, and their other names as references to the first.

    The first is one that is trained, if there is any.
    """
    arrays, parameters = arrays_of(content)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, array in arrays.items():
        if name in parameters and array.size:
            place = array.__array_interface__["data"][0]
            groups.setdefault((place, array.shape, array.strides, array.dtype), []).append(name)
    tied: dict[str, Tagged] = {}
    for names in groups.values():
        first = next((name for name in names if name not in content.frozen), names[0])
        tied |= {name: Tagged("$variable", first) for name in names if name != first}
    variables = {name: value for name, value in content.variables.items() if name not in tied}
    return replace(content, variables=variables, values=content.values | tied)


def _wrapped(parameters: Iterable[str]) -> list[str]:
    """What to say of modules that were saved inside of a wrapper, which left its own name in all names."""
    parts: dict[str, list[str]] = {"": []}
    for name in parameters:
        parts[""].append(name)
        if "." in name:
            parts.setdefault(name.partition(".")[0] + ".", []).append(name)
    notes = []
    for part, names in parts.items():
        found, by = part, []
        while wrapper := next((w for w in _WRAPPERS if names and all(n.startswith(found + w) for n in names)), None):
            found += wrapper
            by.append(_WRAPPERS[wrapper])
        if by:
            notes.append(
                f"all names{f' in {part[:-1]}' if part else ''} begin with {found.removeprefix(part)}, as {' and '.join(by)} them; "
                f"into a model without: rename={{{found!r}: {part!r}}}"
            )
            if not part:
                break
    return notes
