"""The real os-brick, asked what this host is: our own answer is in its."""

from pathlib import Path

from nova_lite.brick.host import HostConnector
from nova_lite.brick.os_brick import os_brick_properties
from nova_lite.brick.properties import connector_properties

HOST, MY_IP = "cmp1", "10.0.0.21"


async def test_what_we_say_of_this_host_os_brick_says_too() -> None:
    theirs = await os_brick_properties(host=HOST, my_ip=MY_IP)
    assert theirs is not None
    ours = connector_properties(host=HOST, ip=MY_IP, initiator=theirs.get("initiator"))
    assert ours.items() <= theirs.items()


async def test_where_it_is_installed_and_wanted_its_answer_is_given(tmp_path: Path) -> None:
    host = HostConnector(host=HOST, my_ip=MY_IP, initiator_file=tmp_path / "none", userspace_disks=True, os_brick=True)
    assert await host.get_connector_properties() == await os_brick_properties(host=HOST, my_ip=MY_IP)


async def test_where_it_is_wanted_and_not_installed_our_own_answer_is_given() -> None:
    assert await os_brick_properties(host=HOST, my_ip=MY_IP, python="/usr/bin/python3") is None
