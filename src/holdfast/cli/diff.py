"""`holdfast diff`: which variables and values differ between two checkpoints, and by how much."""

from __future__ import annotations

from typing import Any

import holdfast
from holdfast.cli.exits import DONE, FOUND
from holdfast.cli.output import Column, Output, Row
from holdfast.cli.show import variable_document
from holdfast.cli.targets import target
from holdfast.cli.texts import VALUE_CHARACTERS, count, located, shape, shortened, summary, value_text
from holdfast.comparing import ChangedValue, ChangedVariable, Comparison, compare
from holdfast.reading import Checkpoint, is_bare
from holdfast.variables import Variable, is_parameter


def diff(a: str, b: str, parameters_only: bool, out: Output) -> int:
    """Compare two checkpoints; 1 if they differ."""
    first, second = target(a), target(b)
    with (
        holdfast.open(first.path, serial=first.serial) as ours,
        holdfast.open(second.path, serial=second.serial) as theirs,
    ):
        with out.progress("comparing") as progress:
            found = compare(ours, theirs, predicate=is_parameter if parameters_only else None, progress=progress)
        if out.as_json:
            out.document(_document(ours, theirs, found))
        else:
            _say(ours, theirs, found, parameters_only, out)
    return DONE if found.equal else FOUND


def _document(a: Checkpoint, b: Checkpoint, found: Comparison) -> dict[str, Any]:
    bare_a, bare_b = is_bare(a.manifest), is_bare(b.manifest)
    return {
        "a": {"path": a.path, "serial": a.serial, "step": a.step},
        "b": {"path": b.path, "serial": b.serial, "step": b.step},
        "equal": found.equal,
        "added": [variable_document(v, bare_b) for v in found.added],
        "removed": [variable_document(v, bare_a) for v in found.removed],
        "changed": [_changed_document(c, bare_a, bare_b) for c in found.changed],
        "unchanged": found.unchanged,
        "values": [_value_document(value) for value in found.values],
        "trainer_args": [_value_document(value) for value in found.trainer_args],
    }


def _changed_document(changed: ChangedVariable, bare_a: bool, bare_b: bool) -> dict[str, Any]:
    size = changed.size
    return {
        "name": changed.name,
        "aspects": list(changed.aspects),
        "a": variable_document(changed.a, bare_a),
        "b": variable_document(changed.b, bare_b),
        "size": None
        if size is None
        else {
            "elements": size.elements,
            "changed": size.changed,
            "not_finite": size.not_finite,
            "max_abs": size.max_abs,
            "relative_l2": size.relative_l2,
        },
    }


def _value_document(value: ChangedValue) -> dict[str, Any]:
    return {"trainer_id": value.trainer_id, "name": value.name, "change": value.change, "a": value.a, "b": value.b}


def _say(a: Checkpoint, b: Checkpoint, found: Comparison, parameters_only: bool, out: Output) -> None:
    for mark, one in (("a", a), ("b", b)):
        described = summary(one.manifest, brief=True)
        out.line(f"{mark}: {located(one.path, one.serial)}" + (f"  {described}" if described else ""), "bold")
    if found.equal:
        beside = "" if parameters_only else ", and every value beside them"
        out.line(f"equal: {count(found.unchanged, 'parameter' if parameters_only else 'variable')}{beside}")
        return
    rows = [Row(("-", "", "", "", *_form(v)), "red") for v in found.removed]
    rows += [_row(changed) for changed in found.changed]
    rows += [Row(("+", "", "", "", *_form(v)), "green") for v in found.added]
    if rows:
        out.line()
        out.table(
            [
                Column(" "),
                Column("CHANGED", right=True),
                Column("MAX |b-a|", right=True),
                Column("RELATIVE", right=True),
                Column("DTYPE"),
                Column("SHAPE"),
                Column("NAME", flexible=True),
            ],
            rows,
        )
    for title, values in (("Trainer arguments", found.trainer_args), ("Values", found.values)):
        if values:
            out.line()
            out.line(title, "bold")
            for value in values:
                _say_value(value, out)
    out.line()
    counts = [
        (len(found.changed), "changed"),
        (len(found.added), "added"),
        (len(found.removed), "removed"),
        (found.unchanged, "equal"),
    ]
    what = "Parameters" if parameters_only else "Variables"
    out.line(f"{what}: " + ", ".join(f"{number:,} {word}" for number, word in counts), "bold")


def _form(variable: Variable) -> tuple[str, str, str]:
    return variable.dtype, shape(variable.shape), variable.name


def _row(changed: ChangedVariable) -> Row:
    a, b, size = changed.a, changed.b, changed.size
    name = changed.name
    if "kind" in changed.aspects:
        name += f" ({a.kind} → {b.kind})"
    if "trainable" in changed.aspects:
        name += f" ({'trainable' if a.trainable else 'frozen'} → {'trainable' if b.trainable else 'frozen'})"
    dtype = a.dtype if a.dtype == b.dtype else f"{a.dtype} → {b.dtype}"
    extents = shape(a.shape) if a.shape == b.shape else f"{shape(a.shape)} → {shape(b.shape)}"
    if size is None:
        return Row(("~", "", "", "", dtype, extents, name), "yellow")
    amount = "all" if size.changed == size.elements else f"{size.changed:,}"
    if size.not_finite:
        amount += f", {size.not_finite:,} NaN/inf"
    largest = "–" if size.max_abs is None else f"{size.max_abs:.3g}"
    ratio = "–" if size.relative_l2 is None else f"{size.relative_l2:.2g}"
    return Row(("~", amount, largest, ratio, dtype, extents, name), "yellow")


def _say_value(value: ChangedValue, out: Output) -> None:
    label = value.name or "(all)"
    if value.trainer_id:
        label += f" (trainer {value.trainer_id})"
    limit = VALUE_CHARACTERS if out.width is None else max((out.width - len(label) - 8) // 2, 12)
    before, after = shortened(value_text(value.a), limit), shortened(value_text(value.b), limit)
    if value.change == "added":
        out.line(f"+ {label} = {after}", "green")
    elif value.change == "removed":
        out.line(f"- {label} = {before}", "red")
    elif before == after:
        out.line(f"~ {label}: {before}, another one", "yellow")
    else:
        out.line(f"~ {label}: {before} → {after}", "yellow")
