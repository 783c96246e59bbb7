"""`fluid.layers`: functions that add variables and operators to the default programs."""

from holdfast.fluid.layers.io import data
from holdfast.fluid.layers.math import mean
from holdfast.fluid.layers.nn import fc
from holdfast.fluid.layers.reader import create_py_reader_by_data, double_buffer, py_reader, read_file

__all__ = ["create_py_reader_by_data", "double_buffer", "py_reader", "read_file", "data", "fc", "mean"]
