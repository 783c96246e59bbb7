"""The four code blocks of the PaddlePaddle Fluid guide as printed there, with a model around them, and checks of what they did.

Run with `import holdfast.fluid as fluid` by plain Python, and as it stands by `python -m holdfast.fluid`.
"""

import numpy as np

import paddle.fluid as fluid


def build():
    image = fluid.layers.data(name="image", shape=[8], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    hidden = fluid.layers.fc(input=image, size=16, act="relu")
    predict = fluid.layers.fc(input=hidden, size=4, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(input=predict, label=label))
    return loss


def held(program):
    scope = fluid.global_scope()
    return {v.name: np.array(scope.find_var(v.name).get_tensor()) for v in program.list_vars() if v.persistable}


def same(a, b):
    return sorted(a) == sorted(b) and all(np.array_equal(a[n], b[n]) for n in a)


random = np.random.RandomState(0)
batch = {"image": random.randn(16, 8).astype("float32"), "label": random.randint(0, 4, (16, 1))}
loss = build()
test_program = fluid.default_main_program().clone(for_test=True)
fluid.optimizer.Adam(learning_rate=fluid.layers.exponential_decay(0.01, 5, 0.5)).minimize(loss)
start = fluid.Executor(fluid.CPUPlace())
start.run(fluid.default_startup_program())
for _ in range(5):
    start.run(feed=batch, fetch_list=[loss])

# 1. Saving parameters, as printed.
exe = fluid.Executor(fluid.CPUPlace())
param_path = "./my_paddle_model"
prog = fluid.default_main_program()
fluid.io.save_params(executor=exe, dirname=param_path, main_program=None)

parameters = {v.name: held(prog)[v.name] for v in prog.list_vars() if fluid.io.is_parameter(v)}
(expected_loss,) = exe.run(test_program, feed=batch, fetch_list=[loss])

# 2. Saving checkpoints, as printed; ten times, so that there is a serial 9 as in the last block.
for _ in range(10):
    exe.run(feed=batch)
    exe = fluid.Executor(fluid.CPUPlace())
    path = "./checkpoints"
    prog = fluid.default_main_program()
    trainer_args = {"epoch_id": 200,
                    "step_id": 20} # just an example
    fluid.io.save_checkpoint(executor=exe,
                                checkpoint_dir=path,
                                trainer_id=0,
                                trainer_args=trainer_args,
                                main_program=prog,
                                max_num_checkpoints=3)

at_checkpoint = held(prog)
losses = [exe.run(feed=batch, fetch_list=[loss])[0].item() for _ in range(3)]
assert fluid.io.get_latest_checkpoint_serial(path) == 9

# 3. Loading parameters, as printed: startup first, and a program without updates.
with fluid.scope_guard(fluid.Scope()):
    start.run(fluid.default_startup_program())
    with fluid.program_guard(test_program):
        exe = fluid.Executor(fluid.CPUPlace())
        param_path = "./my_paddle_model"
        prog = fluid.default_main_program()
        fluid.io.load_params(executor=exe, dirname=param_path,
                             main_program=prog)
        (again,) = exe.run(prog, feed=batch, fetch_list=[loss])
        assert again == expected_loss
        assert same(parameters, held(prog))

# 4. Loading a checkpoint, as printed.
with fluid.scope_guard(fluid.Scope()):
    start.run(fluid.default_startup_program())
    exe = fluid.Executor(fluid.CPUPlace())
    path = "./checkpoints"
    prog = fluid.default_main_program()
    fluid.io.load_checkpoint(executor=exe, checkpoint_dir=path,
                             serial=9, main_program=prog)
    assert same(at_checkpoint, held(prog))
    assert [exe.run(feed=batch, fetch_list=[loss])[0].item() for _ in range(3)] == losses

print("the guide's four blocks did what the guide says")
