"""A folder of a mounted volume that files are put into: no link on the way is followed, no file is ever half there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator

from cyxwiz_protocol.location import Location
from cyxwiz_protocol.storing import Offered

from .source import Unreachable, Unreadable

CHUNK_BYTES = 2**22
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FINAL = frozenset({errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG})


class Folder:
    """The folder that `location` names below the volume's `root`, made where there is none."""

    def __init__(self, root: str, location: Location) -> None:
        self._root = root
        self._location = location

    async def probe(self) -> None:
        await asyncio.to_thread(self._probe)

    async def put(self, file: Offered) -> str:
        return await asyncio.to_thread(self._put, file)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        with self._translated(), self._opened() as folder:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                # What is still in this machine's memory says nothing about where it was put.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                while part := await asyncio.to_thread(os.read, descriptor, CHUNK_BYTES):
                    yield part
            finally:
                os.close(descriptor)

    def _probe(self) -> None:
        with self._translated(), self._opened() as folder:
            name = f".cyxwiz.{os.getpid()}.tmp"
            os.close(self._new(name, folder))
            os.unlink(name, dir_fd=folder)

    def _put(self, file: Offered) -> str:
        digest = hashlib.sha256()
        with self._translated(), self._opened() as folder:
            temporary = f".{file.name}.{os.getpid()}.tmp"
            descriptor = self._new(temporary, folder)
            try:
                start = 0
                while part := os.pread(file.descriptor, CHUNK_BYTES, start):
                    digest.update(part)
                    start += len(part)
                    _write(descriptor, part)
                os.fsync(descriptor)
                os.rename(temporary, file.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            finally:
                os.close(descriptor)
        return digest.hexdigest()

    def _new(self, name: str, folder: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):  # of an earlier process of the same number, which was killed
            os.unlink(name, dir_fd=folder)
        descriptor = os.open(name, flags, 0o644, dir_fd=folder)
        os.fchmod(descriptor, 0o644)  # whoever may read the volume
        return descriptor

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the folder. Each part of its path is opened as a folder of its own, so none can lead out."""
        at = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in self._location.path.split("/"):
                try:
                    os.mkdir(part, 0o755, dir_fd=at)
                except FileExistsError:
                    made = False
                else:
                    made = True
                below = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
                if made:
                    os.fchmod(at, 0o755)
            yield at
        finally:
            os.close(at)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (NotADirectoryError, IsADirectoryError) as error:
            raise Unreadable(f"{self._location}: {error.filename!r} on the way is a link or no folder") from error
        except PermissionError as error:
            raise Unreadable(f"{self._location}: this node may not write there") from error
        except OSError as error:
            if error.errno in _FINAL:
                raise Unreadable(f"{self._location}: {error.strerror}") from error
            raise Unreachable(f"{self._location}: {error.strerror or error}") from error


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
