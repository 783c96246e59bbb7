"""Scopes, tensors and their guards."""

import numpy as np
import pytest

import holdfast.fluid as fluid


def test_a_variable_is_found_here_and_around():
    outer = fluid.Scope()
    inner = outer.new_scope()
    outer.var("a").get_tensor().set(np.ones(2, "float32"))

    assert inner.find_var("a") is outer.find_var("a")
    assert inner.find_var("b") is None
    inner.var("a")
    assert inner.find_var("a") is not outer.find_var("a")
    assert inner.local_var_names() == ["a"]
    outer.drop_kids()
    outer.erase(["a", "absent"])
    assert outer.find_var("a") is None


def test_a_tensor_takes_a_copy_and_gives_copies():
    tensor = fluid.Scope().var("a").get_tensor()
    assert tensor.shape() == []
    assert not tensor._is_initialized()
    with pytest.raises(ValueError, match="holds nothing yet"):
        np.array(tensor)
    given = np.arange(3, dtype="int64")
    tensor.set(given, fluid.CPUPlace())
    given[:] = 9
    out = np.array(tensor)
    out[:] = 8

    np.testing.assert_array_equal(np.array(tensor), [0, 1, 2])
    assert np.array(tensor).dtype == np.int64
    assert len(tensor) == 3
    assert tensor[1] == 1


def test_a_tensor_refuses_what_no_variable_holds():
    with pytest.raises(ValueError, match="none that a variable can have"):
        fluid.Scope().var("a").get_tensor().set(np.array(["text"]))


def test_levels_of_detail_as_lengths_and_offsets():
    tensor = fluid.LoDTensor(np.zeros((5, 2), "float32"))
    tensor.set_recursive_sequence_lengths([[2, 0, 3]])

    assert tensor.lod() == [[0, 2, 2, 5]]
    assert tensor.recursive_sequence_lengths() == [[2, 0, 3]]
    assert tensor.has_valid_recursive_sequence_lengths()
    tensor.set_lod([[0, 4]])
    assert not tensor.has_valid_recursive_sequence_lengths()


def test_guards_nest_and_take_scopes_only():
    a, b = fluid.Scope(), fluid.Scope()
    before = fluid.global_scope()
    with fluid.scope_guard(a):
        with fluid.scope_guard(b):
            assert fluid.global_scope() is b
        assert fluid.global_scope() is a
    assert fluid.global_scope() is before
    with pytest.raises(TypeError, match="needs a fluid.Scope"), fluid.scope_guard({}):
        pass


def test_loads_are_forgotten_when_told():
    scope = fluid.Scope()
    for name in "ab":
        scope.var(name).loaded_from = "model"
    scope.forget_loads(["a"])

    assert [scope.find_var(n).loaded_from for n in "ab"] == [None, "model"]
    scope.forget_loads()
    assert scope.find_var("b").loaded_from is None
