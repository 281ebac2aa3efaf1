"""The command line as a user runs it: output, messages and exit codes of real processes."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
from harness import DaemonProcess, wait_for

from collector.cli import main
from collector.engine import ENGINES

DOCS = Path(__file__).resolve().parent.parent / "docs" / "cli.md"


def run(*arguments: str, stdin: str | bytes = "", **env: str) -> subprocess.CompletedProcess[str]:
    """`collector ARGUMENTS`."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "collector", *arguments],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": "/nowhere", "PYTHONIOENCODING": "utf-8", **env},
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode("utf-8", "replace")
    )


# ---------------------------------------------------------------------- parse


@pytest.mark.parametrize(
    ("line", "rows"),
    [
        ("foo:1|c", ["kind       counter", "name       foo", "value      1"]),
        (
            "foo:231|ms|@0.1|#b,a:1",
            ["kind       timer", "rate       0.1", "weight     10", "tags       a:1, b"],
        ),
        ("foo:1:2:3|h", ["values     1, 2, 3"]),
        ("g:-3|g", ["value      moves by -3"]),
        ("u:é|s", ["kind       set", "value      é"]),
        ("foo:1|c|T1656581400", ["timestamp  1656581400"]),
        ("foo:1|c|@0.5|zzz", ["odd: unknown_field"]),
        ("_e{5,4}:title|text|t:error", ["kind       event", "title      title", "alert      error"]),
        ("_sc|db|2|m:a|b", ["kind       check", "status     2", "message    a|b"]),
        ("foo:1|c:20|ms", ["kind       counter", "kind       timer", "value      20"]),
    ],
)
def test_parse_explains_what_a_line_says(line: str, rows: list[str]) -> None:
    """Name, kind, values, rate, tags and time, one to a row; exit code 0."""
    done = run("parse", line)
    assert (done.returncode, done.stderr) == (0, "")
    for row in rows:
        assert any(found.startswith(row) for found in done.stdout.splitlines()), (row, done.stdout)


@pytest.mark.parametrize(
    ("line", "shown", "caret", "reason"),
    [
        ("foo:1|c@0.1", "foo:1|c@0.1", 6, "bad_type"),
        ("foo", "foo", 0, "no_value"),
        ("foo:1", "foo:1", 5, "no_type"),
        ("foo:|c", "foo:|c", 4, "empty_value"),
        (":1|c", ":1|c", 0, "empty_name"),
        ("foo:1:x:2|c", "foo:1:x:2|c", 6, "bad_value"),
        ("foo:1|c|#t:1|@2", "foo:1|c|#t:1|@2", 13, "bad_rate"),
        ("föö:x|c", "föö:x|c", 4, "bad_value"),
        ("日本:x|c", "日本:x|c", 5, "bad_value"),
        ("हु:x|c", "हु:x|c", 2, "bad_value"),  # a vowel sign takes no column, though its class is 0
        ("a\tb:1|c", "a\\tb:1|c", 1, "control_char"),
        (b"f\xc3(:1|c", "f\\xc3(:1|c", 1, "invalid_utf8"),
        ("_e{9,4}:title|text", "_e{9,4}:title|text", 3, "bad_event"),
    ],
)
def test_parse_puts_a_caret_under_the_fault(line: str | bytes, shown: str, caret: int, reason: str) -> None:
    """The caret stands under the first wrong character as a terminal shows it; exit code 1."""
    done = run("parse", stdin=line)
    assert done.returncode == 1
    first, second = done.stdout.splitlines()[-2:]
    assert first == shown
    assert second.startswith(" " * caret + f"^ {reason}: ")


@pytest.mark.parametrize("line", [b"u:\x1b[2Jx|s", b"_e{3,4}:a\x1b]|text", b"_sc|db|0|m:\x9b2J\x1b[2J"])
def test_parse_never_steers_the_terminal(line: bytes) -> None:
    """What a client put into a member, an event or a check is shown escaped, on a terminal too."""
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-m", "collector", "parse"], input=line, stdout=slave, check=True)
        assert b"\x1b" not in os.read(master, 65536)
    finally:
        os.close(slave)
        os.close(master)


def test_parse_of_nothing_prints_nothing() -> None:
    """Empty input is no refusal and no data."""
    done = run("parse")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_parse_for_programs() -> None:
    """--json has one object a line, refusals with their offset."""
    done = run("parse", "--json", "a:1|c", "b:x|c")
    good, bad = json.loads(done.stdout)
    assert good["parts"][0]["values"] == [1]
    assert [(one["reason"], one["at"]) for one in bad["refused"]] == [("bad_value", 2)]


