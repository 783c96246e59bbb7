"""Fresh programs, a fresh scope and fresh names for every test."""

import jax
import pytest

import holdfast.fluid as fluid

# Compiling is most of what these tests do, and takes half the time without the optimisations. Processes that tests start, and
# the demo, compile as users do.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def fresh():
    """(main, startup, executor) inside guards of their own."""
    main, startup = fluid.Program(), fluid.Program()
    with (
        fluid.program_guard(main, startup),
        fluid.scope_guard(fluid.Scope()),
        fluid.unique_name.guard(),
    ):
        yield main, startup, fluid.Executor(fluid.CPUPlace())
