"""What is written of iSCSI is read back as it was."""

from hypothesis import given, settings, strategies as st

from cinder_lite.ports.target import Chap
from cinder_lite.targets.iscsi_names import Portal, ProviderLocation, new_chap, parse_provider_auth

portals = st.builds(Portal, st.ip_addresses().map(str), st.integers(0, 65535))
words = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1)
names = st.from_regex(r"iqn\.2010-10\.org\.openstack:volume-[0-9a-f-]{1,36}", fullmatch=True)


@given(portals)
def test_a_portal_is_read_back(portal: Portal) -> None:
    assert Portal.parse(str(portal)) == portal


@given(
    st.builds(ProviderLocation, st.lists(portals, min_size=1, max_size=3).map(tuple), names, st.integers(0, 255), st.integers(0))
)
def test_a_provider_location_is_read_back(location: ProviderLocation) -> None:
    assert ProviderLocation.parse(str(location)) == location


@given(words, words)
def test_a_provider_auth_is_read_back(username: str, password: str) -> None:
    chap = Chap(username, password)
    assert parse_provider_auth(chap.provider_auth) == chap


@settings(max_examples=50)
@given(st.integers())
def test_chap_pairs_are_of_the_length_that_initiators_take_and_hard_to_misread(nth: int) -> None:
    chap = new_chap()
    assert (len(chap.username), len(chap.password)) == (20, 16)
    assert (chap.username + chap.password).isalnum()
    assert not set("01IOl") & set(chap.username + chap.password)
    assert new_chap() != chap
    assert chap.password not in repr(chap)
