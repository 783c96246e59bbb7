"""Holdfast for a benchmark that measures many libraries, and finds their adapters in folders that it is told of."""

from adapters import Adapter


class Holdfast(Adapter):
    """Saves durably; verifies every digest on every load."""

    name = "holdfast"
    framework = "numpy"
    core = True
    verify = True

    def __init__(self):
        import holdfast

        self.lib = holdfast

    def save(self, state, path):
        self.lib.save_params(self.lib.parameters(state), path)

    def open(self, path):
        return self.lib.open(path, verify=self.verify)

    def load(self, path):
        with self.open(path) as checkpoint:
            return checkpoint.read()

    def load_into(self, path, state):
        self.lib.load_params(self.lib.parameters(state), path, verify=self.verify)

    def load_one(self, path, name):
        with self.open(path) as checkpoint:
            return checkpoint[name][...]

    def names(self, path):
        with self.open(path) as checkpoint:
            return [(name, variable.shape) for name, variable in checkpoint.variables.items()]


class HoldfastUnverified(Holdfast):
    """The same without looking at the digests: what verifying costs."""

    name = "holdfast unverified"
    core = False
    verify = False
    workloads = frozenset({"big", "many"})  # the saves are the same
