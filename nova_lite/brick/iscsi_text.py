"""The file /etc/iscsi/initiatorname.iscsi; pure functions.

Source: open-iscsi, usr/config.c `get_iscsi_initiatorname`; RFC 7143 section 4.2.7 for the form of names.
"""

import re

INITIATOR_PREFIX = "iqn.2010-10.org.openstack"
"""The naming authority of the names that we make ourselves; cinder's targets bear the same."""

_NAME = re.compile(r"^[ \t]*InitiatorName=(\S+)", re.MULTILINE)


def parse_initiator_name(text: str) -> str | None:
    """The name that open-iscsi takes from the file's text: the last one, up to its first blank; None when there is none."""
    names = _NAME.findall(text)
    return names[-1] if names else None


def format_initiator_name(name: str) -> str:
    """A file's text that names this initiator."""
    return f"InitiatorName={name}\n"
