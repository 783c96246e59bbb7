"""Executor: compiles a program once per version, feed and fetch list, and runs it on the values of a scope."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from holdfast.fluid.checks import check_overwriting, warn_of_fresh_state
from holdfast.fluid.core import CPUPlace, EnforceNotMet, Place, to_numpy
from holdfast.fluid.feeding import Expected, checked_feed
from holdfast.fluid.fetched import counting
from holdfast.fluid.framework import RANDOM_STATE, Program, Variable, default_main_program
from holdfast.fluid.lowering import Analysis, FetchError, analyse, lower
from holdfast.fluid.profiler import record
from holdfast.fluid.ranges import bounds
from holdfast.fluid.scope import LoDTensor, Scope, ScopeVariable, global_scope

__all__ = ["Executor", "global_scope"]

_NO_CHANCE = np.zeros(2, np.uint32)


@dataclass(slots=True)
class _Compiled:
    """A program for one feed and fetch list in one scope.

    Attributes:
        function: (changed values, other values, feeds, chance) to (fetched values, changed values).
        changed: variables of the scope that are read and written; their buffers are given away.
        made: variables that are written and were not read; what the function gives comes after the changed ones.
        constant: variables that are only read.
    """

    function: Callable[..., Any]
    expected: dict[str, Expected]
    changed: list[ScopeVariable]
    made: list[ScopeVariable]
    constant: list[ScopeVariable]
    analysis: Analysis
    program: Program
    checked: int = 0
    started: bool = False


class Executor:
    """Runs programs.

    Args:
        place: `CPUPlace()` or `CUDAPlace(i)`; None for the CPU.

    Raises:
        RuntimeError: JAX sees no such device.
        TypeError: it is no place.

    Example:
        >>> import numpy as np, holdfast.fluid as fluid
        >>> main, startup = fluid.Program(), fluid.Program()
        >>> with fluid.program_guard(main, startup), fluid.unique_name.guard():
        ...     x = fluid.layers.data("x", [2])
        ...     y = fluid.layers.fc(x, 3)
        >>> exe = fluid.Executor(fluid.CPUPlace())
        >>> with fluid.scope_guard(fluid.Scope()):
        ...     _ = exe.run(startup)
        ...     (out,) = exe.run(main, feed={"x": np.ones((4, 2), np.float32)}, fetch_list=[y])
        >>> out.shape
        (4, 3)
    """

    def __init__(self, place: Place | None = None) -> None:
        if not isinstance(place, Place | None):
            raise TypeError(f"an executor runs on a place such as fluid.CPUPlace(), not {place!r}")
        self.place = place or CPUPlace()
        self._device = self.place.device()
        self._closed = False
        # By program, so that what was compiled goes with it.
        self._compiled: weakref.WeakKeyDictionary[Program, dict[Any, _Compiled]] = weakref.WeakKeyDictionary()

    def close(self) -> None:
        """Give up what was compiled; the executor cannot run any more."""
        self._compiled.clear()
        self._closed = True

    def run(
        self,
        program: Any = None,
        feed: Any = None,
        fetch_list: Any = None,
        feed_var_name: str = "feed",
        fetch_var_name: str = "fetch",
        scope: Scope | None = None,
        return_numpy: bool = True,
        use_program_cache: bool = False,
        return_merged: bool = True,
        use_prune: bool = False,
        overwrite_loaded: bool = False,
    ) -> list[Any]:
        """Run the whole program once, whatever is fetched, and return the fetched values.

        Persistables are read from the scope and put back; temporaries are gone afterwards. If an error is raised before the
        computation itself has begun, the scope is as it was.

        Args:
            program: a Program or CompiledProgram; None for the default main program.
            feed: an array for every data variable, by name; dtypes must be the variables' own. For a data-parallel program
                also a list of such dicts, which are joined.
            fetch_list: variables or names.
            feed_var_name, fetch_var_name, use_program_cache, return_merged: accepted as Fluid has them; without effect.
            scope: None for `fluid.global_scope()`.
            return_numpy: False gives `LoDTensor` objects.
            use_prune: True runs only what the fetch list and the persistables that it writes need.
            overwrite_loaded: True lets a startup program overwrite variables that a load has filled.

        Returns:
            A NumPy array for each entry of `fetch_list`, copied out of the scope. One of a single value counts as a number.

        Raises:
            FeedError: feeds are missing, unknown, of another dtype or shape, or hold numbers of rows or classes that there
                are not; all of them are named.
            FetchError: `fetch_list` names what the program does not have.
            UninitializedError: variables have no value yet; all of them are named.
            OperatorError: the shapes of what is fed do not fit together.
            OverwriteError: a startup program would overwrite what was loaded.
            RuntimeError: the executor is closed.
            fluid.core.EOFException: a reader of the program has come to its end.

        Feed, fetch, uninitialised and operator errors are `fluid.core.EnforceNotMet`, which is what programs of Fluid catch.
        """
        if self._closed:
            raise RuntimeError("this executor was closed; make another fluid.Executor")
        program = default_main_program() if program is None else program
        devices = getattr(program, "devices", None)
        program = getattr(program, "program", program)
        if not isinstance(program, Program):
            raise TypeError(f"an executor runs a fluid.Program or fluid.CompiledProgram, not {program!r}")
        scope = global_scope() if scope is None else scope
        fetches = tuple(v.name if isinstance(v, Variable) else str(v) for v in _list(fetch_list))
        if use_prune and fetches:
            program = self._pruned(program, fetches, feed)
        feeders = program.feeders
        feed = _joined(feed)
        for feeder in feeders:
            feed = {**feed, **feeder.next_feed(feed)}
        with record("Executor.run"), jax.enable_x64(True), self._on_device():
            return self._run(program, feed, fetches, scope, devices, return_numpy, overwrite_loaded)

    def _on_device(self) -> Any:
        if self._device == jax.local_devices()[0]:
            return contextlib.nullcontext()
        return jax.default_device(self._device)

    def _pruned(self, program: Program, fetches: tuple[str, ...], feed: Any) -> Program:
        cache = self._compiled.setdefault(program, {})
        key = ("pruned", program.version, fetches)
        if key not in cache:
            cache[key] = program._prune(list(fetches))  # type: ignore[assignment]
        return cache[key]  # type: ignore[return-value]

    def _run(
        self,
        program: Program,
        feed: Mapping[str, Any],
        fetches: tuple[str, ...],
        scope: Scope,
        devices: Sequence[Any] | None,
        return_numpy: bool,
        overwrite_loaded: bool,
    ) -> list[Any]:
        cache = self._compiled.get(program)
        if cache is None:
            cache = self._compiled[program] = {}
        key = (program.version, fetches, tuple(sorted(feed)), id(scope), devices if devices is None else tuple(devices))
        compiled = cache.get(key)
        if compiled is None or compiled.program is not program:
            compiled = cache[key] = _compile(program, feed, fetches, scope)
            weakref.finalize(scope, cache.pop, key, None)
        feeds = checked_feed(compiled.expected, feed)
        if not compiled.started:
            self._begin(compiled)
        changed: Any = [v.held for v in compiled.changed]
        constant: Any = [v.held for v in compiled.constant]
        if compiled.analysis.fills and not overwrite_loaded:
            check_overwriting(compiled.made)
        if compiled.checked != scope.loads:
            warn_of_fresh_state(program, scope, [v.name for v in compiled.changed])
            compiled.checked = scope.loads
        chance = np.frombuffer(os.urandom(8), np.uint32) if compiled.analysis.chance else _NO_CHANCE
        if devices is not None and len(devices) > 1:
            feeds, changed, constant = _spread(devices, feeds, changed, constant)
        fetched, written = compiled.function(changed, constant, feeds, chance)
        for variable, value in zip(compiled.changed, written, strict=False):
            variable.held = value
        for variable, value in zip(compiled.made, written[len(compiled.changed) :], strict=True):
            variable.held = value
            variable.loaded_from = None
            if compiled.analysis.fills:
                variable.first = weakref.ref(value)
        # Copies: a later run may give the buffers away, and programs write into what they fetched.
        return [counting(np.array(value)) if return_numpy else LoDTensor(value) for value in fetched]

    def _begin(self, compiled: _Compiled) -> None:
        """Before the first run: everything that is read must have a value."""
        empty = [v.name for v in (*compiled.changed, *compiled.constant) if v.held is None]
        if RANDOM_STATE in empty:
            # A program of an older file has no startup operator for it: its seed, or chance, begins the stream.
            seed = compiled.program.random_seed or int.from_bytes(os.urandom(4), "little")
            state = jax.random.key_data(jax.random.key(seed)).astype(jnp.int64)
            next(v for v in compiled.changed if v.name == RANDOM_STATE).held = state
            empty.remove(RANDOM_STATE)
        if empty:
            raise UninitializedError(compiled.program, empty)
        compiled.started = True


class UninitializedError(EnforceNotMet):
    """Variables that a program reads have no value.

    Attributes:
        names: of all of them.
    """

    def __init__(self, program: Program, names: list[str]) -> None:
        self.names = tuple(names)
        block = program.global_block()
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        lost = [n for n in names if (v := block.find(n)) is not None and not v.persistable]
        hint = (
            f"{', '.join(lost[:5])} is a temporary that nothing computes before it is read"
            if lost
            else "run the startup program in this scope first, after minimize(): exe.run(fluid.default_startup_program())"
        )
        super().__init__(f"these variables have not been initialized: {shown}; {hint}")


def _compile(program: Program, feed: Mapping[str, Any], fetches: tuple[str, ...], scope: Scope) -> _Compiled:
    block = program.global_block()
    analysis = analyse(program, fetches)
    unknown = [n for n in fetches if block.find(n) is None and scope.find_var(n) is None]
    if unknown:
        raise FetchError(f"fetch_list names what is not in the program: {', '.join(unknown)}")
    expected: dict[str, Expected] = {}
    held: list[str] = []
    numbers = bounds(block)
    for name in analysis.reads:
        variable = block.find(name)
        fed = variable is not None and not variable.persistable and (variable.is_data or name in feed)
        if fed and (name in feed or scope.find_var(name) is None):
            assert variable is not None
            expected[name] = Expected(
                name,
                to_numpy(variable.dtype),
                variable.shape,
                lod_level=variable.lod_level,
                bounds=numbers.get(name, ()),
            )
        else:
            held.append(name)
    for name in feed:
        # A variable that the program has, but does not read: fed in vain, as Fluid's programs do with labels.
        if name not in expected and (variable := block.find(name)) is not None and variable.is_data:
            expected[name] = Expected(
                name, to_numpy(variable.dtype), variable.shape, used=False, lod_level=variable.lod_level
            )
    writes = set(analysis.writes)
    changed = [n for n in held if n in writes]
    constant = [n for n in held if n not in writes]
    made = [n for n in analysis.writes if n not in set(changed)]
    feed_names = tuple(name for name, e in expected.items() if e.used)
    lowered = lower(program, fetches, analysis)

    def function(changing: Any, constants: Any, feeds: Any, chance: Any) -> tuple[list[Any], list[Any]]:
        values = dict(zip(changed, changing, strict=True))
        values.update(zip(constant, constants, strict=True))
        values.update(zip(feed_names, feeds, strict=True))
        fetched, written = lowered(values, jax.random.wrap_key_data(chance))
        return fetched, [written[n] for n in (*changed, *made)]

    return _Compiled(
        jax.jit(function, donate_argnums=0),
        expected,
        [_variable(scope, n) for n in changed],
        [_variable(scope, n) for n in made],
        [_variable(scope, n) for n in constant],
        analysis,
        program,
    )


def _variable(scope: Scope, name: str) -> ScopeVariable:
    found = scope.find_var(name)
    return scope.var(name) if found is None else found


def _spread(
    devices: Sequence[Any], feeds: list[Any], changed: list[Any], constant: list[Any]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Data parallel: feeds are cut by rows over the devices, all else is on each of them."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    count = len(devices)
    placed = [
        jax.device_put(f, rows if np.ndim(f) and np.shape(f)[0] % count == 0 and np.shape(f)[0] else whole)
        for f in feeds
    ]
    return placed, jax.device_put(changed, whole), jax.device_put(constant, whole)


def _joined(feed: Any) -> Mapping[str, Any]:
    if feed is None:
        return {}
    if isinstance(feed, list | tuple):
        names = {name for part in feed for name in part}
        return {n: np.concatenate([np.asarray(part[n]) for part in feed]) for n in sorted(names)} if feed else {}
    if not isinstance(feed, Mapping):
        raise TypeError(f"feed must be a dict of arrays by name, not {feed!r}")
    return feed


def _list(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
