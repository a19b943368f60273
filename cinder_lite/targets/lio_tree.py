"""LIO's tree in configfs through rtslib-fb: the calls of cinder-rtstool, each made so that it can be repeated.

cinder-rtstool takes a storage object of the right name for the whole export (attach-flow 7.3). Here every part is looked at: what is
there and right stays, what is half made or wrong is made anew, what is missing is made. So whoever died in the middle is mended by the
next call. Three more departures: credentials are written also where the initiator is let in already; the disk's unit serial is the
volume's id, so that a target that is built again after a reboot is the same disk to its hosts; and what was restored with errors says so.

Everything here blocks, and is unverified against a kernel: the tests run it on a tree of files that behaves as configfs does.
Sources: cinder/cmd/rtstool.py; rtslib-fb 2.2.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from cinder_lite.domain.volume import volume_id_of
from cinder_lite.ports.target import Chap
from common.base.errors import Broken

TPG_TAG = 1
LUN = 0
_MEMBERS = (
    "BlockStorageObject", "FileIOStorageObject", "FabricModule", "LUN", "MappedLUN", "NetworkPortal", "NodeACL", "root", "Target", "TPG",
)  # fmt: skip
_EVERYWHERE = ("0.0.0.0", "[::0]")  # noqa: S104  # cinder's default: what to listen on where no address is given
_MAY_FAIL = frozenset({"[::0]"})
"""Cinder's: a machine without IPv6 is no reason to export nothing."""


class RtstoolError(Broken):
    """{reason}"""


class RtstoolImportError(RtstoolError):
    """rtslib-fb cannot be used: {reason}. Install nova-cinder-lite[lio], or Debian's python3-rtslib-fb."""


class LioExport(msgspec.Struct, frozen=True, kw_only=True):
    """A target as it is in the tree. No secrets.

    path       what LUN 0 serves; None when that is nothing
    size       bytes that are served of a plain file; None for a device, whose own size counts
    let_in     initiators that have an access list entry, also a half-made one
    sessions   those of them that are logged in
    portals    "<ip>:<port>" each
    enabled    whether it listens; it asks for CHAP only where `authentication` is true
    """

    iqn: str
    path: str | None = None
    size: int | None = None
    let_in: list[str] = []
    sessions: list[str] = []
    portals: list[str] = []
    enabled: bool = False
    authentication: bool = False


class Warned(msgspec.Struct, frozen=True):
    """What went wrong and is no error."""

    words: tuple[str, ...] = ()


def verify() -> None:
    """Raises RtstoolImportError, naming what the library lacks."""
    found = _library()
    missing = [member for member in _MEMBERS if not hasattr(found, member)]
    if missing:
        raise RtstoolImportError(reason=f"it is missing member {', '.join(missing)}; you may need a newer one")


def create(
    device: str, iqn: str, chap: Chap, *, iser: bool = False, initiators: Iterable[str] = (), portals: Sequence[str] = (), port: int = 3260
) -> Warned:  # fmt: skip
    """The target `iqn` serves `device` as LUN 0, on every portal and on no other, to those initiators and to whoever was let in before.

    device    a block device, or a plain file, which is served in the size that it has now
    portals   addresses; none: every IPv4 address, and every IPv6 address where that can be had
    Raises RtstoolError.
    """
    root, lib = _root(), _library()
    with _told(f"{iqn} could not be made"):
        _drop_broken(root, iqn)
        _drop_empty(root)
        store = _store(root, iqn, device)
        tpg = _tpg(lib.Target(lib.FabricModule("iscsi"), iqn))
        tpg.set_attribute("authentication", "1")
        _lun(tpg, store)
        for initiator in dict.fromkeys([*(acl.node_wwn for acl in tpg.node_acls), *initiators]):
            _let_in(tpg, initiator, chap)
        tpg.enable = True
        return _listen(tpg, [_canonical(ip) for ip in portals] or _EVERYWHERE, port, iser=iser, may_fail=not portals)


def add_initiator(iqn: str, initiator: str, chap: Chap) -> None:
    """That initiator is let in with these credentials, whatever it had before. Raises RtstoolError."""
    with _told(f"{initiator} could not be let in to {iqn}"):
        _let_in(_tpg(_target(iqn)), initiator, chap)