def test_parse_follows_the_options_of_a_listener() -> None:
    """Gauge mode, dialects, meters and bare names, as a listener would have them."""
    assert "value      -3" in run("parse", "--gauges", "dogstatsd", "g:-3|g").stdout
    assert "tags       a:1" in run("parse", "--dialect", "influx", "foo,a=1:1|c").stdout
    assert run("parse", "foo,a=1:1|c").returncode == 1
    assert run("parse", "--meters", "foo:1|m").returncode == 0
    assert run("parse", "--bare-names", "foo").returncode == 0


# ---------------------------------------------------------------------- send


def receive_udp(sock: socket.socket) -> list[bytes]:
    """All datagrams that came, but for the probe."""
    sock.settimeout(0.5)
    found = []
    try:
        while True:
            found.append(sock.recv(65536))
    except TimeoutError:
        return [data for data in found if data]


def test_send_packs_lines_into_datagrams() -> None:
    """Lines of stdin go in datagrams of at most 1432 bytes; how many is told on stderr."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        lines = [f"some.metric.{n}:{n}|c" for n in range(100)]
        to = f"127.0.0.1:{sock.getsockname()[1]}"
        done = run("send", "--to", to, stdin="\n".join(lines))
        datagrams = receive_udp(sock)
    assert (done.returncode, done.stdout) == (0, "")
    assert "sent 100 lines in 2 datagrams" in done.stderr
    assert max(map(len, datagrams)) <= 1432
    assert b"\n".join(datagrams).decode().splitlines() == lines


def test_send_over_tcp() -> None:
    """Each line ends in a newline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received: list[bytes] = []

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    received.append(data)

        thread = threading.Thread(target=accept)
        thread.start()
        done = run("send", "--to", f"tcp://127.0.0.1:{listener.getsockname()[1]}", "a:1|c", "b:2|c")
        thread.join(10)
    assert done.returncode == 0
    assert b"".join(received) == b"a:1|c\nb:2|c\n"


def test_send_refuses_what_the_server_would() -> None:
    """Nothing goes out when a line is bad, unless it is forced."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        to = f"udp://127.0.0.1:{sock.getsockname()[1]}"
        done = run("send", "--to", to, "a:1|c", "bad")
        assert done.returncode == 1
        assert "no_value" in done.stderr
        assert receive_udp(sock) == []
        assert run("send", "--force", "--to", to, "a:1|c", "bad").returncode == 0
        assert receive_udp(sock) == [b"a:1|c\nbad"]


@pytest.mark.parametrize("scheme", ["unixgram", "unixstream"])
def test_send_to_unix_sockets(scheme: str) -> None:
    """A path instead of a host; without a socket there, exit code 69."""
    kind = socket.SOCK_DGRAM if scheme == "unixgram" else socket.SOCK_STREAM
    with TemporaryDirectory(prefix="c") as directory, socket.socket(socket.AF_UNIX, kind) as sock:
        to = f"{scheme}://{directory}/s.sock"
        assert run("send", "--to", to, "a:1|c").returncode == 69
        sock.bind(f"{directory}/s.sock")
        if kind == socket.SOCK_STREAM:
            sock.listen()
        done = run("send", "--to", to, "a:1|c", "b:2|c")
        assert (done.returncode, to in done.stderr) == (0, True)
        with sock.accept()[0] if kind == socket.SOCK_STREAM else nullcontext(sock) as source:
            assert source.recv(100).rstrip() == b"a:1|c\nb:2|c"


@pytest.mark.parametrize("command", ["parse", "send"])
def test_an_event_with_a_raw_newline_is_one_line(command: str) -> None:
    """As the daemon reads it, from the arguments and from stdin."""
    event = "_e{5,4}:ab\ncd|text"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        to = ["--to", f"127.0.0.1:{sock.getsockname()[1]}"] if command == "send" else []
        for arguments, stdin in (([event], ""), ([], event + "\n")):
            done = run(command, *to, *arguments, stdin=stdin)
            assert done.returncode == 0
            assert "refused" not in done.stdout + done.stderr
            if command == "send":
                assert receive_udp(sock) == [event.encode()]


def test_parse_explains_lines_as_they_come() -> None:
    """In a pipe the first answer does not wait for the last line."""
    with subprocess.Popen(
        [sys.executable, "-m", "collector", "parse"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"a:1|c\n")
        process.stdin.flush()
        assert b"counter" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_send_tells_when_nobody_listens(scheme: str) -> None:
    """Exit code 69 and the address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        done = run("send", "--to", f"{scheme}://127.0.0.1:{port}", "a:1|c")
    assert done.returncode == 69
    assert f"{scheme}://127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("to", ["udp://127.0.0.1:99999", "udp://127.0.0.1:0", "unixgram://s", "x://a:1"])
