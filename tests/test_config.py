"""The configuration: what is wrong is said all at once, with its place; what is right loads to settings."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from collector.addresses import Address
from collector.config import ConfigError, Settings, check, load, schema, shipped, show
from collector.listeners.settings import ListenerSettings
from collector.statsd.names import Dialect

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
        ("redis: {zzz: 1}", '1:9: unknown key "zzz" (known here: url, prefix, durability, user, password'),
        (
            "listen:\n - {url: 'udp://h', gagues: statsd}",
            '2:21: unknown key "gagues" (did you mean "gauges"?)',
        ),
        (
            "log_level: loud",
            "1:12: log_level: input should be 'debug', 'info', 'warning' or 'error', found 'loud'",
        ),
        ("limits: {series: 0}", "1:18: limits.series: input should be greater than or equal to 1, found 0"),
        ("flush_interval: 7s", "1:17: flush_interval: must be whole seconds that divide a minute: try 10s"),
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
            "1:14: redis.url is not an address (use embedded, redis://, rediss://, unix://, redis+clus",
        ),
        ("log_level: info\nlog_level: info", '2:1: key "log_level" stands twice (first on line 1)'),
        ("- a", "1:1: a configuration is a mapping of keys to values"),
        ("state_dir: ${NOWHERE}", "1:12: the environment has no NOWHERE"),
        ("state_dir: cost$", '1:12: a lone "$"'),
        (
            "state_dir: ${file:/nowhere/x}",
            "1:12: ${file:/nowhere/x} cannot be read (/nowhere/x: No such file",
        ),
        ("state_dir: ${credential:x}", "1:12: ${credential:x}: there are no credentials (systemd sets them)"),
        ("listen: [\n", "not YAML"),
        ("[", "not YAML"),
        ("idle_expiry: .inf", "1:14: idle_expiry: a duration must be finite"),
        ("idle_expiry: 1:30", '1:14: idle_expiry: "1:30" is not a duration: write it like "10s"'),
        ("redis:", "1:7: redis is empty (it must be a mapping of keys to values; leave it out for its"),
        ("listen: udp://h:1", "1:9: listen: must be a list, found 'udp://h:1'"),
        ("listen: [8125]", '1:10: listen[0]: must be an address like "udp://localhost:8125", or a mapping'),
        ("listen: ['udp://h:70000']", '1:10: listen[0].url: "udp://h:70000" is not an address: Port out'),
        (
            "listen: ['unix:///s']",
            '1:10: listen[0].url: "unix://" may mean either: write unixgram:// for data',
        ),
        (
            "listen: ['unixgram://s']",
            '1:10: listen[0].url: "unixgram://s" is not a path in full: write it with th',
        ),
        ("listen: ['unixstream:///d/']", '1:10: listen[0].url: "unixstream:///d/" is not a path in full'),
        (
            f"listen: ['unixgram:///{'x' * 103}']",
            "1:10: listen[0].url: the path of a socket has at most 103 bytes",
        ),
        ("listen: ['unixgram:///s', 'unixgram:///s']", "1:27: listen: unixgram:///s stands twice"),
        (
            "listen: [{url: 'unixgram:///s', mode: 888}]",
            '1:39: listen[0].mode: "888" is not a file mode: write it in',
        ),
        (
            "listen: [{url: 'udp://h', mode: 0660}]",
            "1:33: listen[0].mode means nothing to udp (set allow to say",
        ),
        (
            "listen: [{url: 'unixgram:///s', allow: ['::1']}]",
            "1:40: listen[0].allow means nothing to unixgram (who",
        ),
        (
            "listen: [{url: 'udp://h', tls: {certificate: c}}]",
            "1:32: listen[0].tls means nothing to udp (only tcp",
        ),
        ("listen: [{url: 'tcp://h', tls: {}}]", "1:32: listen[0].tls.certificate is missing"),
        (
            "listen: [{url: 'tcp://h', allow: [10.0.0.1/8]}]",
            '1:35: listen[0].allow[0]: "10.0.0.1/8" has bits behind its mask: write 10.0.0.0/8',
        ),
        (
            "listen: [{url: 'tcp://h', allow: [ten]}]",
            '1:35: listen[0].allow[0]: "ten" is not a network: write it',
        ),
        ("listen: [{url: 'udp://h', prefix: 'a:'}]", "1:35: listen[0].prefix holds what no name can"),
        ("listen: [{url: 'udp://h', tags: {a: 'b,c'}}]", "1:37: listen[0].tags.a holds what no tag can"),
        (
            "listen: [{url: 'udp://h', sender_rate: -1}]",
            "1:40: listen[0].sender_rate: input should be greater",
        ),
        ("listen: [{url: 'udp://h', dialects: influx}]", "1:37: listen[0].dialects: must be a list, found"),
        ("embedded: {max_memory: 0}", "1:24: embedded.max_memory: input should be greater than or equal to"),
        ("state_dir: ''", "1:12: state_dir is no path (write a path in full)"),
        ("state_dir: ~no such user/x", '1:12: state_dir: "~" is no directory here (write a path in full)'),
        ("redis: {prefix: 'a}b'}", "1:17: redis.prefix holds blanks or braces"),
        ("redis: {url: redis}", "1:14: redis.url is not an address (use embedded, redis://"),
        ("redis: {url: 'redis://'}", "1:14: redis.url names no host (write it like redis://host:6379/0)"),
        ("redis: {url: 'redis://h/x'}", "1:14: redis.url has a database that is no number"),
        ("redis: {url: 'redis://h:99999/0'}", "1:14: redis.url has a host or port that cannot be read"),
        ("redis: {url: 'unix://run/x.sock'}", "1:14: redis.url names no socket (write it like unix:///path"),
        ("redis: {prefix: '${A:-${B}}'}", "1:17: a reference inside another (a default is plain text)"),
        ("redis: {prefix: '${credential:../x}'}", "1:17: ${credential:../x} names no credential (write"),
        ('redis: {prefix: "${file:/a\\0b}"}', "1:17: ${file:/a\\x00b} cannot be read (not a text)"),
        ("redis: {prefix: '${file:/dev/zero}'}", "1:17: ${file:/dev/zero} cannot be read (more than 1048576"),
        (
            "redis:\n\turl: x",
            "2:1: not YAML: found character that cannot start any token (indent with blanks",
        ),
        ("a: 1\nb: \x00", "2:4: not YAML: the character '\\x00' is not allowed"),
        ("log_level: info\n---\na: 1", "2:1: not YAML: but found another document"),
        ("? [a, b]\n: 1", "1:3: a key must be a plain word"),
        ("log_level: !!bool x", "1:12: log_level: input should be 'debug'"),
        ("log_level: !!int ''", "1:12: log_level: input should be 'debug'"),
        ("log_level: !!timestamp x", "1:12: log_level: input should be 'debug'"),
        ("limits: {series: !x 1}", "1:18: a value of type !x is not known here"),
        (
            "limits: !!python/object/apply:os.getpid []",
            "1:9: a value of type tag:yaml.org,2002:python/object",
        ),
        ("limits: &a [*a]", "1:9: nested too deeply"),
        (f"limits: {'[' * 600}{']' * 600}", "1:29: nested too deeply"),
    ],
)
def test_a_fault_is_told_with_its_place_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    """One fault, one line: where it stands, what is wrong, what to write instead."""
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected) or (expected == "not YAML" and expected in found[0]), found


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Nobody mends a file one run at a time."""
    text = "limits: {series: 0, tags: x}\nfoo: 1\nhttp: {listen: 8127}\nredis: {url: '${MISSING}'}\n"
    found = problems(tmp_path, text)
    assert [one.split(":")[0] for one in found] == ["1", "1", "2", "3", "4"]


