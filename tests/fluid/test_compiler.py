"""CompiledProgram and ParallelExecutor: the values of one device, on several."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from tests.fluid.models import batch, descend, regression, values

import holdfast.fluid as fluid


def test_one_device_gives_the_same_values(fresh):
    main, startup, exe = fresh
    startup.random_seed = 5
    _, loss = regression()
    descend(loss)
    exe.run(startup)
    plain = [exe.run(main, feed=batch(), fetch_list=[loss])[0] for _ in range(3)]
    after = values(main)
    exe.run(startup)
    compiled = fluid.CompiledProgram(main).with_data_parallel(loss_name=loss.name, places=fluid.cpu_places())
    again = [exe.run(compiled, feed=batch(), fetch_list=[loss])[0] for _ in range(3)]

    np.testing.assert_array_equal(plain, again)
    for name, value in values(main).items():
        np.testing.assert_array_equal(after[name], value)


SCRIPT = """
import json, numpy as np, jax, holdfast.fluid as fluid
from tests.fluid.models import batch, descend, regression, values
main, startup = fluid.Program(), fluid.Program()
startup.random_seed = 5
with fluid.program_guard(main, startup), fluid.unique_name.guard():
    prediction, loss = regression()
    descend(loss)
test = main.clone(for_test=True)
exe = fluid.Executor()
feeds = [batch(16, seed) for seed in range(4)] + [batch(13, 9)]
results = {"devices": len(jax.devices())}
for way in ("plain", "compiled", "parallel"):
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        if way == "parallel":
            runner = fluid.ParallelExecutor(False, loss_name=loss.name, main_program=main)
            results["count"] = runner.device_count
            losses = [runner.run([loss.name], feed=f)[0].item() for f in feeds]
        else:
            program = fluid.CompiledProgram(main).with_data_parallel(loss.name) if way == "compiled" else main
            losses = [exe.run(program, feed=f, fetch_list=[loss])[0].item() for f in feeds]
        if way == "compiled":
            held = fluid.global_scope().find_var("fc_0.w_0").held
            results["spread"] = len(held.sharding.device_set)
            halves = [{k: v[:8] for k, v in feeds[0].items()}, {k: v[8:] for k, v in feeds[0].items()}]
            exe.run(program, feed=halves, fetch_list=[loss])
        (out,) = exe.run(test, feed=feeds[0], fetch_list=[prediction])
        results[way] = losses
print(json.dumps(results))
"""


def test_two_devices_give_the_values_of_one():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        env={**__import__("os").environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)

    assert results["devices"] == results["count"] == results["spread"] == 2
    np.testing.assert_allclose(results["compiled"], results["plain"], rtol=1e-5)
    np.testing.assert_allclose(results["parallel"], results["plain"], rtol=1e-5)


def test_strategies_are_accepted_and_trainers_refused(fresh):
    main, _, _ = fresh
    build, execution = fluid.BuildStrategy(), fluid.ExecutionStrategy()
    build.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
    execution.num_threads = 4
    fluid.ParallelExecutor(False, main_program=main, build_strategy=build, exec_strategy=execution)
    with pytest.raises(NotImplementedError, match="num_trainers=2"):
        fluid.ParallelExecutor(False, main_program=main, num_trainers=2)
    with pytest.raises(TypeError, match="CompiledProgram needs"):
        fluid.CompiledProgram("main")
