"""What stopped public programs of the era: each test is the smallest program of ours that shows the same."""

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import holdfast.fluid as fluid


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "holdfast.fluid", str(path), str(folder)], capture_output=True, text=True, check=False
    )


def regression() -> tuple[fluid.Variable, fluid.Variable]:
    x, y = fluid.layers.data("x", [2]), fluid.layers.data("y", [1])
    prediction = fluid.layers.fc(x, 1)
    return prediction, fluid.layers.mean(fluid.layers.square_error_cost(prediction, y))


def feed(rows: int = 4) -> dict[str, np.ndarray]:
    x = np.arange(2 * rows, dtype="float32").reshape(rows, 2)
    return {"x": x, "y": x.sum(1, keepdims=True)}


def test_fetched_arrays_of_one_value_count_as_numbers(fresh):
    main, startup, exe = fresh
    prediction, loss = regression()
    exe.run(startup)

    cost, predicted = exe.run(main, feed=feed(), fetch_list=[loss, prediction])

    assert cost.shape == (1,)
    assert float(cost) == cost[0] == float(f"{cost[0]:.9g}")
    assert "%.3f" % cost == f"{cost[0]:.3f}"  # noqa: UP031 - as the programs write it
    assert not math.isnan(cost)
    assert int(cost) == int(cost[0])
    assert complex(cost) == complex(cost[0])
    assert float(cost * 2 + cost) == pytest.approx(3 * cost[0])
    assert ["%.2f" % row for row in predicted] == [f"{row[0]:.2f}" for row in predicted]  # noqa: UP031
    with pytest.raises(TypeError, match=r"\[4, 1\] is no number"):
        float(predicted)


def test_fetched_arrays_are_arrays_as_any_other(fresh):
    main, startup, exe = fresh
    _, loss = regression()
    exe.run(startup)

    (cost,) = exe.run(main, feed=feed(), fetch_list=[loss])

    assert repr([cost]).startswith("[array([")
    assert type(pickle.loads(pickle.dumps(cost))) is np.ndarray
    assert type(np.concatenate([cost, cost])) is np.ndarray
    assert type(cost.mean()) is np.float32
    assert type(cost + np.ones(3, "float32")) is np.ndarray


def test_core_has_scopes_and_tensors():
    assert fluid.core.Scope is fluid.Scope
    assert fluid.core.LoDTensor is fluid.LoDTensor
    with pytest.raises(AttributeError, match="no attribute 'Skope'"):
        _ = fluid.core.Skope


def test_a_variable_of_unknown_shape_can_be_fed(fresh):
    main, _, exe = fresh
    a, b = (fluid.layers.create_tensor("int64", name=name) for name in "ab")
    total = fluid.layers.sum([a, b])

    out = exe.run(main, feed={"a": np.array([3, 2]), "b": np.array([1, 1])}, fetch_list=[a, b, total])

    np.testing.assert_array_equal(out, [[3, 2], [1, 1], [4, 3]])
    with pytest.raises(ValueError, match="expected int64 of any shape, found nothing"):
        exe.run(main, feed={"a": np.array([3, 2]), "b": fluid.LoDTensor()}, fetch_list=[total])


def test_tensors_of_sequences_are_made_of_lists_and_arrays():
    words = fluid.create_lod_tensor([[211], [6, 96]], [[1, 2]], fluid.CPUPlace())
    assert np.asarray(words).tolist() == [[211], [6], [96]]
    assert words.recursive_sequence_lengths() == [[1, 2]]

    rows = fluid.create_lod_tensor(np.zeros((5, 3), "float32"), np.array([[2, 3]]), fluid.CPUPlace())
    assert (rows.shape(), rows.lod()) == ([5, 3], [[0, 2, 5]])
    assert fluid.create_lod_tensor(rows, [[2], [4, 1]]).recursive_sequence_lengths() == [[2], [4, 1]]

    chance = fluid.create_random_int_lodtensor([[1], [3]], [2], fluid.CPUPlace(), low=4, high=5)
    assert chance.shape() == [3, 2]
    assert set(np.asarray(chance).ravel().tolist()) <= {4, 5}