def test_send_refuses_an_address_that_is_none(to: str) -> None:
    """Exit code 2: a port above 65535 would wrap around to another server's."""
    done = run("send", "--to", to, "a:1|c")
    assert (done.returncode, done.stdout) == (2, "")
    assert to in done.stderr


# ---------------------------------------------------------------------- config


def test_config_check_finds_everything_at_once(tmp_path: Path) -> None:
    """Exit code 78, a line a fault on stderr; 0 and "ok" for a good file; 3 for warnings with --strict."""
    file = tmp_path / "c.yaml"
    file.write_text("foo: 1\nlog_level: loud\n")
    done = run("config", "check", str(file))
    assert (done.returncode, done.stdout) == (78, "")
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == ["1", "2"]
    assert [one["line"] for one in json.loads(run("config", "check", "--json", str(file)).stdout)] == [1, 2]
    file.write_text("http: {listen: '0.0.0.0:1'}")
    assert run("config", "check", str(file)).returncode == 0
    assert run("config", "check", "--strict", str(file)).returncode == 3
    file.write_text("")
    assert run("config", "check", str(file)).stdout.startswith(f"{file}: ok\n")


def test_config_init_writes_the_manual_once(tmp_path: Path) -> None:
    """It does not overwrite unless it is forced, and what it writes is valid."""
    file = str(tmp_path / "collector.yaml")
    assert run("config", "init", file).returncode == 0
    assert run("config", "check", file).returncode == 0
    assert run("config", "init", file).returncode == 1
    assert run("config", "init", "--force", file).returncode == 0


def test_config_show_and_schema_are_data(tmp_path: Path) -> None:
    """Both go to stdout and read back."""
    file = tmp_path / "c.yaml"
    file.write_text("flush_interval: 20s")
    assert "flush_interval: 20.0" in run("config", "show", str(file)).stdout
    assert json.loads(run("config", "show", "--json", str(file)).stdout)["flush_interval"] == 20.0
    assert json.loads(run("config", "schema").stdout)["title"] == "collector"


def test_run_refuses_a_bad_configuration(tmp_path: Path) -> None:
    """Exit code 78 with the place; the same for a file that is not there."""
    file = tmp_path / "c.yaml"
    file.write_text("foo: 1")
    done = run("run", "--config", str(file))
    assert done.returncode == 78
    assert f"{file}:1:1: unknown key" in done.stderr
    assert run("run", "--config", str(tmp_path / "none.yaml")).returncode == 78


def test_run_refuses_the_python_engine_when_told_to(tmp_path: Path) -> None:
    """--require-native does not fall back silently where the core was not built."""
    file = tmp_path / "c.yaml"
    file.write_text(f"state_dir: {tmp_path}/state")
    without_core = (
        "import sys; sys.modules['collector.engine._core'] = None\nfrom collector.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_core, "run", "--require-native", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 75
    assert "compiled core" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody without a home")
@pytest.mark.parametrize("home", [None, "closed"])
def test_a_user_without_a_readable_home_gets_the_defaults(tmp_path: Path, home: str | None) -> None:
    """A container's or a service's user may have no home, or one that it may not look into."""
    (tmp_path / "closed").mkdir(mode=0o700)
    script = (
        "import os; os.setuid(54321)\nfrom collector.cli.settings import config_file\n"
        "print(config_file(None))"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "COLLECTOR_CONFIG")}
    if home:
        env["HOME"] = str(tmp_path / home)
    # Imported before the user changes: the checkout itself may lie where that user cannot read.
    script = f"import collector.cli\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("None\n", "/etc/collector/collector.yaml\n")


# ---------------------------------------------------------------------- a running daemon


def test_query_shows_value_points_and_percentiles(daemon: DaemonProcess) -> None:
    """What a newcomer sees of a counter, a timer and a set."""
    lines = ["cli.hits:3|c|#route:/pay", "cli.users:ada|s", *(f"cli.latency:{n}|ms" for n in range(1, 101))]
    run("send", "--to", f"udp://127.0.0.1:{daemon.port('udp')}", *lines)
    wait_for(lambda: daemon.query("cli.latency"), "the timer")
    url = daemon.url
    counter = run("query", "cli.hits", "--url", url)
    assert (counter.returncode, counter.stderr) == (0, "")
    assert counter.stdout.splitlines()[:2] == ['cli.hits{route="/pay"}', "  now 3"]
    assert re.search(r"^  \d\d:\d\d:\d\d  3$", counter.stdout, re.MULTILINE)
    timer = run("query", "cli.latency", COLLECTOR_URL=url).stdout
    assert "count 100, sum 5050, mean 50.5" in timer
    found = dict(re.findall(r"(p\d+|max) ([\d.]+)", timer))
    assert float(found["p95"]) == pytest.approx(95, rel=0.011)
    assert float(found["max"]) == 100
    assert "now 1" in run("query", 'cli.users{kind="set"}', "--url", url).stdout
    current = json.loads(run("query", "cli.hits", "--json", "--url", url).stdout)["current"]
    assert current[0]["value"][1] == "3"


