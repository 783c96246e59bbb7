"""Where the parts of a model for prediction are: the names of its files, and how a program among them is recognised."""

from __future__ import annotations

import os

from holdfast.fluid.io.program_json import FORMAT
from holdfast.format import layout
from holdfast.interop import files, fluid_names

_STABLEHLO = "model.stablehlo"


class ModelFiles:
    """Names of the files of a model.

    Attributes:
        dirname: the folder.
        model: the program's file in it.
        params: where the parameters are in it; None for the folder itself.
        stablehlo: the export's file in it.

    Raises:
        ValueError: there is no folder, or names are taken twice or by the core.
    """

    def __init__(self, dirname: str, model_filename: str | None, params_filename: str | None) -> None:
        if not dirname:
            raise ValueError("dirname must name a folder")
        self.dirname = dirname
        # As in Fluid only the last part of a path counts.
        self.model = os.path.basename(model_filename or "") or fluid_names.MODEL
        self.params = os.path.basename(params_filename or "") or None
        self.stablehlo = _STABLEHLO if self.model == fluid_names.MODEL else f"{self.model}.stablehlo"
        taken = [self.model, self.stablehlo, *([self.params] if self.params else [])]
        reserved = [n for n in taken if n == layout.MANIFEST or layout.is_listable(n) or n in (".", "..")]
        if reserved or len(set(taken)) < len(taken):
            raise ValueError(
                f"model_filename={model_filename!r} and params_filename={params_filename!r} cannot be used"
            )

    @property
    def program(self) -> str:
        """The path of the program."""
        return os.path.join(self.dirname, self.model)


def head(path: str) -> bytes:
    """The beginning of a file of JSON, without blanks."""
    with files.storage_errors(f"cannot read {path}"), open(path, "rb") as file:
        return file.read(400).replace(b" ", b"")


def is_program(path: str) -> bool:
    """Whether a file is a program as JSON."""
    return os.path.isfile(path) and f'"{FORMAT}"'.encode() in head(path)[:80]
