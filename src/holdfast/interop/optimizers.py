"""Optimizers of PyTorch in files of others: which number in one is which parameter. Pure; knows no format.

`torch.optim` counts parameters, in the order in which it was given them. What a file says of their names is believed, and held
against the shapes; what it does not say is not guessed. In the order of a module's state there are buffers too, and a program may
have given its optimizer the parameters in another order.

Source: `Optimizer.state_dict` of PyTorch 2.13, whose groups have `param_names` if the optimizer was given names;
`get_optimizer_state_dict` of torch.distributed.checkpoint.state_dict, which has names in place of numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.format.values import Tagged, UnsupportedValueError, encode

# Slots of torch.optim's that have an element for each of the parameter's.
_WHOLE = {
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum", "square_avg", "acc_delta", "grad_avg", "exp_inf",
    "prev", "step_size", "ax",
}  # fmt: skip


NAMELESS = "optimizer"
"""What one that is the whole file is called once it has names."""


@dataclass(frozen=True, slots=True, eq=False)
class Optimizer:
    """What an optimizer's `state_dict()` held.

    Attributes:
        name: in the file; empty if it is the whole.
        groups: settings of each group, without `params` and `param_names`.
        keys: the parameters of each group: numbers, or names.
        names: of the parameters of each group, in the module that has them; None if the file does not say.
        state: by key, then by slot.
    """

    name: str
    groups: list[dict[str, Any]]
    keys: list[list[Any]]
    names: list[list[str]] | None
    state: dict[Any, dict[Any, Any]]

    @property
    def count(self) -> int:
        """How many parameters it has."""
        return sum(map(len, self.keys))


def found(node: Any) -> Optimizer | None:
    """The optimizer that a dict is the state of, without its name; None if it is none."""
    if not isinstance(node, Mapping):
        return None
    node = _nested(node)
    groups, state = node.get("param_groups"), node.get("state")
    if not isinstance(groups, list | tuple) or not isinstance(state, Mapping):
        return None
    if not all(isinstance(g, Mapping) and isinstance(g.get("params"), list | tuple) for g in groups):
        return None
    keys = [list(group["params"]) for group in groups]
    flat = [key for part in keys for key in part]
    if not all(type(key) in (int, str) for key in flat) or len(set(flat)) != len(flat):
        return None
    slots = {_number(key, flat): held for key, held in state.items()}
    if not all(key in set(flat) and isinstance(held, Mapping) for key, held in slots.items()):
        return None
    settings = [{k: v for k, v in group.items() if k not in ("params", "param_names")} for group in groups]
    if not all(type(key) is str for part in settings for key in part):
        return None
    return Optimizer("", settings, keys, _names(groups, keys), {key: dict(held) for key, held in slots.items()})


def _number(key: Any, keys: Sequence[Any]) -> Any:
    """DCP makes texts of all keys, and leaves lists as they are."""
    return int(key) if type(key) is str and key.isdecimal() and key not in keys else key


def _names(groups: Sequence[Mapping[str, Any]], keys: list[list[Any]]) -> list[list[str]] | None:
    if all(type(key) is str for part in keys for key in part):
        return keys
    named = [group.get("param_names") for group in groups]
    if all(isinstance(n, list | tuple) and len(n) == len(part) for n, part in zip(named, keys, strict=True)):
        names = [list(n) for n in named if n is not None]
        if all(type(name) is str for part in names for name in part):
            return names
    return None


def _nested(node: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """DCP can flatten an optimizer: `state.fc.weight.exp_avg`, `param_groups.fc.weight.lr`."""
    if "param_groups" in node or not node:
        return node
    state: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for key, item in node.items():
        part, _, rest = str(key).partition(".")
        name, _, last = rest.rpartition(".")
        if not name or part not in ("state", "param_groups"):
            return node
        (state if part == "state" else settings).setdefault(name, {})[last] = item
    return {"state": state, "param_groups": [{**held, "params": [name]} for name, held in settings.items()]}


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """An optimizer whose parameters have names.

    Attributes:
        value: what a checkpoint has under the optimizer's name: settings, and references to its variables.
        arrays: its variables, by name.
        trained: names of its parameters in the file.
        module: what the names of all variables of their module begin with, such as `model.`; it may be empty.
    """

    value: dict[str, Any]
    arrays: dict[str, np.ndarray]
    trained: list[str]
    module: str


class UnnamedError(ValueError):
    """Which number is which parameter cannot be told; the message says why."""


def named(optimizer: Optimizer, names: Sequence[str] | None, arrays: Mapping[str, np.ndarray]) -> Named:
    """An optimizer with names in place of numbers, as `save_checkpoint` saves it.

    Args:
        optimizer: as it was found.
        names: those of its parameters, in its order; None for those that the file has.
        arrays: all that are in the file, but those of optimizers, by name.

    Raises:
        UnnamedError: the file has no names, they are in none or in several of its modules, the shapes do not fit, or the
            optimizer holds what is neither an array nor a plain value.
    """
    if names is None:
        if optimizer.names is None:
            raise UnnamedError("the file has numbers in place of names")
        names = [name for part in optimizer.names for name in part]
    if len(names) != optimizer.count:
        raise UnnamedError(f"it has {optimizer.count:,} parameters, and there are {len(names):,} names")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise UnnamedError(f"names stand twice: {', '.join(twice[:10])}")
    module = _module(names, arrays)
    keys = [key for part in optimizer.keys for key in part]
    short = dict(zip(keys, names, strict=True))
    if problems := list(_misfits(optimizer, {key: arrays[module + name].shape for key, name in short.items()}, short)):
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UnnamedError(f"shapes do not fit: {'; '.join(problems[:10])}{more}")
    made: dict[str, np.ndarray] = {}
    called = optimizer.name or NAMELESS
    state = {
        module + short[key]: {
            slot: _referring(held, f"{called}.{slot}.{short[key]}", made) for slot, held in slots.items()
        }
        for key, slots in optimizer.state.items()
    }
    groups = [
        {**settings, "params": [module + short[key] for key in part]}
        for settings, part in zip(optimizer.groups, optimizer.keys, strict=True)
    ]
    value = {"param_groups": groups, "state": state}
    try:
        encode(value)
    except UnsupportedValueError as error:
        raise UnnamedError(f"at {error.where.removeprefix('.')} it holds what is no plain value: {error}") from error
    return Named(value, made, [module + name for name in names], module)


def _module(names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> str:
    """What stands before the names in the file."""
    if not names:
        return ""
    first = names[0]
    begins = [name.removesuffix(first) for name in arrays if name.endswith(first)]
    begins = [begin for begin in begins if not begin or begin.endswith(".")]
    fit = [begin for begin in begins if all(begin + name in arrays for name in names)]
    if len(fit) == 1:
        return fit[0]
    if fit:
        raise UnnamedError(f"several parts of the file have all of these names: {', '.join(map(repr, fit[:10]))}")
    nearest = max(begins, key=lambda begin: sum(begin + name in arrays for name in names), default=None)
    absent = [name for name in names if nearest is None or nearest + name not in arrays]
    raise UnnamedError(
        f"the file holds no variables of these names: {', '.join(absent[:10])}"
        + (f" (others are below {nearest!r})" if nearest else "")
    )


def _misfits(optimizer: Optimizer, shapes: Mapping[Any, tuple[int, ...]], names: Mapping[Any, str]) -> Iterator[str]:
    for key, slots in optimizer.state.items():
        for slot, held in slots.items():
            if isinstance(held, np.ndarray) and not _fits(slot, held.shape, shapes[key]):
                yield f"{names[key]} is {shapes[key]}, its {slot} {held.shape}"


def _fits(slot: Any, shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a parameter of shape `whole` can have state of this shape.

    Of slots that are not known only those with as many dimensions are looked at; means over a dimension have 1 there.
    """
    if slot in _WHOLE:
        return shape == whole
    return len(shape) != len(whole) or all(n in (1, m) for n, m in zip(shape, whole, strict=True))


def _referring(held: Any, where: str, made: dict[str, np.ndarray]) -> Any:
    """A slot's value with a reference in place of each array, which gets the name `where`."""
    if isinstance(held, np.ndarray):
        made[where] = held
        return Tagged("$variable", where)
    if isinstance(held, Mapping):
        return {key: _referring(item, f"{where}.{key}", made) for key, item in held.items()}
    if isinstance(held, list | tuple):
        return type(held)(_referring(item, f"{where}.{number}", made) for number, item in enumerate(held))
    return held
