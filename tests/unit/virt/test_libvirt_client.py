"""What libvirt's errors become, and what is said when its process does not answer as it should."""

import json
from pathlib import Path

import pytest

from common.base.errors import Fault, Misconfigured
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.libvirt_client import LibvirtClient

SECRET = "Sesame-never-shown-16"


def client(folder: Path, body: str) -> LibvirtClient:
    """One whose Python is a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncat > {folder}/asked\n{body}\n")
    python.chmod(0o755)
    return LibvirtClient("qemu:///system", pythons=[str(python)])


def saying(folder: Path, answer: object) -> LibvirtClient:
    (folder / "answer").write_text(json.dumps(answer))
    return client(folder, f"cat {folder}/answer")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ((42, 10, "no domain with matching uuid"), HypervisorUnavailable, "it is not running"),
        ((55, 10, "domain is not running"), HypervisorUnavailable, "it is not running"),
        ((38, 7, "Failed to connect socket"), HypervisorUnavailable, "libvirt at qemu:///system"),
        ((1, 13, "client socket is closed"), HypervisorUnavailable, "libvirt at qemu:///system"),
        ((68, 10, "cannot acquire state change lock"), HypervisorUnavailable, "libvirt at qemu:///system"),
        ((38, 18, "Cannot access storage file: No such file or directory"), HypervisorRefused, "refused attach"),
        ((1, 10, "iSCSI: Failed to connect to LUN : Authentication failure(513)"), HypervisorRefused, "513"),
    ],
)
async def test_an_error_is_the_machines_the_daemons_or_a_refusal(
    tmp_path: Path, error: tuple[int, int, str], kind: type[Fault], said: str
) -> None:
    libvirt = saying(tmp_path, {"error": dict(zip(("code", "domain", "message"), error, strict=True))})
    with pytest.raises(kind, match=said):
        await libvirt.ask("attach", name="vm", timeout_s=10)


async def test_a_secret_that_libvirt_quotes_is_not_shown(tmp_path: Path) -> None:
    libvirt = saying(tmp_path, {"error": {"code": 1, "domain": 10, "message": f"login with {SECRET} failed"}})
    with pytest.raises(HypervisorRefused, match=r"login with \*\*\* failed"):
        await libvirt.ask("attach", name="vm", timeout_s=10, hidden=SECRET)


async def test_what_is_asked_goes_to_standard_input_and_the_result_comes_back(tmp_path: Path) -> None:
    libvirt = saying(tmp_path, {"result": ["a"]})
    assert await libvirt.ask("list", name="vm", timeout_s=10, secret=SECRET) == ["a"]
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked == {"uri": "qemu:///system", "verb": "list", "secret": SECRET}


async def test_a_process_that_does_not_end_in_time_or_dies_without_an_answer_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(HypervisorUnavailable, match=r"has not done list within 0\.3 s; it hangs, or the machine does"):
        await client(tmp_path, "exec sleep 600").ask("list", name="vm", timeout_s=0.3)
    with pytest.raises(HypervisorUnavailable, match="process ended: Segmentation fault"):
        await client(tmp_path, "echo 'Segmentation fault' >&2; exit 139").ask("list", name="vm", timeout_s=10)


async def test_the_first_python_that_has_the_binding_is_used_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "blind").mkdir()
    blind = saying(tmp_path / "blind", {"missing": "no libvirt"})
    sighted = saying(tmp_path, {"result": 1})
    both = LibvirtClient("qemu:///system", pythons=["/no/such/python", *blind._pythons, *sighted._pythons])
    assert await both.ask("about", name="vm", timeout_s=10) == 1
    assert both._pythons == sighted._pythons
    with pytest.raises(Misconfigured, match="/no/such/python"):
        await LibvirtClient("qemu:///system", pythons=["/no/such/python"]).ask("about", name="vm", timeout_s=10)
