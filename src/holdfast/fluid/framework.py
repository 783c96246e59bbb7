"""Program and Block: the model as a list of operators with their variables, before anything runs. Knows no values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.fluid import registry
from holdfast.fluid.core import (
    CPUPlace,
    CUDAPinnedPlace,
    CUDAPlace,
    VarType,
    get_cuda_device_count,
    is_compiled_with_cuda,
    to_vartype,
)
from holdfast.fluid.operators import Operator, OpRole
from holdfast.fluid.variable import Parameter, Variable, grad_var_name

if TYPE_CHECKING:
    from holdfast.fluid.description import ProgramDesc

__all__ = [
    "Block", "CPUPlace", "CUDAPinnedPlace", "CUDAPlace", "OpRole", "Operator", "Parameter", "Program", "Variable",
    "cpu_places", "cuda_places", "default_main_program", "default_startup_program", "grad_var_name", "in_dygraph_mode",
    "is_compiled_with_cuda", "name_scope", "program_guard",
]  # fmt: skip

RANDOM_STATE = "@RANDOM_STATE@"  # int64 (2,), the key of the random numbers of a program's next run


class Block:
    """A list of operators with the variables they name.

    Attributes:
        idx: its place in the program; 0 is the global block.
        parent_idx: of the block in which it stands; -1 for the global one.
        vars: by name, in the order of their creation.
        ops: in the order in which they run.
    """

    def __init__(self, program: Program, idx: int, parent_idx: int = -1) -> None:
        self.program = program
        self.idx = idx
        self.parent_idx = parent_idx
        self.vars: dict[str, Variable] = {}
        self.ops: list[Operator] = []

    @property
    def parent(self) -> Block | None:
        """The block around it."""
        return None if self.parent_idx < 0 else self.program.blocks[self.parent_idx]

    def find(self, name: str) -> Variable | None:
        """The variable of this name, here or in a block around; None if there is none."""
        block: Block | None = self
        while block is not None:
            if name in block.vars:
                return block.vars[name]
            block = block.parent
        return None

    def has_var(self, name: str) -> bool:
        """Whether this block itself has a variable of the name."""
        return name in self.vars

    def var(self, name: str) -> Variable:
        """The variable of this name in this block.

        Raises:
            ValueError: there is none.
        """
        if name not in self.vars:
            raise ValueError(f"var {name} not in this block; it has {_some(self.vars)}")
        return self.vars[name]

    def _var_recursive(self, name: str) -> Variable:
        found = self.find(name)
        if found is None:
            raise ValueError(f"var {name} is in no block of this program; the global block has {_some(self.vars)}")
        return found

    def all_parameters(self) -> list[Parameter]:
        """The parameters of this block."""
        return [v for v in self.vars.values() if isinstance(v, Parameter)]

    def create_var(self, **kwargs: Any) -> Variable:
        """A new variable, or the one that has the name already, if its shape and dtype are the same.

        Raises:
            ValueError: the name is in use for another shape or dtype.
        """
        name = kwargs.get("name")
        if name is not None and name in self.vars:
            return self._existing(self.vars[name], kwargs)
        variable = Variable(self, **kwargs)
        self.vars[variable.name] = variable
        self.program.changed()
        return variable

    def create_parameter(self, **kwargs: Any) -> Parameter:
        """A new parameter in the global block, or the one that has the name already."""
        block = self.program.global_block()
        name = kwargs.get("name")
        initializer = kwargs.get("initializer")
        if name is not None and name in block.vars:
            found = self._existing(block.vars[name], kwargs)
            if not isinstance(found, Parameter):
                raise ValueError(f"Variable {name} has been created before, and is no parameter")
            return found
        parameter = Parameter(block, **kwargs)
        block.vars[parameter.name] = parameter
        self.program.changed()
        if initializer is not None and not _initialised(block, parameter.name):
            initializer(parameter, block)
        return parameter

    @staticmethod
    def _existing(found: Variable, wanted: Mapping[str, Any]) -> Variable:
        shape, dtype = wanted.get("shape"), wanted.get("dtype")
        if shape is not None and found.shape is not None and tuple(shape) != found.shape:
            raise ValueError(
                f"Variable {found.name} has been created before. the previous shape is {found.shape}; "
                f"the new shape is {tuple(shape)}."
            )
        if dtype is not None and found.dtype is not None and to_vartype(dtype) != found.dtype:
            raise ValueError(
                f"Variable {found.name} has been created before. The previous data type is {found.dtype.name}; "
                f"the new data type is {to_vartype(dtype).name}."
            )
        return found

    def append_op(self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, **_: Any) -> Operator:
        """Add an operator at the end; shapes and dtypes of its outputs are inferred.

        Raises:
            NotImplementedError: there is no such operator.
            ValueError: its slots or attributes are not those that it has, or shapes do not fit.
        """
        return self._insert(len(self.ops), type, inputs, outputs, attrs)

    def _prepend_op(self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, **_: Any) -> Operator:
        return self._insert(0, type, inputs, outputs, attrs)

    def _insert_op(self, index: int, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None) -> Operator:
        return self._insert(index, type, inputs, outputs, attrs)

    def _insert(self, index: int, type: str, inputs: Any, outputs: Any, attrs: Any) -> Operator:
        from holdfast.fluid.infer import check_operator, infer

        op = Operator(self, type, inputs, outputs, attrs)
        check_operator(op)
        infer(op)
        self.ops.insert(index, op)
        for name in op.output_arg_names:
            if (variable := self.find(name)) is not None:
                variable.op = op
        _declare_random_state(op)
        self.program.changed()
        return op

    def _remove_op(self, index: int) -> None:
        del self.ops[index]
        self.program.changed()

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The block as text: its variables, then its operators."""
        lines = [f"block {self.idx}" + (f" (in block {self.parent_idx})" if self.parent_idx >= 0 else "") + " {"]
        lines += [f"    {v.to_string(with_details=with_details)}" for v in self.vars.values()]
        lines += ["", *(f"    {o.to_string()}" for o in self.ops), "}"]
        return "\n".join(lines)

    __str__ = __repr__ = to_string


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