def delete_initiator(iqn: str, initiator: str) -> bool:
    """That initiator is let in no longer; the kernel ends its session. False: it was not let in. Raises RtstoolError."""
    with _told(f"{initiator} could not be put out of {iqn}"):
        found = _acl(_tpg(_target(iqn)), initiator)
        if found is not None:
            found.delete()
        return found is not None


def get_targets() -> list[str]:
    """The names of all targets, those of other fabrics too. Raises RtstoolError."""
    with _told("the targets could not be read"):
        return [str(target.wwn) for target in _root().targets]


def exports() -> list[LioExport]:
    """Every iSCSI target as it is. Raises RtstoolError."""
    root = _root()
    with _told("the targets could not be read"):
        return [_export(target) for target in root.targets if target.fabric_module.name == "iscsi"]


def delete(iqn: str) -> None:
    """Neither the target is there any more nor what it served from. Gone already: nothing happens. Raises RtstoolError."""
    root = _root()
    with _told(f"{iqn} could not be deleted"):
        for target in [target for target in root.targets if target.wwn == iqn]:
            target.delete()
        for store in [store for store in root.storage_objects if store.name == iqn]:
            store.delete()


def save(file: str | None) -> None:
    """The whole tree in a file of mode 0600, secrets and all; None: where rtslib keeps it. Raises RtstoolError."""
    root, where = _root(), Path(file or _library().root.default_save_file)
    with _told(f"the configuration could not be saved to {where}"):
        if file is None:
            where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.save_to_file(str(where))


def restore(file: str | None) -> None:
    """What a file says is made; what is there already is left alone, and is an error. Raises RtstoolError, with each error."""
    root, where = _root(), Path(file or _library().root.default_save_file)
    with _told(f"the configuration could not be restored from {where}"):
        errors = root.restore_from_file(str(where), clear_existing=False)
    if errors:
        raise RtstoolError(reason=f"restored from {where}, but for: {'; '.join(map(str, errors))}")


def is_block_device(device: str) -> bool:
    """Raises OSError when there is nothing."""
    return stat.S_ISBLK(Path(device).stat().st_mode)


def _library() -> Any:
    try:
        import rtslib_fb  # noqa: PLC0415  # an optional extra
    except ImportError as exc:
        raise RtstoolImportError(reason=str(exc)) from exc
    return rtslib_fb


def _root() -> Any:
    lib = _library()
    try:
        root = lib.root.RTSRoot()
        root.invalidate_caches()
    except (lib.RTSLibError, OSError) as exc:
        reason = f"LIO's configuration cannot be used: {exc}. It needs root, and configfs mounted at /sys/kernel/config"
        raise RtstoolError(reason=reason) from exc
    return root


@contextmanager
def _told(what: str) -> Iterator[None]:
    lib = _library()
    try:
        yield
    except (lib.RTSLibError, OSError, RuntimeError, ValueError) as exc:
        raise RtstoolError(reason=f"{what}: {exc}") from exc


def _target(iqn: str) -> Any:
    found = next((target for target in _root().targets if target.wwn == iqn), None)
    if found is None:
        raise RtstoolError(reason=f"Could not find target {iqn}")
    return found


def _tpg(target: Any) -> Any:
    """Its only portal group."""
    for other in [other for other in target.tpgs if other.tag != TPG_TAG]:
        other.delete()
    return _library().TPG(target, TPG_TAG)


def _drop_broken(root: Any, iqn: str) -> None:
    """Mapped LUNs that lead nowhere: rtslib stumbles over them wherever it looks for users of a LUN."""
    for target in root.targets:
        if target.wwn == iqn:
            for tpg in target.tpgs:
                for mapped in [mapped for acl in tpg.node_acls for mapped in acl.mapped_luns]:
                    if _link(mapped) is None:
                        mapped.delete()


def _drop_empty(root: Any) -> None:
    """Backstores whose maker died before he made their storage object: rtslib gives out their number again, and then refuses it."""
    for plugin in ("iblock", "fileio"):
        for backstore in Path(root.path, "core").glob(f"{plugin}_*"):
            if not any(entry.is_dir() for entry in backstore.iterdir()):
                backstore.rmdir()


