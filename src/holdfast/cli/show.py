"""`holdfast show`: what one checkpoint holds, without reading a value."""

from __future__ import annotations

from typing import Any

import holdfast
from holdfast.cli.exits import DONE
from holdfast.cli.output import Column, Output, Row
from holdfast.cli.targets import target
from holdfast.cli.texts import VALUE_CHARACTERS, count, shape, shortened, size, summary, tidy, value_text
from holdfast.comparing import trainer_ids, typed
from holdfast.reading import Checkpoint, is_bare
from holdfast.variables import Variable

GROUPS = (
    ("Parameters, trainable", "parameter", True),
    ("Parameters, frozen", "parameter", False),
    ("Other persistables", "persistable", None),
)


def show(path: str, out: Output) -> int:
    """Describe a checkpoint, a `save_params` folder, or a safetensors file."""
    chosen = target(path)
    with holdfast.open(chosen.path, serial=chosen.serial) as checkpoint:
        variables = [checkpoint[name].variable for name in checkpoint]  # each is checked
        trainers = {number: checkpoint.trainer(number) for number in trainer_ids(checkpoint)}
        if out.as_json:
            out.document(_document(checkpoint, variables, trainers))
        else:
            _say(checkpoint, variables, trainers, out)
    return DONE


def variable_document(variable: Variable, bare: bool = False) -> dict[str, Any]:
    """A variable for programs; kind and trainable are null if only a safetensors file describes it."""
    return {
        "name": variable.name,
        "kind": None if bare else variable.kind,
        "trainable": None if bare else variable.trainable,
        "dtype": variable.dtype,
        "shape": list(variable.shape),
        "bytes": variable.nbytes,
    }


def _totals(variables: list[Variable]) -> dict[str, int]:
    return {"variables": len(variables), "bytes": sum(v.nbytes for v in variables)}


def _document(
    checkpoint: Checkpoint, variables: list[Variable], trainers: dict[int, tuple[Any, dict[str, Any]]]
) -> dict[str, Any]:
    manifest, bare = checkpoint.manifest, is_bare(checkpoint.manifest)
    return {
        "path": checkpoint.path,
        "serial": checkpoint.serial,
        "content": None if bare else manifest.content,
        "step": manifest.step,
        "created": manifest.created or None,
        "writer": manifest.writer or None,
        "world_size": manifest.world_size,
        "metrics": checkpoint.metrics,
        "variables": [variable_document(v, bare) for v in variables],
        "totals": {
            **(
                {}
                if bare
                else {kind: _totals([v for v in variables if v.kind == kind]) for kind in ("parameter", "persistable")}
            ),
            "all": _totals(variables),
        },
        "trainers": [
            {
                "trainer_id": number,
                "trainer_args": typed(args),
                "values": {name: typed(v) for name, v in values.items()},
            }
            for number, (args, values) in trainers.items()
        ],
        "files": [{"name": file.name, "bytes": file.size} for file in manifest.files],
    }


def _say(
    checkpoint: Checkpoint, variables: list[Variable], trainers: dict[int, tuple[Any, dict[str, Any]]], out: Output
) -> None:
    manifest, bare = checkpoint.manifest, is_bare(checkpoint.manifest)
    out.line(tidy(checkpoint.path), "bold")
    if bare:
        out.line("a safetensors file: it records no kinds and no digests")
    elif described := summary(manifest):
        out.line(described)
    if manifest.metrics:
        out.line("metrics: " + " ".join(f"{name}={value:.6g}" for name, value in manifest.metrics.items()))
    out.line()
    rows = []
    groups = (("Variables", None, None),) if bare else GROUPS
    for title, kind, trainable in groups:
        members = [v for v in variables if kind in (None, v.kind) and trainable in (None, v.trainable)]
        if members:
            rows.append(Row((f"{title}: {_amount(members)}",), "bold"))
            rows += [Row(("  " + v.dtype, shape(v.shape), f"{v.nbytes:,}", v.name)) for v in members]
    # Names last, as in ls -l: a long one does not push the rest apart.
    out.table([Column("  DTYPE"), Column("SHAPE"), Column("BYTES", right=True), Column("NAME", flexible=True)], rows)
    if len(rows) > len(variables) + 1:
        out.line(f"All: {_amount(variables)}", "bold")
    for number, (args, values) in trainers.items():
        whose = f" of trainer {number}" if len(trainers) > 1 else ""
        if args is not None:
            out.line()
            out.line(f"Trainer arguments{whose}", "bold")
            pairs = args.items() if isinstance(args, dict) else [("", args)]
            for name, value in pairs:
                _say_value(str(name), typed(value), out)
        if values:
            out.line()
            out.line(f"Values{whose}", "bold")
            for name, value in values.items():
                _say_value(name, typed(value), out)
    out.line()
    out.line(f"Files: {count(len(manifest.files), 'file')}, {size(manifest.nbytes)}", "bold")
    out.table(
        [Column("  BYTES", right=True), Column("NAME", flexible=True)],
        [Row((f"  {file.size:,}", file.name)) for file in manifest.files],
    )


def _amount(variables: list[Variable]) -> str:
    total = _totals(variables)
    return f"{count(total['variables'], 'variable')}, {size(total['bytes'])}"


def _say_value(name: str, value: Any, out: Output) -> None:
    label = f"  {name} = " if name else "  "
    out.line(
        label
        + shortened(
            value_text(value), max((out.width or 0) - len(label), VALUE_CHARACTERS if out.width is None else 20)
        )
    )
