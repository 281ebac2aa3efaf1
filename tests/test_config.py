"""The configuration: what is wrong is said all at once, with its place; what is right loads to settings."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from collector.config import ConfigError, Settings, check, load, schema, shipped, show
from collector.listeners.settings import ListenerSettings

DOCS = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    """What is wrong with a text, as "line:column: message"."""
    file = tmp_path / "collector.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    return [str(one).removeprefix(f"{file}:") for one in caught.value.problems]


def settings(tmp_path: Path, text: str, **environ: str) -> Settings:
    """The settings that a text loads to."""
    file = tmp_path / "collector.yaml"
    file.write_text(text)
    return load(file, environ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flush_intervall: 10s", '1:1: unknown key "flush_intervall" (did you mean "flush_interval"?)'),
        ("redis: {zzz: 1}", '1:9: unknown key "zzz" (known here: url, prefix)'),
        (
            "listen:\n - {url: 'udp://h', gagues: statsd}",
            '2:21: unknown key "gagues" (did you mean "gauges"?)',
        ),
        (
            "log_level: loud",
            "1:12: log_level: input should be 'debug', 'info', 'warning' or 'error', found 'loud'",
        ),
        ("limits: {series: 0}", "1:18: limits.series: input should be greater than or equal to 1, found 0"),
        ("flush_interval: 7s", "1:17: flush_interval must be whole seconds that divide a minute (try 10s)"),
        (
            "flush_interval: 0s",
            "1:17: flush_interval: input should be greater than or equal to 1, found '0s'",
        ),
        ("listen: []", "1:9: listen is empty: nothing would arrive"),
        (
            "listen:\n - udp://localhost:1\n - udp://localhost:1",
            "3:4: listen: udp://localhost:1 stands twice",
        ),
        ("listen:\n - {gauges: statsd}", "2:4: listen[0].url is missing"),
        (
            "redis: {url: mysql://h}",
            "1:14: redis.url is not an address (use embedded, redis://, rediss://, unix://)",
        ),
        ("a: 1\na: 2", '2:1: key "a" stands twice (first on line 1)'),
        ("- a", "1:1: a configuration is a mapping of keys to values"),
        ("state_dir: ${NOWHERE}", "1:12: the environment has no NOWHERE"),
        ("state_dir: cost$", '1:12: a lone "$"'),
        (
            "state_dir: ${file:/nowhere/x}",
            "1:12: ${file:/nowhere/x} cannot be read (/nowhere/x: No such file",
        ),
        ("state_dir: ${credential:x}", "1:12: ${credential:x}: there are no credentials (systemd sets them)"),
        ("listen: [\n", "not YAML"),
        ("idle_expiry: .inf", "1:14: idle_expiry: a duration must be finite"),
    ],
)
def test_a_fault_is_told_with_its_place_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    """One fault, one line: where it stands, what is wrong, what to write instead."""
    found = problems(tmp_path, text)
    assert any(one.startswith(expected) or (expected == "not YAML" and expected in one) for one in found), (
        found
    )


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Nobody mends a file one run at a time."""
    text = "limits: {series: 0, tags: x}\nfoo: 1\nhttp: {listen: 8127}\nredis: {url: '${MISSING}'}\n"
    found = problems(tmp_path, text)
    assert [one.split(":")[0] for one in found] == ["1", "1", "2", "3", "4"]


