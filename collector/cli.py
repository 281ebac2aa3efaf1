import os, sys
from pathlib import Path


def main() -> None:
    from collector.config import load
    from collector.daemon import run

    sys.exit(run(load(Path(sys.argv[3]), os.environ)))
