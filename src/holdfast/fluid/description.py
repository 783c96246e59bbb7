"""What programs of the era ask of `program.desc`: the program as bytes of Fluid's, and what it is fed with and gives."""

from __future__ import annotations

from holdfast.fluid.framework import Program
from holdfast.fluid.io import program_fluid, program_json
from holdfast.fluid.io.failures import enforced
from holdfast.interop import program_wire


class ProgramDesc:
    """A program as what is stored of it."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def serialize_to_string(self) -> bytes:
        """The bytes that Fluid 1.8 reads, gradients and updates too.

        Raises:
            FormatError: Fluid has no such operator, or no form for an attribute; all are listed.
        """
        desc = program_fluid.desc_of(self._program, self._program.feed_names, self._program.fetch_names)
        return program_wire.to_bytes(desc)

    def get_feed_target_names(self) -> list[str]:
        """Names of the variables that are fed, in their order."""
        return list(self._program.feed_names)

    def get_fetch_target_names(self) -> list[str]:
        """Names of the variables that are fetched, in their order."""
        return list(self._program.fetch_names)

    def flush(self) -> None:
        """Nothing: Fluid has the program twice, and this makes them equal."""

    _set_version = flush


def parsed(data: bytes) -> Program:
    """See `Program.parse_from_string`."""
    with enforced():
        return program_of_bytes(data, "the given bytes")


def program_of_bytes(data: bytes, name: str) -> Program:
    """The program of either form; `name` is for messages."""
    if data.lstrip()[:1] == b"{":
        return program_json.program_of(program_json.from_bytes(data, name), name)
    return program_fluid.program_of(program_wire.from_bytes(data, name), name)
