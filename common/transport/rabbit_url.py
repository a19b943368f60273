"""oslo.messaging's transport URL for RabbitMQ: `rabbit://user:password@host:port,user:password@host2:port/vhost?ssl=true`.

Source: oslo_messaging/transport.py, `TransportURL.parse`; kombu's reading of the virtual host.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from common.base.errors import Misconfigured
from common.transport.rabbit_settings import Tls, tls_version

SCHEMES = ("rabbit://", "amqp://")
"""URLs of RabbitMQ: over aio-pika, and over our own engine. All else in them is the same."""

_PORT = 5672
_OPTIONS = ("ssl", "ssl_version", "ssl_ca_file", "ssl_cert_file", "ssl_key_file")
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Host:
    """One broker of a cluster and how to log in there."""

    name: str
    port: int = _PORT
    user: str = "guest"
    password: str = field(default="guest", repr=False)


@dataclass(frozen=True, slots=True)
class RabbitUrl:
    """Where a cluster is. `shown` is the URL without passwords and without options."""

    hosts: tuple[Host, ...]
    virtual_host: str
    shown: str
    tls: Tls | None = None


def parse_rabbit_url(url: str) -> RabbitUrl:
    """What a `rabbit://` or `amqp://` URL says.

    No host: guest at localhost; no port: 5672; no user: guest. An empty path or one slash is the virtual host "/".
    User, password and virtual host are percent-encoded where they hold other than letters and digits.
    Options: `ssl` and those that begin with `ssl_`, as [oslo_messaging_rabbit] names them; all others of that section are taken
    where there is a configuration, by common.app.oslo_options.
    Raises Misconfigured, without the password, for what is not of this form.
    """
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        hosts = tuple(_host(text) for text in parts.netloc.split(",")) if parts.netloc else (Host("localhost"),)
    except ValueError:
        # The driver's error would repeat the text it stumbled over, perhaps a password.
        scheme = url.partition("://")[0]
        raise Misconfigured(reason=f"transport_url {shown} is not {scheme}://user:password@host:port,.../vhost") from None
    return RabbitUrl(hosts, unquote(parts.path[1:]) or "/", shown, _tls(parts.query, shown))


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """The URL without the options in its query part, and these; of an option given twice the last value counts.

    Raises Misconfigured, without a word of it, for a query part that is not of the form option=value&option=value: it may be the
    rest of a password that holds a bare "?".
    """
    place, mark, query = url.partition("?")
    if not mark:
        return url, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    if "@" in query or len(pairs) != query.count("&") + 1 or not all(_OPTION.fullmatch(name) for name, _ in pairs):
        reason = f"transport_url {without_password(url)}: what follows its '?' is not option=value&option=value"
        raise Misconfigured(reason=f"{reason}; a '?' or '@' within a password is written %3F or %40")
    return place, dict(pairs)


_OPTION = re.compile(r"[a-z][a-z_]{0,63}")


def without_password(url: str) -> str:
    """The URL as logs and errors may show it: passwords are `***`, options are left out.

    Where a password may hold a bare "@", ":", "/", "," or "?", all that may belong to it is left out.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url.partition("?")[0]
    shown = rest.partition("?")[0]
    netloc, slash, path = shown.partition("/")
    parts = [_PLACE.fullmatch(part) for part in netloc.split(",")]
    is_folder = not netloc and ":" not in rest
    is_clear = is_folder or ("@" not in rest.removeprefix(netloc) and all(parts) and not _is_doubtful(parts))
    if is_clear:
        return f"{scheme}://{','.join(_shown(part) for part in parts if part)}{slash}{path}"
    after = rest.rpartition("@")[2] if "@" in rest else ""
    return f"{scheme}://***@{after.partition('?')[0]}"


_PLACE = re.compile(
    r"(?:(?P<user>[^:@/,?\[\]]*)(?P<password>:[^:@/,?\[\]]*)?@)?(?P<place>(?:\[[0-9A-Za-z:.%]*\]|[^:@/,?\[\]]*)(?::[0-9]+)?)"
)


def _is_doubtful(parts: Sequence[re.Match[str] | None]) -> bool:
    """True when `user:a@,b@host` or `host:port,user@host` may just as well be one password with a comma in it."""
    passwords = [part["password"] is not None for part in parts if part]
    logins = [part["user"] is not None for part in parts if part]
    places = [bool(part["place"]) for part in parts if part]
    return any(logins) and not (all(logins) and all(places) and len(set(passwords)) == 1)


def _shown(part: re.Match[str]) -> str:
    if part["user"] is None:
        return part["place"]
    return f"{part['user']}{':***' if part['password'] else ''}@{part['place']}"


def _host(text: str) -> Host:
    login, _, place = text.rpartition("@")
    user, mark, password = login.partition(":")
    # urlsplit reads [::1]:5672 and names a port that is no number.
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError("no host")
    return Host(
        parts.hostname,
        parts.port or _PORT,
        unquote(user) if login else "guest",
        unquote(password) if mark else ("" if login else "guest"),
    )


def _tls(query: str, shown: str) -> Tls | None:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise Misconfigured(reason=f"transport_url {shown}: unknown option {unknown[0]}; known: {', '.join(_OPTIONS)}")
    wanted = _TRUTHS.get(options.pop("ssl", "false").lower())
    if wanted is None:
        raise Misconfigured(reason=f"transport_url {shown}: ssl is neither true nor false")
    files = {name.removeprefix("ssl_"): value for name, value in options.items() if name != "ssl_version"}
    return Tls(tls_version(options.get("ssl_version", "")), **files) if wanted else None
