"""A training program: JAX on the digits, with Flax's TrainState, optax and a typed key. Usage: digits_jax.py RUN."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from flax.training.train_state import TrainState
from resuming import EVERY, STEPS, digest, images

import holdfast


class Net(linen.Module):
    """Two layers of one shape, and dropout."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Dense(32)(x))
        x = jnp.tanh(linen.Dense(32)(jnp.tanh(linen.Dense(32)(x))))
        return linen.Dense(10)(linen.Dropout(0.2, deterministic=False)(x))


net = Net()
rates = optax.warmup_cosine_decay_schedule(0, 1e-2, 5, STEPS)
params = net.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, jnp.ones((1, 64)))["params"]
state = {
    "train": TrainState.create(apply_fn=net.apply, params=params, tx=optax.adamw(rates)),
    "key": jax.random.key(1),
    "order": np.random.default_rng(2),
    "losses": [],
}
manager = holdfast.CheckpointManager(sys.argv[1], max_to_keep=2, save_interval_steps=EVERY)
try:
    first = manager.restore(state).step + 1
except holdfast.CheckpointNotFoundError:
    first = 1


@jax.jit
def train(train: Any, key: Any, inputs: Any, labels: Any) -> Any:
    """One step."""

    def loss(params: Any) -> Any:
        out = train.apply_fn({"params": params}, inputs, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    value, gradients = jax.value_and_grad(loss)(train.params)
    return train.apply_gradients(grads=gradients), value


inputs, labels = images()
for step in range(first, STEPS + 1):
    batch = state["order"].integers(len(inputs), size=64)
    state["key"], key = jax.random.split(state["key"])
    state["train"], value = train(state["train"], key, inputs[batch], labels[batch])
    state["losses"].append(value.item())
    manager.save(state, step)
    print(f"did {step}", flush=True)

leaves = jax.tree_util.tree_leaves_with_path((state["train"].params, state["train"].opt_state))
print("began:", first)
print("arrays:", digest({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}))
print("step:", int(state["train"].step))
print("random:", jax.random.normal(state["key"], 4).tolist(), state["order"].random(4).tolist())
print("losses:", state["losses"])