def test_query_says_what_is_not_there_and_what_it_cannot_read(daemon: DaemonProcess) -> None:
    """1 when nothing is found, 2 with the place when the query is wrong."""
    missing = run("query", "no.such.metric", "--url", daemon.url)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no.such.metric" in missing.stderr
    wrong = run("query", "sum(x)", "--url", daemon.url)
    assert wrong.returncode == 2
    assert "sum" in wrong.stderr


def test_status_metrics_and_health(daemon: DaemonProcess) -> None:
    """A daemon that runs says how it fares, to people and to programs."""
    url = daemon.url
    daemon.send_udp("status.bad|c", "status.good:1|c")
    wait_for(lambda: daemon.get("/api/v1/rejected"), "the refused line")
    shown = run("status", "--rejected", "--url", url)
    assert shown.returncode == 0
    assert f"engine {next(iter(ENGINES))}," in shown.stdout
    assert "no_value" in shown.stdout
    assert "status.bad|c" in shown.stdout
    assert json.loads(run("status", "--json", "--url", url).stdout)["store"]["up"] is True
    metrics = run("metrics", "collector_lines_total", "--url", url).stdout
    assert metrics.startswith('collector_lines_total{listener="udp://localhost:0"} ')
    assert (
        json.loads(run("metrics", "collector_series", "--json", "--url", url).stdout)["collector_series"] > 0
    )
    assert run("health", "--url", url).stdout == "healthy\nready\n"
    assert json.loads(run("health", "--json", "--url", url).stdout) == {"healthy": True, "ready": True}


@pytest.mark.parametrize("command", [["health"], ["status"], ["metrics"], ["query", "x"]])
def test_a_daemon_that_is_not_there_is_unreachable(command: list[str]) -> None:
    """Exit code 69 and the address, without a traceback."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        done = run(*command, "--url", url)
    assert done.returncode == 69
    assert url in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-other\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",
    ],
    ids=["no-http", "other-json", "a-list", "cut-short"],
)
def test_another_server_at_the_address_is_no_daemon(answer: bytes) -> None:
    """Whatever it answers: exit code 69, the address, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = run("status", "--url", url)
        thread.join(10)
    assert (done.returncode, done.stdout) == (69, "")
    assert url in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_says_when_no_name_begins_so(daemon: DaemonProcess) -> None:
    """Exit code 1 and a message; stdout stays empty."""
    done = run("metrics", "no_such", "--url", daemon.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no_such" in done.stderr


def test_no_color_is_respected_on_a_terminal(daemon: DaemonProcess) -> None:
    """A title is bold on a terminal, and plain when NO_COLOR is set."""
    daemon.send_udp("cli.coloured:1|c")
    wait_for(lambda: daemon.value("cli.coloured") == 1, "the counter")
    for env, bold in (({}, True), ({"NO_COLOR": "1"}, False)):
        master, slave = pty.openpty()
        try:
            command = [sys.executable, "-m", "collector", "query", "cli.coloured", "--url", daemon.url]
            plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            subprocess.run(command, stdout=slave, env={**plain, **env}, check=True)
            assert (b"\x1b[1m" in os.read(master, 65536)) is bold
        finally:
            os.close(slave)
            os.close(master)


# ---------------------------------------------------------------------- help and documentation


def commands(group: Any = main, prefix: str = "collector") -> dict[str, click.Command]:
    """All commands by their full name."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


def test_every_command_and_option_is_documented() -> None:
    """docs/cli.md and the commands are compared both ways."""
    text = DOCS.read_text()
    sections = dict(
        re.findall(r"^### `(collector[a-z ]*)`.*?\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    )
    assert set(sections) == set(commands())
    for name, command in commands().items():
        options = {one.opts[0] for one in command.params if isinstance(one, click.Option)}
        documented = set(re.findall(r"^- `(--[a-z-]+)", sections[name], re.MULTILINE))
        assert documented == options, name


@pytest.mark.parametrize("name", ["collector", "collector config", *commands()])
def test_every_command_has_an_example(name: str) -> None:
    """--help shows how it is used."""
    done = run(*name.split()[1:], "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_usage_errors_have_their_own_code() -> None:
    """An unknown command or option ends with 2."""
    assert run("nonsense").returncode == 2
    assert run("parse", "--nonsense").returncode == 2
