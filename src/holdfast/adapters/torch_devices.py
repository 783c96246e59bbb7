"""Tensors in an accelerator's memory: copied by the accelerator itself, through page-locked memory, in a stream of their own.

What lies as in a file and is large is copied as it is; the rest is laid out on the device first, in one small piece of its memory,
so that a thousand biases are one copy. Written for whatever `torch.accelerator` is; only page-locking knows CUDA by name.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from holdfast.engine.arrays import strides_overlap
from holdfast.engine.devices import Device, Flight, Piece, Remote
from holdfast.format.geometry import range_boxes

log = logging.getLogger(__name__)

SMALL_BYTES = 1 << 20
"""Tensors up to here are copied together: a copy costs some 10 µs to start, in which 250 KB or more would have been copied."""

SCRATCH_BYTES = 8 << 20
"""The device's memory that a save takes, and only while it lasts. Where less is free, it makes do with less."""

_LEAST_SCRATCH = 4 << 10
_PORTABLE = 1  # for cudaHostRegister: page-locked for every device


@functools.cache
def device_of(device: torch.device) -> Accelerator | None:
    """What copies tensors of a device; None if PyTorch has no streams for it, so that they have to be fetched one by one."""
    accelerators = getattr(torch, "accelerator", None)  # there since 2.6
    if accelerators is None or not hasattr(torch.Stream, "__enter__"):
        return None
    current = accelerators.current_accelerator()
    if current is None or current.type != device.type:
        return None
    try:
        torch.Stream(device=device)
        torch.Event(device=device)
    except (RuntimeError, NotImplementedError):
        return None
    return Accelerator(device)


