"""Program, Block, Operator, Variable and Parameter: what a model is before anything runs. Knows no values.

A Parameter is a persistable Variable, and a persistable Variable lives across runs; every other is a temporary of one run.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from holdfast.fluid import registry, unique_name
from holdfast.fluid.core import (
    CPUPlace,
    CUDAPinnedPlace,
    CUDAPlace,
    VarType,
    get_cuda_device_count,
    is_compiled_with_cuda,
    to_vartype,
)

__all__ = [
    "Block", "CPUPlace", "CUDAPinnedPlace", "CUDAPlace", "OpRole", "Operator", "Parameter", "Program", "Variable",
    "cpu_places", "cuda_places", "default_main_program", "default_startup_program", "grad_var_name", "in_dygraph_mode",
    "is_compiled_with_cuda", "name_scope", "program_guard",
]  # fmt: skip

GRAD_SUFFIX = "@GRAD"
EMPTY = "@EMPTY@"  # stands for a gradient that nobody needs
RANDOM_STATE = "@RANDOM_STATE@"  # int64 (2,), the key of the random numbers of a program's next run


class OpRole(enum.IntFlag):
    """Why an operator is in a program; the numbers are Fluid's."""

    Forward = 0
    Backward = 1
    Optimize = 2
    RPC = 4
    Dist = 8
    LRSched = 16
    Loss = 256


def grad_var_name(name: str) -> str:
    """The name of a variable's gradient."""
    return name + GRAD_SUFFIX


