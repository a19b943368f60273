"""What configuration files may say, and what is said about those that may not."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from oslo_config import cfg

from common.app.config import Overrides, Section, Settings, load
from common.app.config_files import scan
from common.app.config_sample import sample
from common.app.options import CommonConfig, common_sections, read_common
from common.base.errors import Misconfigured

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the working directory; its path is the bare name, so that messages can be compared whole."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "lite.conf") -> Path:
        Path(name).write_text(text)
        return Path(name)

    return write


SECTIONS = (
    Section(
        "DEFAULT",
        (
            cfg.StrOpt("host", default="cmp1"),
            cfg.BoolOpt("debug", default=False),
            cfg.StrOpt("url", default="bus://$host", secret=True),
            cfg.IntOpt("pin", secret=True),
            cfg.ListOpt("names", default=[]),
        ),
    ),
    Section(
        "database",
        (
            cfg.StrOpt("connection", default="sqlite:///$host", secret=True),
            cfg.IntOpt("pool", default=5, min=1, max=9, deprecated_name="pool_size", deprecated_group="DEFAULT"),
            cfg.FloatOpt("wait", default=1.5, min=0, deprecated_name="wait_s"),
            cfg.StrOpt("kind", default="row", choices=["row", "page"]),
        ),
    ),
)


def refusal(*files: Path, sections: tuple[Section, ...] = SECTIONS, overrides: Overrides | None = None) -> str:
    with pytest.raises(Misconfigured) as caught:
        load(files, sections, overrides=overrides)
    return str(caught.value)


@dataclass(frozen=True, slots=True)
class Database:
    connection: str
    pool: int
    wait: float


@dataclass(frozen=True, slots=True)
class Names:
    names: tuple[str, ...]


def test_without_files_every_option_has_its_default() -> None:
    assert load([], SECTIONS).read("database", Database) == Database("sqlite:///cmp1", 5, 1.5)


def test_a_later_file_wins_over_an_earlier_one(write: Write) -> None:
    first = write("[DEFAULT]\nhost = a\n[database]\npool = 2\n", "1.conf")
    second = write("[database]\npool = 3\n", "2.conf")
    assert load([first, second], SECTIONS).read("database", Database) == Database("sqlite:///a", 3, 1.5)


def test_an_option_given_twice_has_its_last_value(write: Write) -> None:
    assert load([write("[database]\npool = 2\npool = 3\n")], SECTIONS).read("database", Database).pool == 3


def test_a_list_becomes_a_tuple(write: Write) -> None:
    assert load([write("[DEFAULT]\nnames = lvm, file1\n")], SECTIONS).read("DEFAULT", Names) == Names(("lvm", "file1"))


def test_an_override_wins_over_every_file_and_reaches_options_that_refer_to_it(write: Write) -> None:
    settings = load([write("[DEFAULT]\nhost = a\n")], SECTIONS, overrides={"DEFAULT": {"host": "b"}, "database": {"pool": "7"}})
    assert settings.read("database", Database) == Database("sqlite:///b", 7, 1.5)


def test_the_case_of_a_section_does_not_matter(write: Write) -> None:
    assert load([write("[Database]\npool = 2\n")], SECTIONS).read("database", Database).pool == 2


def test_a_deprecated_name_is_taken_with_one_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    file = write("[database]\nwait_s = 3\nwait_s = 4\n")
    with caplog.at_level(logging.WARNING):
        settings = load([file, file], SECTIONS)
    assert settings.read("database", Database).wait == 4.0
    assert settings.warnings == ("lite.conf:2: [database] wait_s is deprecated, use wait",)
    assert caplog.records == []


def test_a_deprecated_name_in_another_section_is_taken_with_the_new_place_named(write: Write) -> None:
    settings = load([write("[DEFAULT]\npool_size = 3\n")], SECTIONS)
    assert settings.read("database", Database).pool == 3
    assert settings.warnings == ("lite.conf:2: [DEFAULT] pool_size is deprecated, use [database] pool",)


def test_sections_of_others_are_passed_over_with_one_warning(write: Write) -> None:
    settings = load([write("[neutron]\nurl = x\n[glance]\n[api_database]\nconnection = y\n[neutron]\n")], SECTIONS)
    assert settings.warnings == ("sections that are not ours were passed over: [neutron], [glance], [api_database]",)


def test_a_section_of_another_program_of_ours_is_neither_an_error_nor_a_warning(write: Write) -> None:
    theirs = (Section("DEFAULT", (cfg.StrOpt("driver"),)), Section("qemu", (cfg.StrOpt("binary"),)))
    settings = load([write("[DEFAULT]\ndriver = x\nhost = b\n[qemu]\nbinary = q\n")], SECTIONS, foreign=theirs)
    assert (settings.warnings, settings.values["DEFAULT"]["host"]) == ((), "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[DEFAULT]\n# a comment\n\ndebgu = true\n",
            "lite.conf:4: [DEFAULT] debgu: unknown option; did you mean debug?",
            id="a mistyped option",
        ),
        pytest.param(
            "[DEFAULT]\nDEBUG = true\n", "lite.conf:2: [DEFAULT] DEBUG: unknown option; did you mean debug?", id="letter case"
        ),
        pytest.param(
            "[database]\nwait_ss = 1\n",
            "lite.conf:2: [database] wait_ss: unknown option; did you mean wait?",
            id="near a deprecated name: today's is suggested",
        ),
        pytest.param(
            "[DEFAULT]\nconnection = x\n",
            "lite.conf:2: [DEFAULT] connection: unknown option; it belongs to [database]",
            id="an option in the wrong section",
        ),
        pytest.param(
            "[DEFAULT]\nzzzzzzzz = 1\n",
            "lite.conf:2: [DEFAULT] zzzzzzzz: unknown option; nothing here has a name like it: remove it",
            id="an option like no other",
        ),
        pytest.param(
            "[databse]\nconnection = x\n",
            "lite.conf:1: [databse] is not a section that we know; did you mean [database]?",
            id="a mistyped section",
        ),
        pytest.param(
            "[default]\n", "lite.conf:1: [default] is not a section; did you mean [DEFAULT]?", id="DEFAULT in small letters"
        ),
        pytest.param(
            "[database]\npool = many\n",
            "lite.conf:2: [database] pool: found 'many', wanted an integer from 1 to 9",
            id="no integer",
        ),
        pytest.param(
            "[database]\npool = 10\n", "lite.conf:2: [database] pool: found '10', wanted an integer from 1 to 9", id="out of range"
        ),
        pytest.param(
            "[database]\nwait_s = soon\n",
            "lite.conf:2: [database] wait_s: found 'soon', wanted a number of at least 0",
            id="a wrong value under a deprecated name",
        ),
        pytest.param(
            "[database]\nkind = table\n",
            "lite.conf:2: [database] kind: found 'table', wanted one of row, page",
            id="no such choice",
        ),
        pytest.param(
            "[DEFAULT]\ndebug = maybe\n", "lite.conf:2: [DEFAULT] debug: found 'maybe', wanted true or false", id="no boolean"
        ),
        pytest.param("[DEFAULT]\nhost =\n", "lite.conf:2: [DEFAULT] host: found nothing, wanted text", id="an empty value"),
        pytest.param(
            "[database]\npool =\n", "lite.conf:2: [database] pool: found nothing, wanted an integer from 1 to 9", id="no number"
        ),
        pytest.param(
            "[DEFAULT]\npin = 12secret\n",
            "lite.conf:2: [DEFAULT] pin: found a value that is secret and not shown, wanted an integer",
            id="a secret of the wrong type",
        ),
        pytest.param(
            "[DEFAULT]\nurl = bus://u:pa$word@h\n",
            "lite.conf:2: [DEFAULT] url: $ begins another option's name, and there is none of that name; write $$ for a plain $",
            id="a dollar in a password",
        ),
        pytest.param(
            "[database]\npool = 1\n  2\n  3\nkind = x\n",
            "2 problems\n  lite.conf:2: [database] pool: found '1\\n2\\n3', wanted an integer from 1 to 9"
            "\n  lite.conf:5: [database] kind: found 'x', wanted one of row, page",
            id="an option over several lines is at its first",
        ),
        pytest.param("host = a\n", "lite.conf:1: an option before any [section]; put [DEFAULT] above it", id="no section"),
        pytest.param(
            "[DEFAULT]\nhost a\n", "lite.conf:2: neither a [section] nor key = value: the line has no '='", id="no equals sign"
        ),
        pytest.param("[DEFAULT]\n= a\n", "lite.conf:2: a value without a key: the line begins with '='", id="no key"),
        pytest.param(
            "[DEFAULT]\n  host = a\n",
            "lite.conf:2: a line that begins with a blank continues the option above it, and there is none; remove the blank",
            id="an indented option",
        ),
        pytest.param("[DEFAULT\nhost = a\n", "lite.conf:1: the section header does not end with ']'", id="no closing bracket"),
        pytest.param("[]\n", "lite.conf:1: the section header has no name", id="no name"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_remedy(write: Write, text: str, message: str) -> None:
    assert refusal(write(text)) == f"Configuration: {message}"


def test_all_mistakes_of_all_files_are_told_together_in_their_order(write: Write) -> None:
    first = write("[database]\nkind = x\npol = 1\n[DEFAULT]\npin = a\n", "1.conf")
    second = write("[DEFAULT]\ndebug = perhaps\n[databas]\n", "2.conf")
    assert refusal(first, second) == (
        "Configuration: 5 problems\n"
        "  1.conf:2: [database] kind: found 'x', wanted one of row, page\n"
        "  1.conf:3: [database] pol: unknown option; did you mean pool?\n"
        "  1.conf:5: [DEFAULT] pin: found a value that is secret and not shown, wanted an integer\n"
        "  2.conf:2: [DEFAULT] debug: found 'perhaps', wanted true or false\n"
        "  2.conf:3: [databas] is not a section that we know; did you mean [database]?"
    )


def test_a_wrong_value_is_told_at_the_place_that_decides(write: Write) -> None:
    first = write("[database]\npool = 1\n", "1.conf")
    second = write("[database]\n\npool = 2\npool = many\n", "2.conf")
    assert refusal(first, second) == "Configuration: 2.conf:4: [database] pool: found 'many', wanted an integer from 1 to 9"


def test_every_file_that_cannot_be_read_is_named(write: Write) -> None:
    good = write("[DEFAULT]\n")
    Path("folder").mkdir()
    Path("latin").write_bytes(b"[DEFAULT]\nhost = \xe9\n")
    assert refusal(Path("nova.conf"), good, Path("folder"), Path("latin")) == (
        "Configuration: 3 problems\n"
        "  nova.conf: there is no such file; correct --config-file or create it\n"
        "  folder: it cannot be read: Is a directory\n"
        "  latin: byte 17 is not UTF-8 text"
    )


def test_a_wrong_override_is_told_as_the_command_lines() -> None:
    wrong = {"database": {"pool": "x", "pol": "1"}, "DEFAULT": {"pin": "hunter2"}}
    assert refusal(overrides=wrong) == (
        "Configuration: 3 problems\n"
        "  command line: [database] pool: found 'x', wanted an integer from 1 to 9\n"
        "  command line: [database] pol: there is no such option\n"
        "  command line: [DEFAULT] pin: found a value that is secret and not shown, wanted an integer"
    )


def test_no_repr_and_no_scan_shows_a_secret(write: Write) -> None:
    file = write("[DEFAULT]\nurl = bus://u:hunter2@h\n[database]\nconnection = mysql://u:hunter2@h\n")
    assert "hunter2" not in repr(load([file], SECTIONS)) + repr(scan([file]))


def test_sections_that_an_option_names_are_read_and_must_be_there(write: Write) -> None:
    def stanzas(settings: Settings) -> tuple[Section, ...]:
        names = settings.read("DEFAULT", Names).names
        return tuple(Section(name, (cfg.IntOpt("size", default=1),), wanted_by="[DEFAULT] names") for name in names)

    settings = load([write("[DEFAULT]\nnames = a,b\n[a]\nsize = 4\n[b]\n")], SECTIONS, then=stanzas)
    assert (settings.values["a"], settings.values["b"]) == ({"size": 4}, {"size": 1})

    with pytest.raises(Misconfigured) as caught:
        load([write("[DEFAULT]\nnames = a,lvmx,debug\npin = x\n[a]\nsize = x\nsiz = 1\n[lvm]\n[debug]\n")], SECTIONS, then=stanzas)
    assert str(caught.value) == (
        "Configuration: 5 problems\n"
        "  [DEFAULT] names names lvmx, but no file has a section [lvmx]; is [lvm] meant?\n"
        "  [DEFAULT] names: debug already means something else here; give that section another name\n"
        "  lite.conf:3: [DEFAULT] pin: found a value that is secret and not shown, wanted an integer\n"
        "  lite.conf:5: [a] size: found 'x', wanted an integer\n"
        "  lite.conf:6: [a] siz: unknown option; did you mean size?"
    )


def test_a_dataclass_that_disagrees_with_the_options_is_a_mistake_of_the_program() -> None:
    @dataclass(frozen=True)
    class Wrong:
        pool: str

    with pytest.raises(msgspec.ValidationError):
        load([], SECTIONS).read("database", Wrong)


def test_the_process_global_options_of_oslo_config_are_left_alone(write: Write) -> None:
    load([write("[DEFAULT]\nhost = a\n")], SECTIONS)
    assert "host" not in cfg.CONF


def common(text: str = "", *, write: Write, environ: dict[str, str] | None = None) -> CommonConfig:
    sections = common_sections(control_exchange="nova", environ=environ or {"XDG_STATE_HOME": "/state"})
    return read_common(load([write(text)], sections))[0]


def test_without_a_word_everything_lies_in_the_users_state_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = common_sections(control_exchange="nova", environ={"XDG_STATE_HOME": "/state"})
    found, database = read_common(load([], sections))
    assert found.state_path == Path("/state/lite")
    assert found.transport_url == "kombu+filesystem:///state/lite/bus"
    assert database.connection == "sqlite:////state/lite/lite.sqlite"
    assert (found.control_exchange, found.rpc_response_timeout, found.executor_thread_pool_size) == ("nova", 60.0, 64)
    assert (found.report_interval, found.service_down_time, found.graceful_shutdown_timeout) == (10.0, 60.0, 20.0)
    assert (found.debug, found.enable_data_probe, found.log_format) == (False, False, "console")
    monkeypatch.setenv("HOME", "/home/ann")
    assert common(write=write, environ={"PATH": ""}).state_path == Path("/home/ann/.local/state/lite")


def test_a_state_path_is_made_absolute_before_the_bus_and_the_database_are_put_into_it(write: Write, tmp_path: Path) -> None:
    assert common("[DEFAULT]\nstate_path = var\n", write=write).transport_url == f"kombu+filesystem://{tmp_path}/var/bus"


@pytest.mark.parametrize("host", ["cmp1@lvm", "a b", "cmp#", "a/b"])
def test_a_host_name_that_would_not_survive_as_an_address_is_refused(write: Write, host: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        common(f"[DEFAULT]\nhost = {host}\n", write=write)
    assert str(caught.value) == (
        f"Configuration: lite.conf:2: [DEFAULT] host: found '{host}', wanted a name without blanks and without any of @ # * /"
    )


def test_a_service_down_time_that_every_service_would_miss_is_refused(write: Write) -> None:
    with pytest.raises(Misconfigured) as caught:
        common("[DEFAULT]\nreport_interval = 30\nservice_down_time = 30\n", write=write)
    assert str(caught.value) == (
        "Configuration: [DEFAULT] service_down_time is 30 s and report_interval 30 s: every service would be taken for dead; "
        "wanted: service_down_time of several times report_interval"
    )


def test_a_sample_says_meaning_type_and_default_and_changes_nothing(write: Write) -> None:
    text = sample([Section("DEFAULT", SECTIONS[0].options, help="Of every process."), SECTIONS[1]])
    assert "[DEFAULT]\n# Of every process.\n\n" in text
    assert "# Wanted: an integer from 1 to 9.\n# Deprecated name: pool_size.\n#pool = 5\n" in text
    assert "#debug = false\n" in text
    assert load([write(text)], SECTIONS) == load([], SECTIONS)
