"""Every file and folder name of the format (docs/format.md, section 1). Pure."""

from __future__ import annotations

import re

MANIFEST = "manifest.json"
INDEX = "model.safetensors.index.json"
PINNED = "pinned"

ATTEMPT_PREFIX = ".attempt-"
TRASH_PREFIX = ".trash-"
PREVIOUS_PREFIX = ".previous-"

MAX_SERIAL = 10**18 - 1

_SERIAL = re.compile(r"checkpoint_(0|[1-9][0-9]{0,17})")
_HIDDEN = re.compile(r"\.(attempt|trash|previous)-(.+)-([0-9a-f]{16})", re.DOTALL)
_TRAINER = re.compile(r"trainer_(0|[1-9][0-9]{0,8})\.json")
_OURS = re.compile(
    r"model\.safetensors|(model|state)-[0-9]{5}-of-[0-9]{5}\.safetensors"
    r"|model\.safetensors\.index\.json|trainer_(0|[1-9][0-9]{0,8})\.json"
)


def checkpoint_folder(serial: int | str) -> str:
    """`checkpoint_41` for 41."""
    return f"checkpoint_{serial}"


def serial_of(name: str) -> int | None:
    """The serial in a checkpoint folder's name; None for every other name."""
    match = _SERIAL.fullmatch(name)
    return int(match[1]) if match else None


def hidden_name(prefix: str, label: str | int, attempt: str) -> str:
    """Such as `.attempt-42-0123456789abcdef`; `label` is the serial, or the name of a folder that stands alone."""
    return f"{prefix}{label}-{attempt}"


def hidden_label(name: str) -> str | None:
    """The label in a name that `hidden_name` made; None for every other name."""
    match = _HIDDEN.fullmatch(name)
    return match[2] if match else None


def model_file(number: int, count: int) -> str:
    """The name of parameter file `number` (from 1) of `count`, as Hugging Face tools name them."""
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def state_file(number: int, count: int) -> str:
    """The name of file `number` (from 1) of `count` for persistables that are no parameters."""
    return f"state-{number:05d}-of-{count:05d}.safetensors"


def trainer_file(trainer_id: int) -> str:
    """The name of a trainer's own file."""
    return f"trainer_{trainer_id}.json"


def trainer_id_of(name: str) -> int | None:
    """The trainer's number in the name of a trainer's own file; None for every other name."""
    match = _TRAINER.fullmatch(name)
    return int(match[1]) if match else None


def is_listable(name: str) -> bool:
    """Whether a manifest may list a file of this name: never a path, never the manifest itself."""
    return _OURS.fullmatch(name) is not None


def is_parameter_file(name: str) -> bool:
    """Whether a listed data file holds parameters."""
    return name.startswith("model")
