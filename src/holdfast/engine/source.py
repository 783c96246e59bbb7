"""The data files of a checkpoint, opened when they are needed."""

from __future__ import annotations

import threading
from types import TracebackType

from holdfast.errors import ClosedError, CorruptCheckpointError, StorageError
from holdfast.format.manifest import Manifest
from holdfast.storage import Location, Reader


class Source:
    """The open data files of a checkpoint. Files are opened on first use and closed together."""

    def __init__(self, folder: Location, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._readers: dict[int, Reader] = {}
        self._lock = threading.Lock()
        self._closed = False

    def path(self, file: int) -> str:
        """The path of a file, for messages."""
        return str(self.folder / self.manifest.files[file].name)

    def reader(self, file: int) -> Reader:
        """The open file; its size is that of the manifest.

        Raises:
            ClosedError: the checkpoint is closed.
            StorageError: it cannot be opened.
            CorruptCheckpointError: its size is another.
        """
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.folder} is closed; open it again to read more of it")
            if file not in self._readers:
                path = self.path(file)
                try:
                    reader = self.folder.store.open(path)
                except FileNotFoundError as error:
                    raise StorageError.of(
                        error, f"{path} has vanished; was the checkpoint deleted meanwhile?"
                    ) from error
                except OSError as error:
                    raise StorageError.of(error, f"cannot open {path}") from error
                if reader.size != self.manifest.files[file].size:
                    reader.close()
                    raise CorruptCheckpointError(
                        f"{path} has {reader.size:,} bytes instead of {self.manifest.files[file].size:,}", path=path
                    )
                self._readers[file] = reader
            return self._readers[file]

    def close(self) -> None:
        """Close all files; views that were handed out stay valid."""
        with self._lock:
            self._closed = True
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