def _store(root: Any, iqn: str, device: str) -> Any:
    """The storage object of that name that serves `device`; one that does not is deleted, with every LUN on it."""
    lib, found = _library(), None
    is_block = is_block_device(device)
    kind = lib.BlockStorageObject if is_block else lib.FileIOStorageObject
    for store in [store for store in root.storage_objects if store.name == iqn]:
        if isinstance(store, kind) and _serves(store, device, is_block=is_block):
            found = store
        else:
            store.delete()
    if found is None:
        size = {} if is_block else {"size": Path(device).stat().st_size}
        found = kind(name=iqn, dev=device, wwn=volume_id_of(iqn), **size)
    elif not found.wwn:
        found.wwn = volume_id_of(iqn) or lib.utils.generate_wwn("unit_serial")
    return found


def _serves(store: Any, device: str, *, is_block: bool) -> bool:
    """Whether it is whole and that device's. A plain file that has grown is served anew, unless somebody uses it."""
    if not store.is_configured() or store.udev_path != device:
        return False
    return is_block or store.size == Path(device).stat().st_size or _is_used(store)


def _is_used(store: Any) -> bool:
    return any(acl.session for lun in store.attached_luns for acl in lun.parent_tpg.node_acls)


def _lun(tpg: Any, store: Any) -> None:
    """LUN 0 leads to the storage object, and there is no other."""
    is_there = False
    for lun in list(tpg.luns):
        if lun.lun == LUN and _link(lun) == store.path:
            is_there = True
        else:
            lun.delete()
    if not is_there:
        _library().LUN(tpg, LUN, storage_object=store)


def _let_in(tpg: Any, initiator: str, chap: Chap) -> None:
    """Credentials before the disk: nobody sees it without them."""
    lib = _library()
    acl = _acl(tpg, initiator) or lib.NodeACL(tpg, initiator, mode="create")
    acl.chap_userid = chap.username
    acl.chap_password = chap.password
    is_mapped = False
    for mapped in list(acl.mapped_luns):
        if mapped.mapped_lun == LUN and _link(mapped) == f"{tpg.path}/lun/lun_{LUN}":
            is_mapped = True
        else:
            mapped.delete()
    if not is_mapped:
        lib.MappedLUN(acl, LUN, tpg_lun=LUN)


def _acl(tpg: Any, initiator: str) -> Any:
    return next((acl for acl in tpg.node_acls if acl.node_wwn.lower() == initiator.lower()), None)


def _listen(tpg: Any, ips: Sequence[str], port: int, *, iser: bool, may_fail: bool) -> Warned:
    lib, warned = _library(), []
    for portal in list(tpg.network_portals):
        if portal.port != port or portal.ip_address not in ips:
            portal.delete()
    for ip in ips:
        try:
            portal = lib.NetworkPortal(tpg, ip, port)
        except lib.RTSLibError as exc:
            words = f"creating NetworkPortal: ensure port {port} on ip {ip} is not in use by another service"
            if not (may_fail and ip in _MAY_FAIL):
                raise RtstoolError(reason=f"Error: {words} ({exc})") from exc
            warned.append(f"Warning: {words} ({exc})")
        else:
            if portal.iser != iser:
                portal.iser = iser
    return Warned(tuple(warned))


def _export(target: Any) -> LioExport:
    tpg = next((tpg for tpg in target.tpgs if tpg.tag == TPG_TAG), None)
    if tpg is None:
        return LioExport(iqn=target.wwn)
    store = _store_of(tpg)
    acls = list(tpg.node_acls)
    return LioExport(
        iqn=target.wwn,
        path=None if store is None else store.udev_path,
        size=None if store is None or store.plugin != "fileio" or store.is_block else store.size,
        let_in=sorted(acl.node_wwn for acl in acls),
        sessions=sorted(acl.node_wwn for acl in acls if acl.session),
        portals=sorted(f"{portal.ip_address}:{portal.port}" for portal in tpg.network_portals),
        enabled=tpg.enable,
        authentication=tpg.get_attribute("authentication") == "1",
    )


def _store_of(tpg: Any) -> Any:
    """What LUN 0 serves from; None while that is not whole."""
    with suppress(_library().RTSLibError):
        for lun in tpg.luns:
            if lun.lun == LUN and lun.storage_object.is_configured():
                return lun.storage_object
    return None


def _link(node: Any) -> str | None:
    """Where a LUN or a mapped LUN leads; None for one that was not finished."""
    return next((str(entry.resolve()) for entry in Path(node.path).iterdir() if entry.is_symlink()), None)


def _canonical(ip: str) -> str:
    """rtslib wants IPv6 addresses in brackets."""
    return ip if ip.startswith("[") or "." in ip else f"[{ip}]"
