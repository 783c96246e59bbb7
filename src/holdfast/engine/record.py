"""What a save writes, and the manifest that it ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from holdfast._version import __version__
from holdfast.engine import commit
from holdfast.engine.pause import collection_paused
from holdfast.engine.plan import FilePlan
from holdfast.engine.writer import Written
from holdfast.format import layout
from holdfast.format.digests import hexdigest
from holdfast.format.manifest import VERSION, Chunk, Content, Entry, File, Manifest, to_bytes
from holdfast.variables import Variable

_ENTRY_BYTES = 256  # about what a variable takes in the manifest; only for the guess of the space needed


class Record:
    """The files of a save, planned and not written yet.

    Attributes:
        plans: the data files.
        nbytes: of all files but the manifest.
        needed_bytes: about the space for all of them.
    """

    def __init__(
        self,
        content: Content,
        variables: Sequence[Variable],
        plans: Sequence[FilePlan],
        small: Mapping[str, bytes] | None = None,
        *,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._content, self._variables, self.plans = content, variables, plans
        self._step, self._metrics, self._aliases = step, dict(metrics or {}), dict(aliases or {})
        self._small = {**(small or {}), **_index(plans, variables)}
        self.nbytes = sum(plan.size for plan in plans) + sum(len(data) for data in self._small.values())
        self.needed_bytes = self.nbytes + _ENTRY_BYTES * len(variables)

    def write_small(self, attempt: commit.Attempt) -> None:
        """Write every file but the data files and the manifest."""
        for name, data in self._small.items():
            with commit.storage_errors(f"cannot write {attempt.folder / name}"):
                commit.write_small(attempt.folder / name, data)

    @collection_paused()
    def manifest(self, written: Written, attempt_id: str, serial: int | None) -> bytes:
        """The bytes of the manifest, once the data files are written."""
        entries = []
        for plan in self.plans:
            for i in plan.members:
                v = self._variables[i]
                file, start, end, blocks = written.chunks[i]
                chunk = Chunk(file, (start, end), blocks)
                entries.append(Entry(v.name, v.kind, v.trainable, v.dtype, v.shape, (chunk,)))  # type: ignore[arg-type]
        small = [File(name, len(data), hexdigest(data)) for name, data in self._small.items()]
        return to_bytes(
            Manifest(
                format="holdfast",
                version=VERSION,
                content=self._content,
                serial=serial,
                step=self._step,
                created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                writer=f"holdfast {__version__}",
                attempt=attempt_id,
                world_size=1,
                metrics=self._metrics,
                files=(*written.files, *small),
                variables=tuple(entries),
                aliases=self._aliases,
            )
        )


def _index(plans: Sequence[FilePlan], variables: Sequence[Variable]) -> dict[str, bytes]:
    """The index that Hugging Face tools want beside more than one parameter file."""
    model = [plan for plan in plans if layout.is_parameter_file(plan.name)]
    if len(model) < 2:
        return {}
    total = sum(variables[i].nbytes for plan in model for i in plan.members)
    weight_map = {variables[i].name: plan.name for plan in model for i in plan.members}
    return {layout.INDEX: msgspec.json.encode({"metadata": {"total_size": total}, "weight_map": weight_map})}
