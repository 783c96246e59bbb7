"""Fresh programs, a fresh scope and fresh names for every test."""

import pytest

import holdfast.fluid as fluid


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
