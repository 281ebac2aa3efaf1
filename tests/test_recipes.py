"""The README's recipes, as they are printed, against a real daemon; ports and paths are the test's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from harness import DaemonProcess, running, wait_for

README = Path(__file__).resolve().parent.parent / "README.md"
RECIPES = re.findall(r"^    \$ ((?:echo|printf) .*\| (nc|openssl) .*)$", README.read_text(), re.MULTILINE)

# Our own commands, as people copy them into a shell.
COMMANDS = [
    (page.name, command)
    for page in (README, *sorted((README.parent / "docs").glob("*.md")))
    for command in re.findall(
        r"^    (?:\$ )?((?:\S*/)?collector (?:run|send|query|parse|status|metrics|config|store) .*)$",
        page.read_text(),
        re.MULTILINE,
    )
]

CONFIG = """\
listen:
  - udp://127.0.0.1:0
  - tcp://127.0.0.1:0
  - unixgram://{room}/statsd.sock
  - unixstream://{room}/stream.sock
  - {{{{url: "tcp://[::1]:0", tls: {{{{certificate: "{room}/server.pem"}}}}}}}}
flush_interval: 1s
state_dir: {{state_dir}}
http: {{{{listen: "127.0.0.1:0"}}}}
"""


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """Where the sockets and certificates are: a short path, as those of sockets must be."""
    with TemporaryDirectory(prefix="c") as name:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(f"{name}/ca.pem")
        issued = authority.issue_cert("::1")
        issued.private_key_and_cert_chain_pem.write_to_path(f"{name}/server.pem")
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the listeners that the README tells of."""
    config = CONFIG.format(room=room)
    with running(tmp_path_factory.mktemp("recipes"), config) as found:
        yield found


def total(daemon: DaemonProcess) -> float:
    """How often the recipes' line has arrived, flushed or not."""
    return daemon.value("page.views") or 0


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_shell_hands_an_example_over_as_it_is_meant(page: str, command: str) -> None:
    """A line of StatsD has a |, a selector braces and quotes: what is not quoted would be the shell's."""
    bare = re.sub(r"'[^']*'", "", command)
    assert not set("|&;(){}[]*?$\"'") & set(bare), f"{page}: {bare}"


def test_the_readme_has_recipes_for_every_transport() -> None:
    """The other tests are made from them."""
    text = "\n".join(recipe for recipe, _ in RECIPES)
    for part in ("nc -u -w1", "nc -N ", "nc -uU", "nc -NU", "printf", "openssl s_client"):
        assert part in text


@pytest.mark.parametrize("number", range(len(RECIPES)), ids=[recipe for recipe, _ in RECIPES])
def test_a_recipe_works_as_printed(daemon: DaemonProcess, room: Path, number: int) -> None:
    """A newcomer types it, and the line counts once."""
    recipe, program = RECIPES[number]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    scheme = "udp" if " -u " in recipe else "tcp"
    recipe = recipe.replace("127.0.0.1 8125", f"127.0.0.1 {daemon.port(scheme)}")
    recipe = recipe.replace("127.0.0.1:8126", f"[::1]:{daemon.port('tcp', '[::1]')}")
    recipe = recipe.replace("/run/collector", str(room)).replace("ca.pem", f"{room}/ca.pem")
    before = total(daemon)
    done = subprocess.run(["sh", "-c", recipe], capture_output=True, timeout=30, check=False)
    wait_for(lambda: total(daemon) == before + 1, f"one more: {done.stderr.decode()}")
    assert daemon.get("/api/v1/rejected") == []
