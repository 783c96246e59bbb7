"""ParamAttr: what a program says of a parameter when a layer makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.fluid.regularizer import WeightDecayRegularizer

if TYPE_CHECKING:
    from holdfast.fluid.initializer import Initializer


class ParamAttr:
    """Name, initial value, learning rate and so on of a parameter.

    Args:
        name: None for the next one of the layer, such as `fc_0.w_0`. Layers that give the same name share the parameter.
        initializer: how the startup program fills it; None for the layer's own choice.
        learning_rate: a factor to the optimizer's.
        regularizer: instead of the optimizer's.
        trainable: whether optimizers change it.
        gradient_clip: a rule of `fluid.clip` for its gradient.
        do_model_average: whether `ModelAverage` takes part of it.
    """

    def __init__(
        self,
        name: str | None = None,
        initializer: Initializer | None = None,
        learning_rate: float = 1.0,
        regularizer: WeightDecayRegularizer | None = None,
        trainable: bool = True,
        gradient_clip: Any = None,
        do_model_average: bool = True,
    ) -> None:
        self.name = name
        self.initializer = initializer
        self.learning_rate = learning_rate
        self.regularizer = regularizer
        self.trainable = trainable
        self.gradient_clip = gradient_clip
        self.do_model_average = do_model_average

    @staticmethod
    def to_attr(arg: Any) -> Any:
        """The ParamAttr for what layers accept in its place: None, a name, an initializer, a regularizer, True, or False.

        Returns:
            A ParamAttr of its own; False if the layer is to have no such parameter; a list for a list.
        """
        from holdfast.fluid.initializer import Initializer

        if arg is None or arg is True:
            return ParamAttr()
        if arg is False:
            return False
        if isinstance(arg, list | tuple):
            return [ParamAttr.to_attr(a) for a in arg]
        if isinstance(arg, ParamAttr):
            return arg
        if isinstance(arg, str):
            return ParamAttr(name=arg)
        if isinstance(arg, Initializer):
            return ParamAttr(initializer=arg)
        if isinstance(arg, WeightDecayRegularizer):
            return ParamAttr(regularizer=arg)
        raise TypeError(f"{arg!r} is no ParamAttr, nor a name, initializer, regularizer or bool in its place")


class WeightNormParamAttr(ParamAttr):
    """A weight as direction and length (weight normalisation): not planned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("WeightNormParamAttr is not supported, and not planned; use ParamAttr")
