"""Greets its first argument, or the world, and says how much came in the request's body."""

import sys

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        name = sys.argv[1] if len(sys.argv) > 1 else "world"
        body = sys.stdin.buffer.read()
        # Standard output is the answer; what is written to standard error is in the log.
        print(f"Hello, {name}! You sent {len(body)} bytes.")
