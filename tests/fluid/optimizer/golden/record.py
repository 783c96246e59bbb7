"""Writes fluid-1.8.5.json beside this file; run with a Python that has paddlepaddle 1.8.5."""

import json
import os

import cases
import numpy as np
import paddle.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))


def numbers(array):
    """Values that give the same float32 back when they are read."""
    array = np.asarray(array)
    return [int(v) if array.dtype.kind == "i" else float(f"{v:.9g}") for v in array.ravel()]


def state(main, scope):
    """Every persistable, in the order of list_vars."""
    found = []
    for variable in main.list_vars():
        if fluid.io.is_persistable(variable):
            value = np.array(scope.find_var(variable.name).get_tensor())
            found.append([variable.name, str(value.dtype), list(value.shape), numbers(value)])
    return found


def run(name, case):
    """One case: the program's variables, its state before and after, and what every step gave."""
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    main.random_seed = startup.random_seed = 11
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.program_guard(main, startup), fluid.scope_guard(scope), fluid.unique_name.guard():
        loss = cases.network(fluid, name)
        made = case(fluid, loss)
        exe.run(startup)
        for parameter in main.all_parameters():
            value = np.random.RandomState(len(parameter.name)).randn(*parameter.shape).astype("float32")
            scope.find_var(parameter.name).get_tensor().set(value, fluid.CPUPlace())
        record = {"before": state(main, scope)}
        fetch = [loss, made] if name in cases.SCHEDULES else [loss]
        record["steps"] = [
            [numbers(v)[0] for v in exe.run(main, feed=feed, fetch_list=fetch)] for feed in cases.feeds()
        ]
        record["after"] = state(main, scope)
        if name in cases.AVERAGES:
            with made.apply(exe):
                record["applied"] = state(main, scope)
            record["restored"] = state(main, scope)
        record["variables"] = [v.name for v in main.list_vars() if "@GRAD" not in v.name]
    return record


if __name__ == "__main__":
    every = {}
    for group in (cases.RULES, cases.AVERAGES, cases.SCHEDULES):
        for name, case in group.items():
            every[name] = run(name, case)
    with open(os.path.join(HERE, "fluid-1.8.5.json"), "w") as out:
        out.write("{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v) for k, v in sorted(every.items())) + "\n}\n")
