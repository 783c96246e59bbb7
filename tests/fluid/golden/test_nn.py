"""Neural-network layers against Fluid 1.8.5: variables, values, gradients, and what two runs leave in the scope."""

import json
from pathlib import Path

import numpy as np
import pytest

import holdfast.fluid as fluid
from fluid.golden.cases_nn import CASES, observe

GOLDEN = json.loads((Path(__file__).parent / "nn185.json").read_text())
# Fluid 1.8.5 says float32 of the places that its operator writes as int32, and nothing of dropout's mask in tests.
DESCRIBED_WRONGLY = (
    "max_pool2d_with_index_0.tmp_1",
    "max_pool3d_with_index_0.tmp_1",
    "dropout_0.tmp_1",
    "dropout_1.tmp_1",
)


def described(variables):
    return [v for v in variables if v[0] not in DESCRIBED_WRONGLY]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, (shape, length, products) in expected.items():
        assert found[name][0] == shape, name
        # Sums of float32 in another order: 1e-4 of the length is far below what one wrong element makes.
        np.testing.assert_allclose(found[name][1], length, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[name][2], products, rtol=0, atol=1e-4 * length + 1e-5, err_msg=name)


def test_every_case_is_recorded():
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_layers_do_what_fluid_did(name):
    expected = GOLDEN[name]

    found = observe(fluid, CASES[name])

    assert described(found["variables"]) == described(expected["variables"])
    assert found["outputs"] == expected["outputs"]
    assert_same(found["fetched"], expected["fetched"])
    assert_same(found["kept"], expected["kept"])
