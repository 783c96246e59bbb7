"""Weight decay: terms that are added to the gradients of parameters."""

from __future__ import annotations

from typing import Any


class WeightDecayRegularizer:
    """Base of the rules; `append_regularization_op` gives the term for a parameter."""

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        raise NotImplementedError