def test_faults_between_settings_are_told_beside_all_others(tmp_path: Path) -> None:
    """What no field can tell by itself waits for no field to be mended first."""
    text = """foo: 1
redis: {url: mysql://h}
flush_interval: 7s
listen: [udp://h:1, {url: 'udp://h:1'}, tcp:h]
state_dir: ''
"""
    found = problems(tmp_path, text)
    assert [one.partition(": ")[0] for one in found] == ["1:1", "2:14", "3:17", "4:21", "4:41", "5:12"]


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


@pytest.mark.parametrize("mode", ["0660", "660", "'0660'", "'660'"])
def test_a_file_mode_is_octal_however_it_is_written(tmp_path: Path, mode: str) -> None:
    """As chmod reads it: with a zero or without, in quotes or not."""
    found = settings(tmp_path, f"listen: [{{url: 'unixgram:///s', mode: {mode}}}]").listen[0]
    assert (found.mode.value, str(found.mode)) == (0o660, "0660")


def test_short_and_long_listeners_are_the_same(tmp_path: Path) -> None:
    """A URL alone is the long form with nothing else in it."""
    short = settings(tmp_path, "listen: ['tcp://[::1]:99']")
    assert short == settings(tmp_path, "listen: [{url: 'tcp://[::1]:99'}]")
    assert str(short.listen[0].url) == "tcp://[::1]:99"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "listen: ['udp://localhost:0', {url: 'tcp://0.0.0.0:1', gauges: dogstatsd, dialects: [influx]}]",
        "listen: [{url: 'tcp://h', tls: {certificate: /c}, allow: ['::1'], sender_tag: host, tags: {a: b}}]",
        "listen: [{url: 'unixgram:///s%20%25%3F%2341', mode: 0600, names: strict, sender_rate: 5}]",
    ],
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


