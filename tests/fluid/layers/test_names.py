"""Variables of whole models: names, shapes and kinds are those in files of Fluid 1.8.5."""

import json
from pathlib import Path

import pytest

import holdfast.fluid as fluid
from holdfast.fluid import layers
from holdfast.fluid.framework import RANDOM_STATE, Parameter

FIXTURES = Path(__file__).parents[2] / "fixtures" / "fluid-1.8.5"


def mlp():
    x, y = layers.data("x", [13]), layers.data("y", [1], dtype="int64")
    hidden = layers.fc(layers.fc(x, 16, act="relu"), 8, act="tanh")
    return layers.mean(layers.cross_entropy(layers.fc(hidden, 5, act="softmax"), y))


def convnet():
    img, label = layers.data("img", [1, 8, 8]), layers.data("label", [1], dtype="int64")
    h = layers.conv2d(img, num_filters=4, filter_size=3, padding=1, act=None, bias_attr=False)
    h = layers.batch_norm(h, act="relu", momentum=0.9)
    h = layers.pool2d(h, pool_size=2, pool_stride=2, pool_type="max")
    h = layers.conv2d(h, num_filters=6, filter_size=3, act="relu")
    return layers.mean(layers.cross_entropy(layers.fc(h, 5, act="softmax"), label))


@pytest.mark.parametrize(("model", "case"), [(mlp, "save_params"), (convnet, "save_persistables_adam_bn_decay")])
def test_forward_variables_are_those_of_fluid(fresh, model, case):
    main, _, _ = fresh
    expected = json.loads((FIXTURES / case / "expected.json").read_text())["list_vars"]

    loss = model()

    found = [[v.name, list(v.shape), v.dtype.name, isinstance(v, Parameter)] for v in main.list_vars()]
    forward = [[v["name"], v["shape"], v["dtype"], v["kind"] == "Parameter"] for v in expected[: len(found)]]
    assert found == forward
    assert forward[-1][0] == loss.name


def test_moving_statistics_are_parameters_that_nothing_trains(fresh):
    main, _, _ = fresh
    convnet()

    kinds = {p.name: (p.trainable, p.stop_gradient) for p in main.all_parameters() if p.name.startswith("batch_norm")}

    assert kinds == {
        "batch_norm_0.w_0": (True, False),
        "batch_norm_0.b_0": (True, False),
        "batch_norm_0.w_1": (False, True),
        "batch_norm_0.w_2": (False, True),
    }


def test_embedding_model_has_the_variables_of_fluid(fresh):
    main, _, _ = fresh
    case = json.loads((FIXTURES / "save_inference_model_embedding" / "expected.json").read_text())

    ids = layers.data("ids", [4, 1], dtype="int64")
    h = layers.reduce_mean(layers.embedding(ids, [20, 6], param_attr=fluid.ParamAttr(name="shared_w")), dim=1)
    h = layers.dropout(h, dropout_prob=0.5)
    layers.fc(h, size=3, act="softmax")
    layers.fc(h, size=1, act="sigmoid")

    found = {v.name: list(v.shape) for v in main.list_vars() if v.persistable and v.name != RANDOM_STATE}
    assert found == {name: v["shape"] for name, v in case["vars"].items()}
