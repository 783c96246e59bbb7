"""Writes what Fluid 1.8.5 makes of `cases.py`: run it with a Python 3.7 that has paddlepaddle 1.8.5, `python record.py OUT`."""

import json
import sys

import numpy as np
import paddle.fluid as fluid
from cases import CASES, feeds

# ruff: noqa: SIM905
# Attributes that say who added an operator, or how kernels for one kind of processor are to work.
SKIPPED = set(
    "op_role op_role_var op_namescope op_callstack op_device use_mkldnn use_cudnn use_quantizer mkldnn_data_type x_data_format "
    "y_data_format Scale_x Scale_y Scale_out scale_x scale_y scale_out force_fp32_output in_dtype seed".split()
)


def plain(value):
    if isinstance(value, (fluid.framework.Block, fluid.core.BlockDesc)):
        return "block"
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def variables(program):
    return [
        [v.name, list(v.shape), int(v.dtype), bool(v.persistable), bool(v.stop_gradient)]
        for v in program.global_block().vars.values()
        if v.type == fluid.core.VarDesc.VarType.LOD_TENSOR
    ]


def operators(program):
    return [
        [
            op.type,
            {n: op.input(n) for n in sorted(op.input_names) if op.input(n)},
            {n: op.output(n) for n in sorted(op.output_names) if op.output(n)},
            {n: plain(op.attr(n)) for n in sorted(op.attr_names) if n not in SKIPPED},
        ]
        for op in program.global_block().ops
    ]


def record(function, values=True):
    main, startup = fluid.Program(), fluid.Program()
    made = {}
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        try:
            outputs = function(fluid)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"}
        made["outputs"] = [v.name for v in outputs]
        made["variables"], made["operators"] = variables(main), operators(main)
        made["startup"] = operators(startup)
        made["shapes"] = [[list(v.shape), int(v.dtype)] for v in outputs]
        if values:
            exe = fluid.Executor(fluid.CPUPlace())
            try:
                exe.run(startup)
                found = exe.run(main, feed=feeds(main), fetch_list=outputs)
                # Seven digits are all that float32 has.
                made["values"] = [
                    [str(v.dtype), list(v.shape), [float(f"{e:.7g}") for e in np.asarray(v).ravel()]] for v in found
                ]
            except Exception as error:
                made["run_error"] = str(error).strip().splitlines()[-1][:300]
    return made


if __name__ == "__main__":
    found = {name: record(function, **options) for name, (function, options) in CASES.items()}
    with open(sys.argv[1], "w") as file:
        file.write(
            "{\n" + ",\n".join(json.dumps(n) + ": " + json.dumps(v, sort_keys=True) for n, v in found.items()) + "\n}\n"
        )
