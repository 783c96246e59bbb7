import numpy as np
import pytest

import holdfast.fluid as fluid
from holdfast.fluid.regularizer import L1Decay, L1DecayRegularizer, L2Decay, L2DecayRegularizer

L = fluid.layers


@pytest.mark.parametrize(
    ("own", "common", "term"),
    [
        (None, L2Decay(0.5), lambda w: 0.5 * w),
        (None, L1Decay(0.5), lambda w: 0.5 * np.sign(w)),
        (L1Decay(0.25), L2Decay(0.5), lambda w: 0.25 * np.sign(w)),
        (L2Decay(0.25), None, lambda w: 0.25 * w),
        (None, None, lambda w: 0 * w),
    ],
)
def test_term_is_added_after_clipping_and_a_parameters_own_rule_goes_before(own, common, term, fresh):
    main, startup, exe = fresh
    weight = np.array([[2.0], [-3.0], [0.0]], "float32")
    initializer = fluid.initializer.NumpyArrayInitializer(weight)
    attr = fluid.ParamAttr(initializer=initializer, regularizer=own)
    loss = L.mean(L.fc(L.data("x", [3]), 1, param_attr=attr, bias_attr=False))
    clip = fluid.clip.GradientClipByValue(0.1)
    fluid.optimizer.SGD(1.0, regularization=common, grad_clip=clip).minimize(loss)
    exe.run(startup)

    exe.run(main, feed={"x": np.ones((2, 3), "float32")}, fetch_list=[loss])

    after = np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())
    np.testing.assert_allclose(after, weight - (0.1 + term(weight)), rtol=1e-6)


def test_long_names_are_the_same_rules():
    assert L1Decay is L1DecayRegularizer
    assert L2Decay is L2DecayRegularizer
    assert str(L2Decay(0.1)) == "L2Decay, regularization_coeff=0.100000"
    assert str(L1Decay(0.1)) == "L1Decay, regularization_coeff=0.100000"
