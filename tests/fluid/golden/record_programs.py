"""Writes the programs of real Fluid 1.8.5, with gradients and updates, as its own bytes: `python record_programs.py OUT.zip`.

Run it with a Python 3.7 that has paddlepaddle 1.8.5. They are those of `cases_nn.py` and of the optimizers' cases, so what they
compute is recorded already, in nn185.json and fluid-1.8.5.json.
"""

# ruff: noqa: UP031

import importlib.util
import json
import os
import sys
import zipfile

import cases_nn
import paddle.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
_spec = importlib.util.spec_from_file_location("cases", os.path.join(HERE, "../optimizer/golden/cases.py"))
rules = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rules)
RULES = [("optimizer/" + n, c) for group in (rules.RULES, rules.AVERAGES, rules.SCHEDULES) for n, c in group.items()]


def train(name, case):
    """What is fetched: the loss, and the rate of a schedule."""
    loss = rules.network(fluid, name.split("/")[1])
    made = case(fluid, loss)
    return [loss.name] + ([made.name] if name.split("/")[1] in rules.SCHEDULES else [])


def differentiate(name, build):
    """As `cases_nn.observe` does it."""
    outputs = build(fluid)
    weighted = []
    for k, v in enumerate(outputs):
        if cases_nn.kind(v.dtype) == "float32" and build.__name__ not in cases_nn.FORWARD_ONLY:
            seed = cases_nn.var(fluid, "seed%d" % k, v.shape, stop=True)
            weighted.append(fluid.layers.reduce_sum(fluid.layers.elementwise_mul(v, seed)))
    if weighted:
        fluid.backward.append_backward(fluid.layers.sums(weighted))
    return [v.name for v in outputs]


def put(archive, name, program):
    """A program's bytes, without where the code stands that added its operators."""
    for block in program.blocks:
        for op in block.ops:
            for attribute in ("op_callstack", "op_namescope"):
                if op.has_attr(attribute):
                    op.desc.remove_attr(attribute)
    entry = zipfile.ZipInfo(name)  # the same bytes whenever it is recorded
    archive.writestr(entry, program.desc.serialize_to_string(), zipfile.ZIP_DEFLATED)


with zipfile.ZipFile(sys.argv[1], "w") as archive:
    fetched = {}
    every = [(n, c, train) for n, c in RULES] + [("nn/" + n, c, differentiate) for n, c in cases_nn.CASES.items()]
    for name, case, build in sorted(every, key=lambda each: each[0]):
        main, startup = fluid.Program(), fluid.Program()
        with fluid.program_guard(main, startup), fluid.unique_name.guard():
            fetched[name] = build(name, case)
        put(archive, name + ".main", main)
        put(archive, name + ".startup", startup)
    archive.writestr(zipfile.ZipInfo("fetched.json"), json.dumps(fetched, sort_keys=True), zipfile.ZIP_DEFLATED)