@pytest.mark.parametrize(
    ("data", "lengths", "message"),
    [
        ([[1], [2, 3]], [[2, 1]], r"lengths \[1, 2\]"),
        (np.zeros((3, 1)), [[2, 2]], "does not fit data"),
        (np.zeros((3, 1)), [[3], [1, 2]], "does not fit data"),
        (np.zeros((3, 1)), [[4, -1]], "does not fit data"),
        (np.zeros((3, 1)), [], "does not fit data"),
    ],
)
def test_lengths_that_do_not_fit_the_data_are_an_error(data, lengths, message):
    with pytest.raises(ValueError, match=message):
        fluid.create_lod_tensor(data, lengths, fluid.CPUPlace())


def test_a_dense_program_takes_the_rows_of_a_tensor_of_sequences(fresh):
    main, startup, exe = fresh
    word = fluid.layers.data("word", [1], dtype="int64")
    vector = fluid.layers.embedding(word, [5, 3])
    exe.run(startup)

    tensor = fluid.create_lod_tensor([[4], [2]], [[1, 1]], fluid.CPUPlace())
    (of_tensor,) = exe.run(main, feed={"word": tensor}, fetch_list=[vector])

    (of_rows,) = exe.run(main, feed={"word": np.array([[4], [2]])}, fetch_list=[vector])
    np.testing.assert_array_equal(of_tensor, of_rows)


def test_a_model_loads_over_what_a_startup_program_has_just_given(fresh, tmp_path):
    main, startup, exe = fresh
    prediction, loss = regression()
    test = main.clone(for_test=True)
    fluid.optimizer.SGD(0.01).minimize(loss)
    exe.run(startup)
    exe.run(main, feed=feed())
    fluid.io.save_inference_model(tmp_path / "model", ["x"], [prediction], exe)
    (trained,) = exe.run(test, feed=feed(), fetch_list=[prediction])

    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        program, names, targets = fluid.io.load_inference_model(tmp_path / "model", exe)
        (loaded,) = exe.run(program, feed={names[0]: feed()["x"]}, fetch_list=targets)
    np.testing.assert_allclose(loaded, trained, rtol=1e-6)

    exe.run(main, feed=feed())  # training is work that a load would lose
    with pytest.raises(fluid.io.ScopeConflictError):
        fluid.io.load_inference_model(tmp_path / "model", exe)


def test_the_trainer_is_in_contrib_too_and_saves_under_the_runner(tmp_path):
    done = run(
        tmp_path,
        """
import sys
import numpy as np
import paddle
import paddle.fluid as fluid
from paddle.fluid.contrib.trainer import *
from paddle.fluid.contrib.inferencer import *

def infer():
    return fluid.layers.fc(fluid.layers.data("x", [2]), 1)

def train():
    y = fluid.layers.data("y", [1])
    return fluid.layers.mean(fluid.layers.square_error_cost(infer(), y))

def on(event):
    if isinstance(event, EndStepEvent):
        print("cost %f" % event.metrics[0])
        trainer.save_params(sys.argv[1] + "/params")

trainer = Trainer(train, lambda: fluid.optimizer.SGD(0.01), place=fluid.CPUPlace())
samples = lambda: iter([(np.ones(2, "float32"), np.ones(1, "float32"))] * 4)
trainer.train(1, on, reader=paddle.batch(samples, 2), feed_order=["x", "y"])
result, = Inferencer(infer, sys.argv[1] + "/params", place=fluid.CPUPlace()).infer({"x": np.ones((1, 2), "float32")})
print("result %.3f" % result)
print("Any" in globals(), CheckpointConfig is fluid.CheckpointConfig, fluid.contrib.trainer is fluid.trainer)
""",
    )

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["cost", "cost", "result"]
    assert lines[3] == "False True True"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{}.iteritems()", "This looks like Python 2"),
        ("import types\nraise AttributeError(\"module 'PIL.Image' has no attribute 'ANTIALIAS'\")", "pillow<10"),
        ("raise TypeError('only 0-dimensional arrays can be converted to Python scalars')", "numpy<2.4"),
        ("import paddle.v2 as paddle", "are those of `import paddle`"),
    ],
)
def test_errors_that_newer_libraries_cause_say_what_to_do(tmp_path, text, hint):
    done = run(tmp_path, text)

    assert done.returncode == 1
    assert hint in done.stderr


def test_other_attribute_errors_get_no_hint(tmp_path):
    done = run(tmp_path, "class A: pass\nA().iteritems()")

    assert done.stderr.splitlines()[-1] == "AttributeError: 'A' object has no attribute 'iteritems'"