@pytest.mark.parametrize(
    "text",
    [
        "redis: 'redis://u:hunter2@h/0'",
        "redis: {url: ['redis://u:hunter2@h/0']}",
        "redis: {url: 'redis://u:hunter2@h:99999/0'}",
        "redis: {url: 'redis://u:hun/ter2@h/0'}",
        "redis: {url: 'redis://u:12#ter2@h/0'}",
        "redis: {url: 'redis://u:12/ter2@h/0'}",
        "redis: {url: 'redis://u:12?ter2@h/0'}",
        "redis: {url: 'redis://h/0?password=hunter2'}",
        "redis: {url: 'redis://u:#hunter2@h/0'}",
        "http: {listen: 'redis://u:hunter2@h/0'}",
        "listen: [{url: 'udp://u:hunter2@h:1'}]",
        "redis: {url: 'unix:///x.sock?db=0&password=hunter2'}",
        "listen: ['udp://u:hunter2@h:1']",
        "listen: ['udp://h:${file:%s}']",
        "limits: {series: '${file:%s}'}",
        "log_level: ${file:%s}",
        "http: {listen: '${file:%s}'}",
        "http: {listen: ['${file:%s}']}",
        "idle_expiry: ${file:%s}",
        "backlog: {max_bytes: '${credential:secret}'}",
        "backlog: {max_bytes: '${PASSWORD}'}",
        "idle_expiry: ${PASSWORD} redis://u:hunter2@h/0",
        "idle_expiry: hunter2 ${PASSWORD}",
        "idle_expiry: ${UNSET:-hunter2}",
        "log_level: ${UNSET:-hunter2}",
    ],
)
def test_a_secret_in_a_wrong_place_is_not_shown(tmp_path: Path, text: str) -> None:
    """Errors land in logs and tickets; a password pasted into the wrong key must not."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    found = problems(
        tmp_path, text.replace("%s", str(secret)), CREDENTIALS_DIRECTORY=str(tmp_path), PASSWORD="hunter2"
    )
    assert "ter2" not in "".join(found), found


def test_an_error_names_the_reference_that_was_filled_in(tmp_path: Path) -> None:
    """The value may be a secret; where it came from is what the operator needs."""
    assert problems(tmp_path, "idle_expiry: ${IDLE}", IDLE="soon")[0].startswith(
        "1:14: idle_expiry: the value of ${IDLE} is not a duration: write it like"
    )


@pytest.mark.parametrize(
    "url",
    ["embedded", "rediss://h", "redis://u:p%40@[::1]:1/2", "redis://:hunter@2@h", "unix://u:p@/x.sock?db=3"],
)
def test_addresses_of_a_store(tmp_path: Path, url: str) -> None:
    """What redis-py can read is taken as it is written."""
    assert settings(tmp_path, f"redis: {{url: '{url}'}}").redis.url == url


def test_numbers_and_texts_are_read_as_people_mean_them(tmp_path: Path) -> None:
    """Without YAML 1.1's octal and base-60 numbers and its dates."""
    assert settings(tmp_path, "limits: {series: 0100}").limits.series == 100
    assert settings(tmp_path, "redis: {prefix: 2026-01-01}").redis.prefix == "2026-01-01"


