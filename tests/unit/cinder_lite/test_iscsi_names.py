"""The words of iSCSI in the forms that cinder writes them."""

import pytest

from cinder_lite.errors import InvalidConnectorException
from cinder_lite.ports.target import Chap
from cinder_lite.targets.iscsi_names import (
    Portal,
    ProviderLocation,
    check_target_prefix,
    initiator_of,
    is_iscsi_name,
    iscsi_connection_info,
    parse_provider_auth,
    target_iqn,
)
from common.base.errors import Broken, Misconfigured

IQN = "iqn.2010-10.org.openstack:volume-1"


def test_a_provider_location_is_written_as_cinder_writes_it() -> None:
    one = ProviderLocation((Portal("10.0.0.4"),), iqn=IQN, lun=1, tid=7)
    two = ProviderLocation((Portal("10.0.0.4"), Portal("fd00::4", 3261)), iqn=IQN, lun=0, tid=0)
    assert str(one) == f"10.0.0.4:3260,7 {IQN} 1"
    assert str(two) == f"10.0.0.4:3260;[fd00::4]:3261,0 {IQN} 0"


@pytest.mark.parametrize(
    "text", ["", "10.0.0.4:3260", f"10.0.0.4,1 {IQN} 1", f"10.0.0.4:99999,1 {IQN} 1", f"a:1,x {IQN} 1", f"a:1,1 {IQN}"]
)
def test_what_is_no_provider_location_is_refused(text: str) -> None:
    with pytest.raises(Broken, match="provider_location"):
        ProviderLocation.parse(text)


def test_no_provider_auth_is_no_chap() -> None:
    assert parse_provider_auth(None) is None
    assert parse_provider_auth("") is None


@pytest.mark.parametrize("text", ["CHAP", "CHAP user", "CHAP user topsecret topsecret", "KRB5 user topsecret", "CHAP  topsecret"])
def test_a_provider_auth_of_another_form_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Broken) as caught:
        parse_provider_auth(text)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["iqn.1993-08.org.debian:01:vm1", "iqn.1991-05.com.microsoft:my_pc", "eui.02004567A425678D", "naa.52004567BA64678D"],
)
def test_initiator_names_in_use_are_taken(name: str) -> None:
    assert initiator_of({"initiator": name}) == name


@pytest.mark.parametrize("connector", [{}, {"initiator": None}, {"initiator": ""}, {"initiator": 7}])
def test_a_connector_without_initiator_is_refused_by_that_name(connector: dict[str, object]) -> None:
    with pytest.raises(InvalidConnectorException, match="initiator"):
        initiator_of(connector)


@pytest.mark.parametrize(
    "name",
    [
        "vm1",
        "iqn.1993-08.org.debian:a,initiator-address=ALL",
        "iqn.1993-08.org.debian:a b",
        "iqn.1993-08.org:a\n",
        "iqn.1993-08.org:" + "a" * 220,
    ],
)
def test_an_initiator_that_could_add_a_rule_of_its_own_is_refused(name: str) -> None:
    assert not is_iscsi_name(name)
    with pytest.raises(InvalidConnectorException, match="is not one"):
        initiator_of({"initiator": name})


def test_cinders_own_prefix_makes_iscsi_names() -> None:
    prefix = "iqn.2010-10.org.openstack:"
    check_target_prefix(prefix)
    assert is_iscsi_name(target_iqn(prefix, "volume-dc5f5bd6-2eb3-4c1e-a7b5-3f3f6f9cbd11"))


@pytest.mark.parametrize("prefix", ["", "iqn.2010-10.org.openstack", "iqn.2010-10.org.open_stack:", "openstack:"])
def test_a_prefix_that_begins_no_name_is_a_mistake_in_the_configuration(prefix: str) -> None:
    with pytest.raises(Misconfigured, match="target_prefix"):
        check_target_prefix(prefix)


def test_connection_info_has_the_keys_that_nova_reads() -> None:
    location = ProviderLocation((Portal("10.0.0.4"),), iqn=IQN, lun=1, tid=7)
    assert iscsi_connection_info(location, volume_id="1", chap=Chap("user", "topsecret1234")) == {
        "driver_volume_type": "iscsi",
        "data": {
            "target_discovered": False,
            "target_iqn": IQN,
            "target_portal": "10.0.0.4:3260",
            "target_lun": 1,
            "volume_id": "1",
            "auth_method": "CHAP",
            "auth_username": "user",
            "auth_password": "topsecret1234",
            "encrypted": False,
            "qos_specs": None,
            "access_mode": "rw",
        },
    }


def test_a_host_with_multipath_gets_the_plural_keys() -> None:
    location = ProviderLocation((Portal("10.0.0.4"),), iqn=IQN, lun=1, tid=7)
    data = iscsi_connection_info(location, volume_id="1", chap=None, is_multipath=True)["data"]
    assert (data["target_portals"], data["target_iqns"], data["target_luns"]) == (["10.0.0.4:3260"], [IQN], [1])
    assert "auth_method" not in data
