"""Every public name of Fluid 1.8.5 is there: what works, and what says that it does not."""

import json
from pathlib import Path

import pytest

import holdfast.fluid as fluid
from holdfast.fluid import unsupported

NAMES = json.loads((Path(__file__).parent / "golden" / "names185.json").read_text())
# Still to come, by owner.
# What eager mode needs, and is not there.
PENDING = {"fluid.io": {"default_collate_fn"}, "fluid.reader": {"default_collate_fn"}}
# What programs reach as fluid.name only.
ON_TOP = ("fluid.framework", "fluid.executor")


def _module(path):
    found = fluid
    for part in path.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", NAMES)
def test_every_public_name_exists(path):
    module = _module(path)

    missing = {n for n in NAMES[path] if not hasattr(module, n) and not (path in ON_TOP and hasattr(fluid, n))}

    assert missing - PENDING.get(path, set()) == set()


@pytest.mark.parametrize("where", ["fluid", "layers", "transpiler"])
def test_unsupported_name_refuses_when_called_and_says_why(where):
    module = fluid if where == "fluid" else getattr(fluid, where)
    for name, missing in unsupported.names(where).items():
        with pytest.raises(NotImplementedError, match=f"{name} is not provided.*planned"):
            getattr(module, name)(1, key=2)
        assert 3 <= missing.tier <= 5


def test_unsupported_names_are_not_defined_elsewhere():
    defined = set(fluid.layers.__all__)

    assert defined & set(unsupported.names("layers")) == set()


def test_missing_modules_are_importable_with_what_is_below_them():
    from holdfast.fluid.contrib.mixed_precision import decorate
    from holdfast.fluid.incubate.fleet.base import role_maker

    with pytest.raises(NotImplementedError, match="contrib"):
        decorate(None)
    with pytest.raises(NotImplementedError, match="parameter servers"):
        role_maker.PaddleCloudRoleMaker()
    with pytest.raises(NotImplementedError, match="eager"):
        fluid.dygraph.guard()


def test_memory_calls_do_nothing(fresh):
    main, *_ = fresh
    before = main.version

    assert fluid.memory_optimize(main) is None
    assert fluid.transpiler.release_memory(main) is None
    assert main.version == before
