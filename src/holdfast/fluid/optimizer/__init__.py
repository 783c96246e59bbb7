"""`fluid.optimizer`: rules that train parameters, under their long and short names."""

from holdfast.fluid.optimizer.adam import AdamaxOptimizer, AdamOptimizer, LambOptimizer
from holdfast.fluid.optimizer.adaptive import (
    AdadeltaOptimizer,
    AdagradOptimizer,
    DecayedAdagradOptimizer,
    FtrlOptimizer,
    RMSPropOptimizer,
)
from holdfast.fluid.optimizer.averaging import ExponentialMovingAverage, ModelAverage
from holdfast.fluid.optimizer.base import Optimizer
from holdfast.fluid.optimizer.momentum import LarsMomentumOptimizer, MomentumOptimizer, SGDOptimizer
from holdfast.fluid.optimizer.wrappers import (
    DGCMomentumOptimizer,
    DpsgdOptimizer,
    LookaheadOptimizer,
    PipelineOptimizer,
    RecomputeOptimizer,
)

SGD = SGDOptimizer
Momentum = MomentumOptimizer
LarsMomentum = LarsMomentumOptimizer
Adagrad = AdagradOptimizer
Adam = AdamOptimizer
Adamax = AdamaxOptimizer
Dpsgd = DpsgdOptimizer
DecayedAdagrad = DecayedAdagradOptimizer
Adadelta = AdadeltaOptimizer
RMSProp = RMSPropOptimizer
Ftrl = FtrlOptimizer
Lamb = LambOptimizer

__all__ = [
    "SGD", "Adadelta", "AdadeltaOptimizer", "Adagrad", "AdagradOptimizer", "Adam", "AdamOptimizer", "Adamax",
    "AdamaxOptimizer", "DGCMomentumOptimizer", "DecayedAdagrad", "DecayedAdagradOptimizer", "Dpsgd", "DpsgdOptimizer",
    "ExponentialMovingAverage", "Ftrl", "FtrlOptimizer", "Lamb", "LambOptimizer", "LarsMomentum",
    "LarsMomentumOptimizer", "LookaheadOptimizer", "ModelAverage", "Momentum", "MomentumOptimizer", "Optimizer",
    "PipelineOptimizer", "RMSProp", "RMSPropOptimizer", "RecomputeOptimizer", "SGDOptimizer",
]  # fmt: skip