class Variable:
    """A variable of a block: a name, and what is known of its value.

    Attributes:
        name: unique in its block.
        shape: -1 for a dimension that is known at run time only, such as the batch; None if not known.
        dtype: a `VarType`.
        type: `VarType.LOD_TENSOR` for all that has a value.
        lod_level: 0: ordinary tensors only.
        persistable: whether it lives across runs. Setting it makes a temporary one that does.
        stop_gradient: whether gradients end here.
        is_data: whether it is fed.
        error_clip: a rule of `fluid.clip` for its gradient.
    """

    def __init__(
        self,
        block: Block,
        name: str | None = None,
        shape: Sequence[int] | None = None,
        dtype: Any = None,
        type: VarType = VarType.LOD_TENSOR,
        lod_level: int | None = None,
        persistable: bool | None = None,
        stop_gradient: bool = False,
        is_data: bool = False,
        initializer: Any = None,
        **_: Any,
    ) -> None:
        self.block = block
        self.name = name if name is not None else unique_name.generate("_generated_var")
        self.shape: Any = None if shape is None else tuple(int(n) for n in shape)
        self.dtype: Any = None if dtype is None else to_vartype(dtype)
        self.type = type
        self.lod_level = lod_level or 0
        self._persistable = bool(persistable)
        self.stop_gradient = stop_gradient
        self.is_data = is_data
        self.op: Operator | None = None
        self.error_clip: Any = None
        if initializer is not None:
            initializer(self, block)

    @property
    def persistable(self) -> bool:
        """Whether it lives across runs."""
        return self._persistable

    @persistable.setter
    def persistable(self, value: bool) -> None:
        if value != self._persistable:
            self._persistable = value
            self.block.program.changed()

    @property
    def desc(self) -> Variable:
        """The variable itself: programs of the era call `var.desc.set_shape()` and the like."""
        return self

    def set_shape(self, shape: Sequence[int]) -> None:
        """Say what the shape is, where the program knows better."""
        self.shape = tuple(shape)

    def set_error_clip(self, error_clip: Any) -> None:
        """Limit the gradient of this variable by a rule such as `ErrorClipByValue`; call it before `minimize`."""
        self.error_clip = error_clip

    _set_error_clip = set_error_clip

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The variable as a line of text."""
        kind = "parameter" if isinstance(self, Parameter) else "persistable" if self.persistable else "var"
        dtype = "?" if self.dtype is None else self.dtype.name.lower()
        text = f"{kind} {self.name} : {dtype}{list(self.shape) if self.shape is not None else '?'}"
        if isinstance(self, Parameter) and not self.trainable:
            text += " not trainable"
        return text + (" stop_gradient" if self.stop_gradient and with_details else "")

    def __str__(self) -> str:
        return self.to_string(with_details=True)

    __repr__ = __str__

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"variable {self.name} cannot be iterated over; use fluid.layers.unstack or split")


class Parameter(Variable):
    """A learned variable: persistable, with its initializer, learning rate and so on.

    Attributes:
        trainable: whether optimizers change it.
        optimize_attr: `{"learning_rate": factor}`.
        regularizer, gradient_clip_attr, do_model_average: as given in `ParamAttr`.
        initializer: what fills it in the startup program; None if nothing does.
    """

    def __init__(
        self,
        block: Block,
        shape: Sequence[int],
        dtype: Any,
        *,
        trainable: bool = True,
        optimize_attr: Mapping[str, Any] | None = None,
        regularizer: Any = None,
        gradient_clip_attr: Any = None,
        do_model_average: bool | None = False,
        initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        if not shape:
            raise ValueError("a parameter needs a shape; a scalar has [1]")
        if any(n < 0 for n in shape):
            raise ValueError(f"all dimensions of a parameter must be known, not {tuple(shape)}")
        kwargs.pop("persistable", None)
        super().__init__(block, shape=shape, dtype=dtype, persistable=True, **kwargs)
        self.trainable = trainable
        self.optimize_attr = dict(optimize_attr or {"learning_rate": 1.0})
        self.regularizer = regularizer
        self.gradient_clip_attr = gradient_clip_attr
        self.do_model_average = do_model_average
        self.initializer = initializer
        self.is_distributed = False


_uids = itertools.count(1)
Names = dict[str, list[str]]


def _names_of(given: Mapping[str, Any] | None) -> Names:
    names: Names = {}
    for slot, value in (given or {}).items():
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        names[slot] = [v.name if isinstance(v, Variable) else str(v) for v in values]
    return names


class Operator:
    """A call of an operator in a block: names of variables by slot, and attributes.

    Attributes:
        type: what `registry.find` knows.
        inputs, outputs: names by slot.
        attrs: plain values by name; `op_role` among them.
        uid: stays the same in clones, where a gradient operator names its forward operator by it.
    """

    def __init__(
        self,
        block: Block,
        type: str,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
        uid: int | None = None,
    ) -> None:
        self.block = block
        self.type = type
        self.inputs = _names_of(inputs)
        self.outputs = _names_of(outputs)
        self.attrs = {name: value for name, value in (attrs or {}).items() if value is not None}
        self.attrs.setdefault("op_role", int(block.program._op_role))
        self.uid = next(_uids) if uid is None else uid

    @property
    def role(self) -> OpRole:
        """Why it is in the program."""
        return OpRole(self.attrs.get("op_role", 0))

    @property
    def input_arg_names(self) -> list[str]:
        """Names of all variables that it reads."""
        return [name for names in self.inputs.values() for name in names]

    @property
    def output_arg_names(self) -> list[str]:
        """Names of all variables that it writes."""
        return [name for names in self.outputs.values() for name in names]

    @property
    def input_names(self) -> list[str]:
        """Names of the input slots."""
        return list(self.inputs)

    @property
    def output_names(self) -> list[str]:
        """Names of the output slots."""
        return list(self.outputs)

    @property
    def attr_names(self) -> list[str]:
        """Names of the attributes."""
        return list(self.attrs)

    def input(self, name: str) -> list[str]:
        """Names of the variables in an input slot."""
        return list(self.inputs.get(name, []))

    def output(self, name: str) -> list[str]:
        """Names of the variables in an output slot."""
        return list(self.outputs.get(name, []))

    def attr(self, name: str) -> Any:
        """The value of an attribute."""
        return self.attrs[name]

    def has_attr(self, name: str) -> bool:
        """Whether the operator has the attribute."""
        return name in self.attrs

    def all_attrs(self) -> dict[str, Any]:
        """Every attribute."""
        return dict(self.attrs)

    def set_attr(self, name: str, value: Any) -> None:
        """Change an attribute."""
        self.attrs[name] = value
        self.block.program.changed()

    _set_attr = set_attr

    def sub_blocks(self) -> list[int]:
        """Indices of the blocks that it runs."""
        return [self.attrs["sub_block"]] if "sub_block" in self.attrs else []

    def to_string(self, throw_on_error: bool = False) -> str:
        """The operator as a line of text."""
        shown = {k: v for k, v in sorted(self.attrs.items()) if k not in registry.IGNORED_ATTRS}
        ins = ", ".join(f"{slot}={names}" for slot, names in self.inputs.items() if names)
        outs = ", ".join(f"{slot}={names}" for slot, names in self.outputs.items() if names)
        return f"{{{outs}}} = {self.type}({ins}){' ' + str(shown) if shown else ''}"

    __str__ = __repr__ = to_string


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
    """

    def __init__(self) -> None:
        self.blocks = [Block(self, 0)]
        self.current_block_idx = 0
        self._seed = 0
        self._op_role = OpRole.Forward
        self.version = 0
        self.uid = next(_uids)
        self.feeders: list[Any] = []

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