def test_references_are_filled_in_after_parsing(tmp_path: Path) -> None:
    """Variables, defaults, files and credentials; what they hold never becomes structure."""
    secret = tmp_path / "secret"
    secret.write_text("redis://u:p@h/1\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "dir").write_text("/var/x")
    text = f"""
listen: ["udp://${{HOST}}:${{PORT:-8125}}"]
redis: {{url: "${{file:{secret}}}"}}
state_dir: ${{credential:dir}}
flush_interval: ${{INTERVAL:-20s}}
limits: {{series: "${{SERIES}}"}}
"""
    found = settings(
        tmp_path, text, HOST="127.0.0.1", SERIES="7", CREDENTIALS_DIRECTORY=str(credentials), INTERVAL=""
    )
    assert str(found.listen[0].url) == "udp://127.0.0.1:8125"
    assert found.redis.url == "redis://u:p@h/1"
    assert found.state_dir == Path("/var/x")
    assert (found.flush_interval, found.limits.series) == (20.0, 7)
    injected = problems(tmp_path, "log_level: ${L}", L="info\nlimits: {series: 1}")
    assert injected[0].startswith("1:12: log_level: input should be")


def test_a_dollar_is_written_twice(tmp_path: Path) -> None:
    """$$ stands for a dollar, so that any text can be written."""
    assert settings(tmp_path, "redis: {prefix: 'a$$b'}").redis.prefix == "a$b"


def test_home_is_filled_in(tmp_path: Path) -> None:
    """`~` is the home directory of the environment."""
    assert settings(tmp_path, "state_dir: ~/x", HOME="/h").state_dir == Path("/h/x")


def test_short_and_long_listeners_are_the_same(tmp_path: Path) -> None:
    """A URL alone is the long form with nothing else in it."""
    short = settings(tmp_path, "listen: ['tcp://[::1]:99']")
    assert short == settings(tmp_path, "listen: [{url: 'tcp://[::1]:99'}]")
    assert str(short.listen[0].url) == "tcp://[::1]:99"


@pytest.mark.parametrize(
    "text",
    ["", "listen: ['udp://localhost:0', {url: 'tcp://0.0.0.0:1', gauges: dogstatsd, dialects: [influx]}]"],
)
def test_what_is_shown_loads_back_equal(tmp_path: Path, text: str) -> None:
    """`config show` is a configuration."""
    found = settings(tmp_path, text + "\nredis: {prefix: 'a$$b'}\n")
    assert settings(tmp_path, show(found)) == found


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """Neither in the effective configuration nor in an error."""
    found = settings(tmp_path, "redis: {url: 'redis://u:hunter2@h/0'}")
    assert "hunter2" not in show(found)
    assert "redis://u:***@h/0" in show(found)
    assert "hunter2" not in "".join(problems(tmp_path, "redis: {url: 'redsi://u:hunter2@h/0'}"))


def test_a_wide_http_address_is_a_warning(tmp_path: Path) -> None:
    """There is no password: who can reach it is told."""
    file = tmp_path / "c.yaml"
    file.write_text("http: {listen: '0.0.0.0:8127'}")
    _, warnings = check(file, {})
    assert [str(one) for one in warnings] == [
        f"{file}:1:16: warning: http.listen 0.0.0.0:8127 can be reached by others, and there is no password"
        " (put a proxy before it)"
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No traceback for a wrong path."""
    with pytest.raises(ConfigError, match=r"none\.yaml:1:1: cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    """A small file that unfolds to billions of values is refused, quickly."""
    text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    text += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "too large" in problems(tmp_path, text)[0]


def keys_of(kind: Any, prefix: str = "") -> list[str]:
    """All settings by their full name."""
    names = []
    for one in fields(kind):
        hint = get_type_hints(kind)[one.name]
        inner: Any = next((arg for arg in (hint, *get_args(hint)) if is_dataclass(arg)), None)
        if inner is not None and inner.__name__.endswith(("Settings", "Limits")):
            names += keys_of(inner, f"{prefix}{one.name}.")
        else:
            names.append(prefix + one.name)
    return names


def test_the_shipped_file_is_the_defaults_and_names_every_setting(tmp_path: Path) -> None:
    """It is the manual: what it states is what happens without it, and nothing is left out."""
    assert settings(tmp_path, shipped()) == load(None, {})
    for name in keys_of(Settings):
        assert re.search(rf"^[ #-]*{name.rpartition('.')[2]}:", shipped(), re.MULTILINE), name


def test_the_documentation_has_every_setting_and_no_other() -> None:
    """docs/configuration.md and the settings are compared both ways."""
    documented = re.findall(r"^\| `([a-z_.]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert documented == keys_of(Settings)


def test_the_schema_describes_every_setting() -> None:
    """Each has the description that stands beside it in the code; references are allowed for values."""
    made = schema()
    json.dumps(made)
    for kind in (made, *made["$defs"].values()):
        for name, one in kind.get("properties", {}).items():
            described = made["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            assert described.get("description"), name
    listener = made["$defs"]["ListenerSettings"]["properties"]
    assert set(listener) == {one.name for one in fields(ListenerSettings)}
    assert any(one.get("pattern") == r"\$\{" for one in made["properties"]["flush_interval"]["anyOf"])
