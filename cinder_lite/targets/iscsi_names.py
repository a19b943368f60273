"""The words of iSCSI in cinder: names, portals, provider_location, provider_auth, connection_info. Pure, but for chance."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cinder_lite.errors import InvalidConnectorException
from cinder_lite.ports.target import Chap
from common.base.errors import Broken, Misconfigured

CHAP_USERNAME_LENGTH = 20
CHAP_PASSWORD_LENGTH = 16
"""Initiators demand 12 to 16 characters (RFC 7143, 12.1.4: at least 96 bits; open-iscsi and libiscsi take no more than 16)."""

_CHAP_CLASSES = ("23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz")
"""Cinder's alphabet: no 0, 1, I, O and l, which are taken for one another."""

# RFC 7143, 4.2.7. Upper case and the underscore are not in it, but initiators in the field have them. What is not here
# matters more: a comma or an equals sign would add a rule of its own to a target's access list.
_ISCSI_NAME = re.compile(r"(iqn\.\d{4}-\d{2}\.[A-Za-z0-9][A-Za-z0-9.:_-]*|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})")
_NAME_LENGTH_MAX = 223
_TARGET_PREFIX = re.compile(r"iqn\.\d{4}-\d{2}\.[a-z0-9][a-z0-9.-]*:[a-z0-9.:-]*")


@dataclass(frozen=True, slots=True)
class Portal:
    """Where a target listens."""

    ip: str
    port: int = 3260

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "10.0.0.4:3260" or "[fd00::4]:3260". Raises ValueError."""
        ip, colon, port = text.rpartition(":")
        if not colon or not ip or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is not a portal: wanted <ip>:<port>")
        return cls(ip.removeprefix("[").removesuffix("]"), int(port))


@dataclass(frozen=True, slots=True)
class ProviderLocation:
    """volumes.provider_location of an iSCSI volume: "<ip>:<port>[;<ip>:<port>...],<tid> <iqn> <lun>"."""

    portals: tuple[Portal, ...]
    iqn: str
    lun: int
    tid: int

    def __str__(self) -> str:
        return f"{';'.join(map(str, self.portals))},{self.tid} {self.iqn} {self.lun}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Broken when the text is not of that form."""
        try:
            where, iqn, lun = text.split(" ")
            portals, _, tid = where.partition(",")
            return cls(tuple(Portal.parse(portal) for portal in portals.split(";")), iqn, int(lun), int(tid))
        except ValueError as exc:
            raise Broken(what=f"provider_location {text!r}", reason="wanted <ip>:<port>[;...],<tid> <iqn> <lun>") from exc


def target_iqn(prefix: str, volume_name: str) -> str:
    """The target's name, e.g. iqn.2010-10.org.openstack:volume-<id>."""
    return f"{prefix}{volume_name}"


def check_target_prefix(prefix: str) -> None:
    """Raises Misconfigured unless `prefix` begins a name that every target daemon takes."""
    if not _TARGET_PREFIX.fullmatch(prefix):
        raise Misconfigured(reason=f"target_prefix {prefix!r} does not begin an iSCSI name; wanted iqn.<year>-<month>.<domain>:")


def is_iscsi_name(text: str) -> bool:
    """True for the iqn., eui. and naa. forms of at most 223 characters."""
    return len(text) <= _NAME_LENGTH_MAX and _ISCSI_NAME.fullmatch(text) is not None


def initiator_of(connector: Mapping[str, Any]) -> str:
    """The connector's initiator name. Raises InvalidConnectorException when it is missing or is not an iSCSI name."""
    initiator = connector.get("initiator")
    if not isinstance(initiator, str) or not initiator:
        raise InvalidConnectorException(missing="initiator")
    if not is_iscsi_name(initiator):
        raise InvalidConnectorException(missing=f"initiator (an iSCSI name; {initiator[:_NAME_LENGTH_MAX]!r} is not one)")
    return initiator


def new_chap() -> Chap:
    """A random pair of cinder's lengths, in letters and digits that are not taken for one another."""
    return Chap(username=_random_word(CHAP_USERNAME_LENGTH), password=_random_word(CHAP_PASSWORD_LENGTH))


def _random_word(length: int) -> str:
    """Letters and digits with each class among them."""
    letters = "".join(_CHAP_CLASSES)
    while True:
        word = "".join(secrets.choice(letters) for _ in range(length))
        if all(set(word) & set(symbols) for symbols in _CHAP_CLASSES):
            return word


def parse_provider_auth(text: str | None) -> Chap | None:
    """The pair in volumes.provider_auth; None for an empty one. Raises Broken, without the text, when it is of another form."""
    if not text:
        return None
    method, _, pair = text.partition(" ")
    username, _, password = pair.partition(" ")
    if method != "CHAP" or not username or not password or " " in password:
        raise Broken(what="provider_auth", reason="wanted CHAP <username> <password>")
    return Chap(username=username, password=password)


def iscsi_connection_info(
    location: ProviderLocation, *, volume_id: str, chap: Chap | None, is_multipath: bool = False
) -> dict[str, Any]:
    """connection_info of attach-flow 6.1, without `serial`.

    The plural keys are there when there is more than one portal or the host asked for multipath. No `qos_specs` and no
    encryption, as this cinder has neither.
    """
    portals = [str(portal) for portal in location.portals]
    data: dict[str, Any] = {
        "target_discovered": False,
        "target_iqn": location.iqn,
        "target_portal": portals[0],
        "target_lun": location.lun,
        "volume_id": volume_id,
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    if is_multipath or len(portals) > 1:
        many = len(portals)
        data |= {"target_portals": portals, "target_iqns": [location.iqn] * many, "target_luns": [location.lun] * many}
    if chap is not None:
        data |= {"auth_method": "CHAP", "auth_username": chap.username, "auth_password": chap.password}
    return {"driver_volume_type": "iscsi", "data": data}
