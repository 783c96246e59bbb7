"""`fluid.nets`: a few layers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.fluid import layers
from holdfast.fluid.framework import Variable

__all__ = ["glu", "img_conv_group", "scaled_dot_product_attention", "sequence_conv_pool", "simple_img_conv_pool"]


def simple_img_conv_pool(
    input: Variable,
    num_filters: int,
    filter_size: Any,
    pool_size: Any,
    pool_stride: Any,
    pool_padding: Any = 0,
    pool_type: str = "max",
    global_pooling: bool = False,
    conv_stride: Any = 1,
    conv_padding: Any = 0,
    conv_dilation: Any = 1,
    conv_groups: int | None = 1,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: str | None = None,
    use_cudnn: bool = True,
) -> Variable:
    """`conv2d`, then `pool2d`; see these for the arguments."""
    out = layers.conv2d(
        input, num_filters, filter_size, stride=conv_stride, padding=conv_padding, dilation=conv_dilation,
        groups=conv_groups, param_attr=param_attr, bias_attr=bias_attr, act=act, use_cudnn=use_cudnn,
    )  # fmt: skip
    return layers.pool2d(
        out, pool_size=pool_size, pool_type=pool_type, pool_stride=pool_stride, pool_padding=pool_padding,
        global_pooling=global_pooling, use_cudnn=use_cudnn,
    )  # fmt: skip


def img_conv_group(
    input: Variable,
    conv_num_filter: Sequence[int],
    pool_size: Any,
    conv_padding: Any = 1,
    conv_filter_size: Any = 3,
    conv_act: str | None = None,
    param_attr: Any = None,
    conv_with_batchnorm: Any = False,
    conv_batchnorm_drop_rate: Any = 0.0,
    pool_stride: Any = 1,
    pool_type: str = "max",
    use_cudnn: bool = True,
) -> Variable:
    """Convolutions one after another, each with batch_norm and dropout if wanted, then `pool2d`, as in VGG.

    Args:
        input: images.
        conv_num_filter: number of filters of each convolution.
        pool_size, pool_stride, pool_type, use_cudnn: see `pool2d`.
        conv_padding, conv_filter_size, param_attr: of every convolution, or a list with one for each.
        conv_act: name of an activation, after the batch_norm if there is one.
        conv_with_batchnorm: whether there is one; may be a list.
        conv_batchnorm_drop_rate: probability of the dropout after it; may be a list.
    """
    count = len(conv_num_filter)

    def each(value: Any, name: str) -> list[Any]:
        if not hasattr(value, "__len__") or isinstance(value, str):
            return [value] * count
        if len(value) != count:
            raise ValueError(f"img_conv_group: {count} convolutions, but {len(value)} values of {name}")
        return list(value)

    paddings, sizes = each(conv_padding, "conv_padding"), each(conv_filter_size, "conv_filter_size")
    attrs, norms = each(param_attr, "param_attr"), each(conv_with_batchnorm, "conv_with_batchnorm")
    rates = each(conv_batchnorm_drop_rate, "conv_batchnorm_drop_rate")
    out = input
    for filters, padding, size, attr, norm, rate in zip(
        conv_num_filter, paddings, sizes, attrs, norms, rates, strict=True
    ):
        act = None if norm else conv_act
        out = layers.conv2d(out, filters, size, padding=padding, param_attr=attr, act=act, use_cudnn=use_cudnn)
        if norm:
            out = layers.batch_norm(out, act=conv_act)
            if abs(rate) > 1e-5:
                out = layers.dropout(out, dropout_prob=rate)
    return layers.pool2d(out, pool_size=pool_size, pool_type=pool_type, pool_stride=pool_stride, use_cudnn=use_cudnn)


def sequence_conv_pool(*args: Any, **kwargs: Any) -> Variable:
    """Convolution and pooling of sequences: planned, not there yet."""
    raise NotImplementedError(
        "fluid.nets.sequence_conv_pool: sequences (LoD) are planned and not supported yet; pad them to one length and use conv2d"
    )


def glu(input: Variable, dim: int = -1) -> Variable:
    """A gated linear unit: one half of the input times the sigmoid of the other, split along `dim`."""
    left, right = layers.split(input, num_or_sections=2, dim=dim)
    return layers.elementwise_mul(left, layers.sigmoid(right))


def scaled_dot_product_attention(
    queries: Variable, keys: Variable, values: Variable, num_heads: int = 1, dropout_rate: float = 0.0
) -> Variable:
    """Attention: for each query the mean of the values, weighted by how well their keys fit.

    Args:
        queries: (batch, queries, size).
        keys: (batch, keys, size).
        values: (batch, keys, size of values).
        num_heads: with more than one, each is projected by an `fc` first.
        dropout_rate: of the weights.

    Returns:
        (batch, queries, size of values).
    """
    shapes = {name: v.shape for name, v in (("queries", queries), ("keys", keys), ("values", values))}
    problems = [f"{name} must have three dimensions" for name, shape in shapes.items() if len(shape) != 3]
    if not problems:
        if queries.shape[-1] != keys.shape[-1]:
            problems.append("queries and keys must have one size")
        if keys.shape[-2] != values.shape[-2]:
            problems.append("there must be as many values as keys")
        if keys.shape[-1] % num_heads or values.shape[-1] % num_heads:
            problems.append(f"sizes must be multiples of num_heads={num_heads}")
    if len({v.dtype for v in (queries, keys, values)}) > 1:
        problems.append("the dtypes must be the same")
    if problems:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"scaled_dot_product_attention: {'; '.join(problems)} ({found})")
    size = keys.shape[-1] // num_heads
    q, k, v = queries, keys, values
    if num_heads > 1:
        q, k, v = (layers.fc(each, size=each.shape[-1], num_flatten_dims=2) for each in (q, k, v))
        q, k, v = (_split_heads(each, num_heads) for each in (q, k, v))
    product = layers.matmul(layers.scale(q, scale=size**-0.5), k, transpose_y=True)
    flat = layers.reshape(product, shape=[-1, product.shape[-1]], act="softmax")
    weights = layers.reshape(flat, shape=product.shape)
    if dropout_rate:
        weights = layers.dropout(weights, dropout_prob=dropout_rate)
    context = layers.matmul(weights, v)
    if num_heads == 1:
        return context
    joined = layers.transpose(context, perm=[0, 2, 1, 3])
    return layers.reshape(joined, shape=[*joined.shape[:2], joined.shape[2] * joined.shape[3]])


def _split_heads(x: Variable, num_heads: int) -> Variable:
    split = layers.reshape(x, shape=[*x.shape[:-1], num_heads, x.shape[-1] // num_heads])
    return layers.transpose(split, perm=[0, 2, 1, 3])
