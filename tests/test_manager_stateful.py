"""CheckpointManager against a model that is simple enough to be right: a dictionary of what must be there.

Hypothesis draws the steps: saves with metrics, pins, prunes, damage, foreign entries, managers with other rules. After each
one the listing, the kept set, and what a restore gives must be exactly what the model says.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import holdfast
from holdfast import CheckpointManager, CheckpointNotFoundError, LocalStore, MemoryStore, RestoreError
from holdfast.storage import Location
from support import read_file, write_file


@dataclasses.dataclass
class Model:
    """A checkpoint as it must be."""

    fill: int
    step: int
    metrics: dict[str, float]
    listed: bool = True  # its manifest is sound and every file has its size
    sound: bool = True  # and its bytes are those that were saved
    pinned: bool = False


RULES = st.fixed_dictionaries(
    {
        "max_to_keep": st.none() | st.integers(1, 3),
        "keep_period": st.none() | st.sampled_from([2, 3]),
        "best": st.none() | st.sampled_from([("loss", "min"), ("loss", "max")]),
        "keep_best": st.integers(1, 2),
        "save_interval_steps": st.sampled_from([1, 1, 2]),
    }
)
FOREIGN = ["backup_7", "checkpoint_07", "checkpoint_1x", "checkpoint_-1", ".attempt-old", "logs"]


class Managed(RuleBasedStateMachine):
    """The machine for one store."""

    def make_run(self) -> Location:
        raise NotImplementedError

    @initialize(rules=RULES)
    def begin(self, rules: dict[str, Any]) -> None:
        self.run = self.make_run()
        self.model: dict[int, Model] = {}
        self.saves = 0
        self.foreign: set[str] = set()
        self.manage(rules)

    @rule(rules=RULES)
    def manage(self, rules: dict[str, Any]) -> None:
        """The program starts again, perhaps with other rules; what is there stays until the next save."""
        self.rules = rules
        self.manager = CheckpointManager(self.run, **rules)

    def folder(self, serial: int) -> Location:
        return self.run / f"checkpoint_{serial}"

    def listed(self) -> dict[int, Model]:
        return {serial: m for serial, m in sorted(self.model.items()) if m.listed}

    def kept(self, newest: int | None, period: int | None, best: tuple[str, str] | None, count: int) -> set[int]:
        """The union of the rules, spelled out."""
        listed = self.listed()
        if newest is None:
            return set(listed)
        keep = set(list(listed)[-newest:])
        keep |= {s for s, m in listed.items() if m.pinned}
        if period is not None:
            keep |= {s for s, m in listed.items() if m.step % period == 0}
        if best is not None:
            scored = [(m.metrics[best[0]], s) for s, m in listed.items() if best[0] in m.metrics]
            order = sorted(scored, key=lambda pair: (pair[0] if best[1] == "min" else -pair[0], -pair[1]))
            keep |= {s for _, s in order[:count]}
        return keep

    def rotate(self, keep: set[int]) -> list[int]:
        gone = [s for s in self.listed() if s not in keep]
        for serial in gone:
            del self.model[serial]
        return gone

    @rule(step=st.integers(0, 12), loss=st.none() | st.integers(0, 4) | st.just(float("nan")), force=st.booleans())
    def save(self, step: int, loss: float | None, force: bool) -> None:
        self.saves += 1
        state = {"w": np.full(3, self.saves), "n": self.saves}
        metrics = None if loss is None else {"loss": loss}

        handle = self.manager.save(state, step, metrics=metrics, force=force)

        if not force and step % self.rules["save_interval_steps"]:
            assert not handle.committed()
            assert "save_interval_steps" in handle.reason
            return
        assert handle.serial is not None
        # Above every serial that stands in a name; those of checkpoints that were deleted may come again.
        assert handle.serial == max(self.model, default=-1) + 1
        self.model[handle.serial] = Model(self.saves, step, {} if loss is None or loss != loss else {"loss": loss})
        r = self.rules
        self.rotate(self.kept(r["max_to_keep"], r["keep_period"], r["best"], r["keep_best"]))

    @rule(loss=st.integers(0, 4))
    def train(self, loss: int) -> None:
        """What most programs do most of the time: the next step, in order."""
        self.save(max((m.step for m in self.model.values()), default=-1) + 1, loss, True)

    @rule(data=st.data(), unpin=st.sampled_from([False, False, True]))
    def pin(self, data: st.DataObject, unpin: bool) -> None:
        if self.listed():
            serial = data.draw(st.sampled_from(list(self.listed())))
            (self.manager.unpin if unpin else self.manager.pin)(serial)
            self.model[serial].pinned = not unpin

    @rule(keep=st.integers(1, 3), period=st.none() | st.sampled_from([2, 5]))
    def prune(self, keep: int, period: int | None) -> None:
        expected = self.kept(keep, period, None, 1)

        assert holdfast.prune(self.run, keep=keep, keep_period=period) == self.rotate(expected)

    @rule(data=st.data(), how=st.sampled_from(["flip", "truncate", "no manifest", "bad manifest", "no data"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        """Mostly the newest one, as crashes and full disks have it."""
        sound = [s for s, m in sorted(self.model.items()) if m.sound]
        if not sound:
            return
        serial = sound[-1] if data.draw(st.booleans()) else data.draw(st.sampled_from(sound))
        manifest, payload = (
            self.folder(serial) / name for name in ("manifest.json", "state-00001-of-00001.safetensors")
        )
        if how == "flip":
            contents = bytearray(read_file(payload))
            contents[-1] ^= 0x10
            write_file(payload, bytes(contents))
        elif how == "truncate":
            write_file(payload, read_file(payload)[:-1])
        elif how == "no manifest":
            self.run.store.remove(manifest.path)
        elif how == "bad manifest":
            write_file(manifest, read_file(manifest)[:-2])
        else:
            self.run.store.remove(payload.path)
        self.model[serial].sound = False
        self.model[serial].listed = self.model[serial].listed and how == "flip"

    @rule(name=st.sampled_from(FOREIGN))
    def add_foreign(self, name: str) -> None:
        if self.run.store.stat(self.run.path) is None or name in self.foreign:
            return
        self.run.store.make_folder((self.run / name).path)
        write_file(self.run / name / "manifest.json", b"{}")
        self.foreign.add(name)

    def expect(self, serials: list[int], **options: Any) -> None:
        """A restore gives the first sound one of these."""
        target = {"w": np.zeros(3, np.int64), "n": 0}
        sound = [s for s in serials if self.model[s].sound]
        if not sound:
            with pytest.raises(RestoreError) as caught:
                self.manager.restore(target, **options)
            assert [s for s, _ in caught.value.attempts] == serials
            return
        report = self.manager.restore(target, **options)
        fill = self.model[sound[0]].fill
        assert (report.serial, report.step) == (sound[0], self.model[sound[0]].step)
        assert (target["n"], target["w"].tolist()) == (fill, [fill] * 3)

    @rule()
    def restore_newest(self) -> None:
        if not self.model:
            with pytest.raises(CheckpointNotFoundError):
                self.manager.restore({"w": np.zeros(3, np.int64), "n": 0})
        else:
            self.expect(sorted(self.model, reverse=True))

    @rule(data=st.data())
    def restore_by_serial(self, data: st.DataObject) -> None:
        if not self.model:
            return
        serial = data.draw(st.sampled_from(sorted(self.model)))
        if self.model[serial].sound:
            self.expect([serial], serial=serial)
        else:
            with pytest.raises((holdfast.CorruptCheckpointError, CheckpointNotFoundError, holdfast.FormatError)):
                self.manager.restore({"w": np.zeros(3, np.int64), "n": 0}, serial=serial)

    @rule(step=st.integers(0, 12))
    def restore_by_step(self, step: int) -> None:
        of_step = [s for s, m in self.listed().items() if m.step == step]
        if not of_step:
            with pytest.raises(CheckpointNotFoundError, match=f"no complete checkpoint of step {step}"):
                self.manager.restore({"w": np.zeros(3, np.int64), "n": 0}, step=step)
        elif self.model[of_step[-1]].sound:
            self.expect([of_step[-1]], step=step)

    @invariant()
    def listing_is_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        listed = self.listed()
        assert self.manager.serials() == list(listed)
        assert self.manager.all_steps() == [m.step for m in listed.values()]
        assert self.manager.latest_serial() == max(listed, default=None)
        assert self.manager.latest_step() == (listed[max(listed)].step if listed else None)

    @invariant()
    def folder_holds_nothing_else(self) -> None:
        if not hasattr(self, "model") or self.run.store.stat(self.run.path) is None:
            return
        found = {entry.name for entry in self.run.store.list(self.run.path)}
        assert found == {f"checkpoint_{serial}" for serial in self.model} | self.foreign

    @invariant()
    def best_is_the_models(self) -> None:
        if not hasattr(self, "model") or self.rules["best"] is None:
            return
        name, mode = self.rules["best"]
        scored = [
            (m.metrics[name] * (1 if mode == "min" else -1), -s) for s, m in self.listed().items() if name in m.metrics
        ]
        assert self.manager.best_serial() == (-min(scored)[1] if scored else None)


class InMemory(Managed):
    """Over a memory store."""

    def make_run(self) -> Location:
        return MemoryStore().at("runs/a")


class OnDisk(Managed):
    """Over the local store."""

    def make_run(self) -> Location:
        self.place = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        return LocalStore().at(f"{self.place}/runs/a")

    def teardown(self) -> None:
        if hasattr(self, "place"):
            shutil.rmtree(self.place)


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]
TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=CHECKS)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=CHECKS)
