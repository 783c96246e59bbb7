"""Makes `import paddle` find Holdfast's modules: which name is which module, and what is said of the others.

The modules are the same objects under both names, so `paddle.fluid.layers is holdfast.fluid.layers`. A Paddle that is
installed is neither loaded nor touched: this finder stands first and answers every name below `paddle`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from holdfast.fluid.paddle.unplanned import UnplannedModule

FLUID = "holdfast.fluid"
PADDLE = "holdfast.fluid.paddle"

# Modules of ours below holdfast.fluid that are no part of Fluid.
_PRIVATE = ("paddle.fluid.paddle", "paddle.fluid.runner", "paddle.fluid.__main__")

_PSERVER = "parameter servers and fleets are not planned; Holdfast's own checkpoints are made for many trainers"
_EAGER = "eager mode (dygraph) and the names of Paddle 2 are not planned"
# Known modules without a counterpart: programs import them far more often than they run them.
UNPLANNED = {
    "paddle.distributed": _PSERVER,
    "paddle.fluid.communicator": _PSERVER,
    "paddle.fluid.concurrency": "channels and Go blocks are not planned",
    "paddle.fluid.contrib": "contrib (quantisation, decoders, model statistics) is not planned",
    "paddle.fluid.dataset": "in-memory datasets of the parameter-server trainers are not planned; use a reader",
    "paddle.fluid.debugger": "drawing programs is not planned; print str(program)",
    "paddle.fluid.distribute_lookup_table": _PSERVER,
    "paddle.fluid.distributed": _PSERVER,
    "paddle.fluid.dygraph": _EAGER,
    "paddle.fluid.graphviz": "drawing programs is not planned; print str(program)",
    "paddle.fluid.incubate": _PSERVER,
    "paddle.fluid.inference_transpiler": "fusing for inference is XLA's work here; drop the call",
    "paddle.fluid.net_drawer": "drawing programs is not planned; print str(program)",
    "paddle.fluid.recordio_writer": "RecordIO files are not planned; use a reader",
    "paddle.fluid.transpiler": _PSERVER,
    "paddle.dataset.flowers": "pictures of the flowers data set are not parsed; write a reader of your own",
    "paddle.dataset.mq2007": "the rar archive of MQ2007 is not parsed; write a reader of your own",
    "paddle.dataset.voc2012": "pictures of the VOC data set are not parsed; write a reader of your own",
    "paddle.incubate": _EAGER,
    "paddle.nn": _EAGER,
    "paddle.tensor": _EAGER,
}
_NOT_SERVED = {
    "paddle.v2": "the API before Fluid is out of scope; batch, reader and dataset are those of `import paddle`"
}


def own_name(name: str) -> str:
    """Our name of the module that programs call `name`."""
    if name == "paddle.fluid" or name.startswith("paddle.fluid."):
        return FLUID + name.removeprefix("paddle.fluid")
    return PADDLE + name.removeprefix("paddle")


def alias_name(own: str) -> str | None:
    """What programs call a module of ours; None if they cannot reach it."""
    if own == PADDLE or own.startswith(PADDLE + "."):
        return "paddle" + own.removeprefix(PADDLE)
    if own == FLUID or own.startswith(FLUID + "."):
        name = "paddle.fluid" + own.removeprefix(FLUID)
        return None if _is_below(name, _PRIVATE) else name
    return None


def serve() -> None:
    """From now on `import paddle` gives Holdfast's modules, in this process.

    Raises:
        RuntimeError: another `paddle` was imported before.
    """
    loaded = sys.modules.get("paddle")
    if loaded is not None and loaded is not sys.modules.get(PADDLE):
        where = getattr(loaded, "__file__", None) or repr(loaded)
        raise RuntimeError(f"another paddle is loaded already, from {where}; run the script in a process of its own")
    if not any(isinstance(finder, PaddleFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, PaddleFinder())


class PaddleFinder(MetaPathFinder):
    """Answers every name from `paddle` on down, with a module of ours or with an error: never with None."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module below `paddle`; None for any other.

        Raises:
            ModuleNotFoundError: Holdfast has no such module; the message says why.
        """
        del path, target
        if not _is_below(fullname, ("paddle",)):
            return None
        own = own_name(fullname)
        if not _is_below(fullname, _PRIVATE) and (own in sys.modules or _exists(own)):
            return ModuleSpec(fullname, _Alias(own))
        if (why := _reason(fullname, UNPLANNED)) is not None:
            return ModuleSpec(fullname, _Stub(why))
        why = _reason(fullname, _NOT_SERVED) or "no module of this name is provided by Holdfast's Fluid front end"
        raise ModuleNotFoundError(f"No module named {fullname!r}: {why}", name=fullname)


class _Alias(Loader):
    def __init__(self, own: str) -> None:
        self.own = own
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        del spec
        module = importlib.import_module(self.own)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has just put the alias's there
        # What this module imported of itself is there under both names, as it would be in Paddle. It also keeps
        # `import paddle.batch` from replacing the function paddle.batch by its module.
        for own, loaded in list(sys.modules.items()):
            name = alias_name(own) if own.startswith(self.own + ".") else None
            if name is not None:
                sys.modules.setdefault(name, loaded)


class _Stub(Loader):
    def __init__(self, why: str) -> None:
        self.why = why

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return UnplannedModule(spec.name, self.why)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _is_below(name: str, roots: Sequence[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def _reason(name: str, table: dict[str, str]) -> str | None:
    return next((why for root, why in table.items() if _is_below(name, (root,))), None)


def _exists(own: str) -> bool:
    try:
        return importlib.util.find_spec(own) is not None
    except ModuleNotFoundError:  # a parent is a plain module, or is not there
        return False
