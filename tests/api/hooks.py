"""What schemathesis cannot know: which functions there are, and what holds for every problem."""

import json
import os
import pathlib
import re

import schemathesis
from hypothesis import strategies as st

COMMANDS = ["hello", "hello.wat", "echo", "rust-hello", "trap", "busy", "hungry", "exit", "cgi", "invalid", "native", "settings"]
COMPONENTS = ["rust-http", "rust-http.wasm"]

# What is wrong on purpose must stay so.
HELP = os.environ["API_TEST_MODE"] == "positive"


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    """Most requests are for a function that exists."""
    if not HELP or "module" not in (path_parameters or {}):
        return st.just(path_parameters)
    functions = COMPONENTS if "path" in path_parameters else COMMANDS
    known = st.sampled_from(functions).map(lambda name: {**path_parameters, "module": name})
    return st.one_of(known, known, known, st.just(path_parameters))


LIMITS = {
    "Cpu-Quota": ["1", "250m", "0.5", "1000"],
    "Memory-Request": ["64", "64Ki", "16Mi", "100M"],
    "Invocation-Timeout": ["20", "50ms"],
}


@schemathesis.hook
def flatmap_headers(context, headers):
    """Most limits are within the caps: one that only fits its pattern seldom is."""
    headers = headers or {}
    if not HELP:
        return st.just(headers)
    fitting = {name: st.sampled_from(LIMITS[name]) for name in LIMITS if name in headers}
    return st.one_of(st.fixed_dictionaries(fitting).map(lambda limits: {**headers, **limits}), st.just(headers))


# The rows of the error table: | 400 | [`bad-limit`](errors.md#bad-limit) | ...
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "api.md"
ROW = re.compile(r"^\| (\d{3}) \| \[`([a-z-]+)`\]", re.MULTILINE)
STATUSES = {code: int(status) for status, code in ROW.findall(DOCUMENT.read_text())}
assert len(STATUSES) > 20, "the error table of docs/api.md was not found"


@schemathesis.check
def problems_are_whole(context, response, case):
    """A problem says the same in its status, its header and its document; without that header an answer is no problem."""
    code = response.headers.get("wasmbox-error")
    content_type = response.headers.get("content-type", [""])[0]
    if code is None:
        assert not content_type.startswith("application/problem+json"), "a problem without the header Wasmbox-Error"
        return
    assert content_type == "application/problem+json", f"a problem of the type {content_type}"
    assert response.headers.get("cache-control") == ["no-store"]
    assert STATUSES[code[0]] == response.status_code, f"{code[0]} with status {response.status_code}"
    assert (response.status_code == 503) == ("retry-after" in response.headers)
    if case.method.upper() == "HEAD":
        return
    problem = json.loads(response.content)
    assert [problem["code"]] == code and problem["status"] == response.status_code
    assert problem["type"] == f"urn:wasmbox:problem:{problem['code']}"
    assert problem["code"] != "internal", problem["detail"]
