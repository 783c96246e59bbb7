"""A model for prediction out of the small network in training, and what it predicts when it is loaded."""

from tests.fluid.trained import batches

import holdfast.fluid as fluid

X = batches(1, seed=5)[0]["x"]


def save(net, path, *args, **kwargs):
    with fluid.scope_guard(net.scope):
        return fluid.io.save_inference_model(path, ["x"], [net.prediction], net.exe, net.main, *args, **kwargs)


def predicted(net, path, *args, x=X):
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(path, net.exe, *args)
        assert feeds == ["x"]
        assert [v.name for v in fetches] == [net.prediction.name]
        return net.exe.run(program, feed={"x": x}, fetch_list=fetches)[0]
