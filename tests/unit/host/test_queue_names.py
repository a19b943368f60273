"""Names that come back after a restart, and are never two processes' at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.base.errors import Misconfigured
from common.base.limits import QUEUE_NAMES_MAX
from common.host.queue_names import StableNames, names_folder


def names(folder: Path, *, processname: str = "nova-compute") -> StableNames:
    return StableNames(folder, hostname="cmp1", processname=processname)


def test_names_are_hostname_processname_and_a_number_from_1(tmp_path: Path) -> None:
    own = names(tmp_path)
    assert [own(), own()] == ["cmp1:nova-compute:1", "cmp1:nova-compute:2"]
    own.close()


def test_a_name_comes_back_when_its_holder_is_gone(tmp_path: Path) -> None:
    first, second = names(tmp_path), names(tmp_path)
    assert [first(), second(), first()] == ["cmp1:nova-compute:1", "cmp1:nova-compute:2", "cmp1:nova-compute:3"]
    first.close()
    third = names(tmp_path)
    assert [third(), third(), third()] == ["cmp1:nova-compute:1", "cmp1:nova-compute:3", "cmp1:nova-compute:4"]
    second.close()
    third.close()


def test_processes_of_another_name_count_for_themselves(tmp_path: Path) -> None:
    first, second = names(tmp_path), names(tmp_path, processname="nova/conductor")
    assert [first(), second()] == ["cmp1:nova-compute:1", "cmp1:nova/conductor:1"]
    first.close()
    second.close()


HOLDER = """
import sys
from pathlib import Path
from common.host.queue_names import StableNames
own = StableNames(Path(sys.argv[1]), hostname="cmp1", processname="nova-compute")
print(*[own() for _ in range(20)], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Four processes that take twenty names each, all at once."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    processes = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
        for _ in range(4)
    ]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_no_two_processes_have_a_name_in_common_and_a_killed_one_gives_its_back(
    holders: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    held = [process.stdout.readline().split() for process in holders if process.stdout]
    assert sorted(name for part in held for name in part) == sorted(f"cmp1:nova-compute:{number}" for number in range(1, 81))
    holders[2].kill()
    holders[2].wait()
    own = names(tmp_path)
    assert sorted(own() for _ in range(20)) == sorted(held[2])
    assert own() == "cmp1:nova-compute:81"
    own.close()


def test_a_name_that_a_link_leads_elsewhere_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "cmp1_nova-compute_qmanager.1").symlink_to(tmp_path / "elsewhere")
    own = names(tmp_path)
    assert own() == "cmp1:nova-compute:2"
    assert not (tmp_path / "elsewhere").exists()
    own.close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"use_queue_manager cannot give a queue its name: .*/file/names: Not a directory"):
        names(tmp_path / "file" / "names")()


def test_there_is_an_end_to_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.host.queue_names.QUEUE_NAMES_MAX", 2)
    own = names(tmp_path)
    own()
    own()
    with pytest.raises(Misconfigured, match="all of 2 names of cmp1:nova-compute are taken"):
        own()
    own.close()
    assert QUEUE_NAMES_MAX >= 100


def test_names_are_shared_by_the_whole_host_where_it_has_shared_memory(tmp_path: Path) -> None:
    shared, state = tmp_path / "shm", tmp_path / "state"
    assert names_folder(state, shared=shared) == state
    shared.mkdir()
    assert names_folder(state, shared=shared) == shared
    own = names(state)
    assert own() == "cmp1:nova-compute:1", "the folder is made when it is needed"
    own.close()
