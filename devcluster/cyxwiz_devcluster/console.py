"""Progress goes to stderr, one line each, so that stdout stays for what a command was asked for."""

import sys


def tell(line: str) -> None:
    print(f"devcluster: {line}", file=sys.stderr, flush=True)
