"""Fluid's small settings: kept, checked, or without effect."""

import pytest

import holdfast.fluid as fluid


def test_flags_are_kept():
    fluid.set_flags({"FLAGS_test_of_ours": 3})

    assert fluid.get_flags("FLAGS_test_of_ours") == {"FLAGS_test_of_ours": 3}
    assert fluid.get_flags(["FLAGS_never_set"]) == {"FLAGS_never_set": None}
    with pytest.raises(TypeError, match="dict"):
        fluid.set_flags(["a"])


def test_versions_are_compared_with_that_of_fluid():
    fluid.require_version("1.6.0")
    fluid.require_version("1.6", "1.9.0")

    with pytest.raises(RuntimeError, match="behaves as"):
        fluid.require_version("2.0.0")
    with pytest.raises(RuntimeError, match="behaves as"):
        fluid.require_version("1.0.0", "1.5.0")
    with pytest.raises(TypeError, match="texts"):
        fluid.require_version(1.6)
    with pytest.raises(ValueError, match="no version"):
        fluid.require_version("abc")


def test_device_guard_takes_known_devices():
    with fluid.device_guard("gpu:0"), fluid.device_guard("cpu"), fluid.device_guard():
        pass
    with pytest.raises(ValueError, match="'tpu'"), fluid.device_guard("tpu"):
        pass


def test_pinned_places():
    assert fluid.cuda_pinned_places(2) == [fluid.CUDAPinnedPlace()] * 2
