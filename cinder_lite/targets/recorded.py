"""Targets that export nothing themselves, and keep a record of what was let in where: `local` and `rbd`."""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from cinder_lite.contract import Volume
from cinder_lite.errors import ExportFailure, InvalidConnectorException, TargetUnavailable
from cinder_lite.ports.target import Export, ExportState
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread


class Record(msgspec.Struct, frozen=True):
    """An export. `hosts` are let in."""

    path: str
    hosts: tuple[str, ...] = ()


class RecordedTarget(ABC):
    """Implements most of `cinder_lite.ports.target.Target`; one process has the records to itself.

    volumes_dir   records go to its folder `exports`
    """

    kind: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Keys that a connector must have."""
    needs_chap = False

    def __init__(self, volumes_dir: Path) -> None:
        self._folder = volumes_dir.absolute() / "exports"
        self._locks = KeyedLocks()

    async def check_for_setup_error(self) -> None:
        """Makes the folder, mode 0700, when it is not there."""
        try:
            await in_thread(_prepare, self._folder)
        except OSError as exc:
            raise TargetUnavailable(name=self.kind, reason=f"{self._folder} cannot be used: {exc.strerror}") from exc

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        for key in self.needs:
            if not isinstance(connector.get(key), str) or not connector[key]:
                raise InvalidConnectorException(missing=key)

    def export_name(self, volume: Volume) -> str:
        return volume.name

    async def exports(self) -> set[str]:
        with self._told("the exports"):
            return await asyncio.to_thread(_names_in, self._folder)

    async def connections(self) -> dict[str, ExportState]:
        with self._told("the exports"):
            return await asyncio.to_thread(_states_in, self._folder)

    async def create_export(self, export: Export) -> str:
        async with self._locks.hold(export.volume.name):
            with self._told(export.volume.id):
                await self._check_path(export)
                found = await self._read(export.volume)
                if found is None or found.path != export.path:
                    await self._write(export.volume, Record(export.path))
        return export.path

    async def remove_export(self, export: Export) -> None:
        async with self._locks.hold(export.volume.name):
            with self._told(export.volume.id):
                await in_thread(partial(self._file(export.volume).unlink, missing_ok=True))

    async def initialize_connection(self, export: Export, connector: Mapping[str, Any]) -> dict[str, Any]:
        self.validate_connector(connector)
        self._check_reach(export, connector)
        volume, host = export.volume, str(connector["host"])
        async with self._locks.hold(volume.name):
            with self._told(volume.id):
                found = await self._read(volume)
                if found is None or found.path != export.path:
                    raise ExportFailure(volume_id=volume.id, reason=f"{export.path} is not exported; create_export comes first")
                hosts = (*found.hosts, host) if volume.multiattach else (host,)
                await self._write(volume, Record(found.path, tuple(dict.fromkeys(hosts))))
        return await self._connection_info(export)

    async def terminate_connection(self, export: Export, connector: Mapping[str, Any] | None) -> None:
        if connector is not None:
            self.validate_connector(connector)
        async with self._locks.hold(export.volume.name):
            with self._told(export.volume.id):
                found = await self._read(export.volume)
                if found is None or not found.hosts:
                    return
                left = () if connector is None else tuple(host for host in found.hosts if host != connector["host"])
                if not left:
                    await self._see_closed(export.volume)
                await self._write(export.volume, Record(found.path, left))

    async def hosts(self, volume: Volume) -> set[str]:
        """The hosts that are let in; none for a volume that is not exported."""
        found = await self._read(volume)
        return set(found.hosts) if found else set()

    @abstractmethod
    async def _check_path(self, export: Export) -> None:
        """Raises ExportFailure where there is nothing to export."""

    @abstractmethod
    def _check_reach(self, export: Export, connector: Mapping[str, Any]) -> None:
        """Raises ExportFailure where that host cannot come to it."""

    @abstractmethod
    async def _connection_info(self, export: Export) -> dict[str, Any]: ...

    @abstractmethod
    async def _see_closed(self, volume: Volume) -> None:
        """Raises ExportFailure while somebody has it open, where that can be seen."""

    def _file(self, volume: Volume) -> Path:
        return self._folder / f"{volume.name}.json"

    async def _read(self, volume: Volume) -> Record | None:
        """None when there is no record, or none that can be read: then it is written anew."""
        return await asyncio.to_thread(_read_record, self._file(volume))

    async def _write(self, volume: Volume, record: Record) -> None:
        await in_thread(_replace_record, self._file(volume), record)

    @contextmanager
    def _told(self, volume_id: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ExportFailure(volume_id=volume_id, reason=f"its record in {self._folder}: {exc.strerror or exc}") from exc


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(13, "this user may not write there")


def _names_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json") if not path.name.startswith(".")}


def _states_in(folder: Path) -> dict[str, ExportState]:
    """A record that cannot be read serves nobody."""
    records = {name: _read_record(folder / f"{name}.json") for name in _names_in(folder)}
    return {
        name: ExportState(record.path, frozenset(record.hosts)) if record else ExportState(None) for name, record in records.items()
    }


def _read_record(path: Path) -> Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _replace_record(path: Path, record: Record) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123  # the descriptor, for its mode
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(fd)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