@pytest.mark.parametrize(
    ("host", "warned"),
    [("localhost", False), ("127.1.2.3", False), ("[::1]", False), ("127.example", True), ("[::]", True)],
)
def test_only_loopback_is_no_warning(tmp_path: Path, host: str, warned: bool) -> None:
    """A name that begins like a loopback address is not one."""
    file = tmp_path / "c.yaml"
    file.write_text(f"http: {{listen: '{host}:1'}}")
    assert bool(check(file, {})[1]) is warned


def test_what_is_shown_is_the_same_each_time() -> None:
    """A set has another order in each process, the text must not."""
    every = frozenset(Dialect)
    shown = show(Settings(listen=(ListenerSettings(url=Address("udp", "h", 1), dialects=every),)))
    assert re.findall(r"^  - (\w+)$", shown, re.MULTILINE) == ["graphite", "influx", "librato", "signalfx"]


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


def valid(data: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether data keeps to a JSON Schema, as far as ours uses its words."""
    if "$ref" in rule:
        return valid(data, root["$defs"][rule["$ref"].rpartition("/")[2]], root)
    if "anyOf" in rule:
        return any(valid(data, one, root) for one in rule["anyOf"])
    kinds: dict[str, Any] = {
        **{"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    }
    kind = kinds.get(rule["type"], int if rule["type"] == "integer" else int | float)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        return False
    if isinstance(data, dict):
        if "properties" not in rule:
            return all(valid(value, rule["additionalProperties"], root) for value in data.values())
        inner = rule["properties"]
        return set(rule.get("required", ())) <= set(data) <= set(inner) and all(
            valid(value, inner[key], root) for key, value in data.items()
        )
    if isinstance(data, list):
        return all(valid(one, rule["items"], root) for one in data)
    if isinstance(data, str):
        return data in rule.get("enum", [data]) and bool(re.search(rule.get("pattern", ""), data))
    if data is None:
        return True
    return bool(rule.get("minimum", data) <= data <= rule.get("maximum", data))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (shipped(), True),
        (show(Settings()), True),
        ("listen: ['${A}', {url: 'tcp://h', dialects: ['${D}'], gauges: '${G}'}]", True),
        ("{log_level: '${L}', limits: {series: '${S}'}, http: {listen: '${H}'}}", True),
        ("log_level: loud", False),
        ("listen: [http://h]", False),
        ("listen: [{gauges: statsd}]", False),
        ("limits: {series: 0}", False),
        ("flush_intervall: 10s", False),
    ],
)
def test_the_schema_takes_what_loads(text: str, expected: bool) -> None:
    """An editor marks neither the manual, nor short listeners, nor references; and it marks faults."""
    made = schema()
    assert valid(yaml.safe_load(text), made, made) is expected


def test_the_defaults_in_the_schema_keep_to_it() -> None:
    """An editor offers them: they are written as a file has them."""
    made = schema()
    for one in (made, *made["$defs"].values()):
        for name, rule in one.get("properties", {}).items():
            assert "default" not in rule or valid(rule["default"], rule, made), name
