"""Counts its visits in a file, asks another server by https, and streams: the count at once, the other's answer as it comes.

    make -C .. python-api
    cp ../api.toml ../functions/python-api.toml    # its settings: name your API and your directory
    wasmbox serve --allow-outbound api.example.com:443 --preopen-root /srv/data
    curl -N localhost:8095/python-api
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import outgoing_handler, streams
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    IncomingResponse,
    OutgoingBody,
    OutgoingRequest,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Https,
)

COUNTER = Path("/data/python-api")


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        response = OutgoingResponse(Fields())
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as to:
            answer(to)
        OutgoingBody.finish(body, None)


def answer(to: streams.OutputStream) -> None:
    say(to, f"visit {count()}\n")
    try:
        response = ask(os.environ["API"])
    except Err as error:
        # What is written to standard error is in the log.
        print(f"the API was not reached: {error.value}", file=sys.stderr)
        say(to, "the API was not reached\n")
        return
    say(to, f"the API says {response.status()}: ")
    with response.consume() as body, body.stream() as parts:
        while True:
            try:
                to.blocking_splice(parts, 64 * 1024)
            except Err as error:
                if not isinstance(error.value, streams.StreamError_Closed):
                    raise
                break
    say(to, "\n")


def count() -> int:
    """Two calls at the same time may count as one: files have no locks in WASI."""
    visit = int(COUNTER.read_text()) + 1 if COUNTER.exists() else 1
    COUNTER.write_text(f"{visit}\n")
    return visit


def ask(url: str) -> IncomingResponse:
    parts = urlsplit(url)
    request = OutgoingRequest(Fields())
    request.set_scheme(Scheme_Https())
    request.set_authority(parts.netloc)
    request.set_path_with_query((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    with outgoing_handler.handle(request, None) as future:
        with future.subscribe() as ready:
            ready.block()
        match future.get():
            case Ok(Ok(response)):
                return response
            case Ok(Err() as error):
                raise error
            case other:
                raise RuntimeError(f"no response: {other}")


def say(to: streams.OutputStream, text: str) -> None:
    to.blocking_write_and_flush(text.encode())
