"""Where bytes go: the `Store` protocol and the stores that fulfil it. Knows no tensors."""

from holdfast.storage.base import AnyPath, Claim, Entry, Location, Reader, Store, Writer
from holdfast.storage.local import LocalStore, resolve
from holdfast.storage.memory import MemoryStore

__all__ = ["AnyPath", "Claim", "Entry", "LocalStore", "Location", "MemoryStore", "Reader", "Store", "Writer", "resolve"]
