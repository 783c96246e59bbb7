"""Writes what Fluid 1.8.5 makes of `cases_nn.py`: `python record_nn.py OUT`, with a Python 3.7 that has paddlepaddle 1.8.5."""

# ruff: noqa: UP031

import json
import sys

import paddle.fluid as fluid
from cases_nn import CASES, observe

found = {name: observe(fluid, build) for name, build in sorted(CASES.items())}
with open(sys.argv[1], "w") as file:
    file.write(
        "{\n"
        + ",\n".join("%s: %s" % (json.dumps(k), json.dumps(v, sort_keys=True)) for k, v in sorted(found.items()))
        + "\n}\n"
    )
