"""`fluid.evaluator`: the names can be imported. All three evaluators need operators that are not provided."""

from holdfast.fluid.paddle.unplanned import Unplanned

__all__ = ["ChunkEvaluator", "DetectionMAP", "EditDistance"]

ChunkEvaluator = Unplanned(
    "fluid.evaluator.ChunkEvaluator",
    "its operator chunk_eval belongs to sequence tagging; fluid.metrics.ChunkEvaluator adds up counts",
)
DetectionMAP = Unplanned("fluid.evaluator.DetectionMAP", "object detection is not planned")
EditDistance = Unplanned("fluid.evaluator.EditDistance", "CTC and edit distances are not planned")