class OnDevice(Remote):
    """A tensor in a device's memory, as an array of a state.

    Args:
        tensor: it, without its history.
        dtype: what NumPy makes of it.
        device: copies it.
    """

    __slots__ = ("_flat", "tensor")
    slot = None

    def __init__(self, tensor: torch.Tensor, dtype: np.dtype, device: Device) -> None:
        super().__init__(dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size(), device)
        self.tensor = tensor
        self._flat: torch.Tensor | None = None

    def flat(self) -> torch.Tensor | None:
        """Its bytes, if they lie in the device's memory as in a file."""
        tensor = self.tensor
        if self._flat is None and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
            self._flat = tensor.view(-1).view(torch.uint8)
        return self._flat

    def boxes(self, piece: Piece) -> Iterator[tuple[torch.Tensor, int, int]]:
        """The parts of the tensor that a piece consists of, each with its first byte in the piece and its end there."""
        size = self.dtype.itemsize
        at = 0
        for box in range_boxes(self.shape, piece.start // size, (piece.start + piece.host.size) // size):
            yield self.tensor[box.index], at, at + box.size * size
            at += box.size * size

    def unwritable(self) -> str | None:
        """See `Remote`."""
        strides = [stride * self.dtype.itemsize for stride in self.tensor.stride()]
        return "overlaps itself; copy it first" if strides_overlap(self.dtype.itemsize, self.shape, strides) else None

    def place(self) -> tuple[Hashable, np.ndarray]:
        """See `Remote`."""
        tensor, size = self.tensor, self.dtype.itemsize
        # What a device's addresses mean only its own library knows; tensors of one storage are at known distances.
        interface = {
            "version": 3,
            "shape": self.shape,
            "strides": tuple(stride * size for stride in tensor.stride()),
            "typestr": f"|V{size}",
            "data": ((1 << 20) + tensor.storage_offset() * size, False),
        }
        ghost = type("Ghost", (), {"__array_interface__": interface})()
        return (tensor.device, tensor.untyped_storage().data_ptr()), np.asarray(ghost)

    def fetch(self) -> np.ndarray:
        """See `Access`."""
        array = np.empty(self.shape, self.dtype)
        self.device.settle()
        self.device.fetch([Piece(self, 0, array.reshape(-1).view(np.uint8))])()
        return array

    def put(self, array: np.ndarray) -> None:
        """See `Access`."""
        self.device.settle()
        self.device.put([Piece(self, 0, np.ascontiguousarray(array).reshape(-1).view(np.uint8))])()


class Accelerator:
    """See `Device`."""

    def __init__(self, device: torch.device) -> None:
        self.kind = str(device.type)
        self._device = device
        self._refused_bytes: int | None = None  # so much could not be page-locked
        self._lock = threading.Lock()

    def settle(self) -> None:
        """See `Device`."""
        # All streams, not just the current one: a step that runs in another would else be half in the copy.
        torch.accelerator.synchronize(self._device)

    def fetch(self, pieces: Sequence[Piece]) -> Flight:
        """See `Device`."""
        with torch.no_grad():
            # Of the current stream's memory, in which a training loop has some that is free for the moment.
            scratch = self._scratch(sum(piece.host.size for piece in pieces if not _is_large(piece)))
            with self._side_stream() as stream:
                gathered = _Gathered(scratch)
                try:
                    for piece in pieces:
                        if _is_large(piece):
                            gathered.copy()
                            _start_large(piece)
                        else:
                            gathered.add(piece)
                    gathered.copy()
                except BaseException:
                    stream.synchronize()
                    raise
                event = stream.record_event()
        return _Flight(event, (pieces, scratch))

    def put(self, pieces: Sequence[Piece]) -> Flight:
        """See `Device`."""
        with self._side_stream() as stream:
            try:
                for piece in pieces:
                    value: Any = piece.value
                    # What was made in inference mode can be written there only, and the rest only outside of it.
                    with torch.inference_mode() if value.tensor.is_inference() else torch.no_grad():
                        _start_put(piece)
            except BaseException:
                stream.synchronize()
                raise
            event = stream.record_event()
        return _Flight(event, pieces)

    @contextlib.contextmanager
    def _side_stream(self) -> Iterator[torch.Stream]:
        """A stream of this call's own, which begins where the current one is."""
        stream = torch.Stream(device=self._device)  # its context is its own too: other threads are in others
        stream.wait_stream(torch.accelerator.current_stream(self._device))
        with stream:
            yield stream

    def _scratch(self, nbytes: int) -> torch.Tensor | None:
        size = min(nbytes, SCRATCH_BYTES)
        while size:
            try:
                return torch.empty(size, dtype=torch.uint8, device=self._device)
            except torch.OutOfMemoryError:
                if size <= _LEAST_SCRATCH:
                    raise
                size //= 8
        return None

    def locked_memory(self, nbytes: int) -> np.ndarray | None:
        """See `Device`."""
        if self.kind == "cuda" or self._is_hopeless(nbytes):
            return None  # CUDA can lock what there is: no more than is needed, and in huge pages
        try:
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()  # type: ignore[no-any-return]
        except (RuntimeError, NotImplementedError) as error:
            self._note_refusal(nbytes, str(error).partition("\n")[0])
            return None

    def lock(self, memory: np.ndarray) -> Callable[[], None] | None:
        """See `Device`."""
        if self.kind != "cuda" or not memory.size or self._is_hopeless(memory.size):
            return None
        address = memory.__array_interface__["data"][0]
        try:
            runtime = torch.cuda.cudart()
            with torch.cuda.device(self._device):  # else this thread would make a context on the first device
                error = runtime.cudaHostRegister(address, memory.size, _PORTABLE)
                if int(error) == 0:
                    return functools.partial(self._unlock, address)
                reason = runtime.cudaGetErrorString(error)
                # CUDA would report it to whoever starts the next kernel.
                with contextlib.suppress(RuntimeError):
                    torch.zeros(1, device=self._device)
        except RuntimeError as failure:
            reason = str(failure).partition("\n")[0]
        self._note_refusal(memory.size, reason)
        return None

    def _unlock(self, address: int) -> None:
        with torch.cuda.device(self._device):
            torch.cuda.cudart().cudaHostUnregister(address)

    def _is_hopeless(self, nbytes: int) -> bool:
        return self._refused_bytes is not None and nbytes >= self._refused_bytes

    def _note_refusal(self, nbytes: int, reason: str) -> None:
        with self._lock:
            is_news, self._refused_bytes = self._refused_bytes is None, nbytes
        if is_news:
            log.warning(
                "%d bytes cannot be page-locked for %s (%s): copies are slower, and nothing else is different",
                nbytes, self._device, reason,
            )  # fmt: skip


class _Flight:
    """Copies under way, and what must stay until they have arrived."""

    def __init__(self, event: torch.Event, kept: object) -> None:
        self._event, self._kept = event, kept

    def __call__(self) -> None:
        self._event.synchronize()
        self._kept = None


class _Gathered:
    """Pieces that follow each other in host memory: laid out on the device, and then copied at once.

    All happens in one stream, so the scratch memory may be used again before it is copied.
    """

    def __init__(self, scratch: torch.Tensor | None) -> None:
        self._scratch = scratch
        self._dense: list[torch.Tensor] = []  # what is to follow at `_at`
        self._at = self._end = 0
        self._hosts: list[np.ndarray] = []
        self._end_address = 0

    def add(self, piece: Piece) -> None:
        scratch = self._scratch
        assert scratch is not None
        value: Any = piece.value
        address = piece.host.__array_interface__["data"][0]
        if self._hosts and (address != self._end_address or self._end % value.dtype.itemsize):
            self.copy()
        step = scratch.numel() // value.dtype.itemsize * value.dtype.itemsize
        for at in range(0, piece.host.size, step):
            part = Piece(value, piece.start + at, piece.host[at : at + step])
            if self._end + part.host.size > scratch.numel():
                self.copy()
            flat = value.flat()
            if flat is not None:
                self._dense.append(flat[part.start : part.start + part.host.size])
            else:
                self._lay_out()
                for box, first, last in value.boxes(part):
                    target = scratch[self._end + first : self._end + last]
                    _typed(target, box).copy_(box)
                self._at = self._end + part.host.size
            self._hosts.append(part.host)
            self._end += part.host.size
        self._end_address = address + piece.host.size

    def _lay_out(self) -> None:
        """Put the dense tensors where they belong in the scratch memory."""
        if self._dense:
            assert self._scratch is not None
            torch.cat(self._dense, out=self._scratch[self._at : self._end])
            self._dense = []
        self._at = self._end

    def copy(self) -> None:
        """Start to copy what there is."""
        if not self._hosts:
            return
        assert self._scratch is not None
        self._lay_out()
        host = _joined(self._hosts, self._end)
        torch.from_numpy(host).copy_(self._scratch[: self._end], non_blocking=True)
        self._hosts, self._at, self._end = [], 0, 0


def _joined(hosts: Sequence[np.ndarray], nbytes: int) -> np.ndarray:
    """Memory that lies in one piece, as one array."""
    first = hosts[0]
    return np.lib.stride_tricks.as_strided(first, (nbytes,), (1,))


def _is_large(piece: Piece) -> bool:
    value: Any = piece.value
    return piece.host.size > SMALL_BYTES and value.flat() is not None


def _start_large(piece: Piece) -> None:
    value: Any = piece.value
    source = value.flat()[piece.start : piece.start + piece.host.size]
    torch.from_numpy(piece.host).copy_(source, non_blocking=True)


def _start_put(piece: Piece) -> None:
    value: Any = piece.value
    host = torch.from_numpy(piece.host)
    flat = value.flat()
    if flat is not None:
        flat[piece.start : piece.start + piece.host.size].copy_(host, non_blocking=True)
        return
    for box, first, last in value.boxes(piece):
        box.copy_(_typed(host[first:last], box), non_blocking=True)


def _typed(flat: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Bytes as a tensor of another's type and shape."""
    return flat.view(like.dtype).view(like.shape)