def _initialised(block: Block, name: str) -> bool:
    return any(name in op.output_arg_names for op in block.ops)


def _declare_random_state(op: Operator) -> None:
    """Give a program the variable that its random operators take their numbers from; see lowering.py."""
    if not uses_random_state(op):
        return
    program, startup = op.block.program, default_startup_program()
    if program is startup or RANDOM_STATE in program.global_block().vars:
        return
    wanted = {"name": RANDOM_STATE, "shape": (2,), "dtype": VarType.INT64, "persistable": True, "stop_gradient": True}
    program.global_block().create_var(**wanted)
    block = startup.global_block()
    if RANDOM_STATE not in block.vars:
        block.create_var(**wanted)
        block.append_op("init_random_state", outputs={"Out": [RANDOM_STATE]})


def uses_random_state(op: Operator) -> bool:
    """Whether an operator draws other numbers in every run: not if it has a seed, nor if it fills a persistable."""
    if not registry.exists(op.type) or not registry.find(op.type).random:
        return False
    if op.attrs.get("is_test") or op.attrs.get("seed"):
        return False
    outputs = [op.block.find(name) for name in op.output_arg_names]
    return not any(v is not None and v.persistable for v in outputs)


class Program:
    """Blocks of operators; what an Executor runs.

    Attributes:
        blocks: the first is the global one.
        random_seed: 0: other random numbers in every process; else they are the same in all.
        feeders: readers that give every run its feed; see reader.py.
        feed_names, fetch_names: what a program for prediction is fed with and gives, where that was said.
    """

    def __init__(self) -> None:
        self.blocks = [Block(self, 0)]
        self.current_block_idx = 0
        self._seed = 0
        self._op_role = OpRole.Forward
        self.version = 0
        self.feeders: list[Any] = []
        self.feed_names: list[str] = []
        self.fetch_names: list[str] = []

    def changed(self) -> None:
        """Note that what was compiled of this program is out of date."""
        self.version += 1

    @property
    def random_seed(self) -> int:
        """See the class."""
        return self._seed

    @random_seed.setter
    def random_seed(self, seed: int) -> None:
        if not isinstance(seed, int):
            raise TypeError(f"random_seed must be an integer, not {seed!r}")
        self._seed = seed
        self.changed()

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    def global_block(self) -> Block:
        """The first block."""
        return self.blocks[0]

    def current_block(self) -> Block:
        """The block that layers are added to."""
        return self.blocks[self.current_block_idx]

    def block(self, index: int) -> Block:
        """The block of this number."""
        return self.blocks[index]

    def _create_block(self, parent_idx: int | None = None) -> Block:
        block = Block(self, len(self.blocks), self.current_block_idx if parent_idx is None else parent_idx)
        self.blocks.append(block)
        self.current_block_idx = block.idx
        return block

    def _rollback(self) -> None:
        self.current_block_idx = self.current_block().parent_idx

    def list_vars(self) -> Iterator[Variable]:
        """Every variable of every block, in the order of creation."""
        for block in self.blocks:
            yield from list(block.vars.values())

    def all_parameters(self) -> list[Parameter]:
        """Every parameter."""
        return [v for v in self.list_vars() if isinstance(v, Parameter)]

    def all_ops(self) -> Iterator[Operator]:
        """Every operator of every block."""
        for block in self.blocks:
            yield from block.ops

    @contextlib.contextmanager
    def op_role_guard(self, role: OpRole) -> Iterator[None]:
        """Operators that are added inside have this role."""
        old, self._op_role = self._op_role, role
        try:
            yield
        finally:
            self._op_role = old

    @contextlib.contextmanager
    def _optimized_guard(self, param_and_grads: Any = None) -> Iterator[None]:
        with self.op_role_guard(OpRole.Optimize):
            yield

    @contextlib.contextmanager
    def _lr_schedule_guard(self, is_with_opt: bool = False) -> Iterator[None]:
        with self.op_role_guard(OpRole.LRSched):
            yield

    def clone(self, for_test: bool = False) -> Program:
        """A copy: new objects, the same names, so that values are shared through the scope.

        Args:
            for_test: leave out backward, optimizer and learning-rate operators with the variables that only they have,
                wherever `minimize` was called, and let dropout, batch_norm and the like behave as for prediction.
        """
        from holdfast.fluid.cloning import clone

        return clone(self, for_test=for_test)

    def _prune(self, targets: Any, feeds: Iterable[str] = ()) -> Program:
        from holdfast.fluid.cloning import prune

        return prune(self, targets, feeds)

    def _prune_with_input(self, feeded_var_names: Iterable[str], targets: Any) -> Program:
        names = [feeded_var_names] if isinstance(feeded_var_names, str) else feeded_var_names
        return self._prune(targets, names)

    def _inference_optimize(self, prune_read_op: bool = True) -> Program:
        made = self.clone(for_test=True)
        if prune_read_op:
            made.feeders.clear()
        return made

    @property
    def desc(self) -> ProgramDesc:
        """The program as what is stored of it."""
        from holdfast.fluid.description import ProgramDesc

        return ProgramDesc(self)

    @staticmethod
    def parse_from_string(binary_str: bytes) -> Program:
        """The program in the bytes of a `__model__` or `.pdmodel` file, of Fluid's or of Holdfast's. Nothing in it is executed.

        Raises:
            FormatError, VersionError: the bytes are damaged, or hold operators or attributes that are not known here.
        """
        from holdfast.fluid.description import parsed

        return parsed(binary_str)

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The program as text."""
        return "\n".join(block.to_string(with_details=with_details) for block in self.blocks)

    def __str__(self) -> str:
        return self.to_string()

    __repr__ = __str__


_main, _startup = Program(), Program()


def default_main_program() -> Program:
    """The program that layers are added to."""
    return _main


def default_startup_program() -> Program:
    """The program that initialises parameters and persistables; run it once, before all else."""
    return _startup


def switch_main_program(program: Program) -> Program:
    """Replace the default main program; returns the old."""
    global _main
    old, _main = _main, program
    return old


def switch_startup_program(program: Program) -> Program:
    """Replace the default startup program; returns the old."""
    global _startup
    old, _startup = _startup, program
    return old


@contextlib.contextmanager
def program_guard(main_program: Program, startup_program: Program | None = None) -> Iterator[None]:
    """Let layers inside the block be added to these programs."""
    for program in (main_program, startup_program):
        if program is not None and not isinstance(program, Program):
            raise TypeError(f"program_guard needs fluid.Program objects, not {program!r}")
    old_main = switch_main_program(main_program)
    old_startup = None if startup_program is None else switch_startup_program(startup_program)
    try:
        yield
    finally:
        switch_main_program(old_main)
        if old_startup is not None:
            switch_startup_program(old_startup)


@contextlib.contextmanager
def name_scope(prefix: str | None = None) -> Iterator[None]:
    """Group operators under a name; names of variables do not change, as in Fluid."""
    if prefix is not None and (not prefix or "/" in prefix):
        raise ValueError(f"name_scope needs a name without '/', not {prefix!r}")
    yield


def cpu_places(device_count: int | None = None) -> list[CPUPlace]:
    """Places for a data-parallel program: as many as JAX has CPU devices."""
    import jax

    return [CPUPlace()] * (device_count or len(jax.local_devices(backend="cpu")))


def cuda_places(device_ids: Sequence[int] | None = None) -> list[CUDAPlace]:
    """Places for a data-parallel program: the GPUs that JAX sees."""
    return [CUDAPlace(i) for i in (range(get_cuda_device_count()) if device_ids is None else device_ids)]


def in_dygraph_mode() -> bool:
    """False: programs are always built first and run later."""
    return False
