"""Holds alerts, their unit tests, the runbook and the Grafana dashboard together.

    monitoring.py QUERIES

Writes the dashboard's queries to the file QUERIES as recording rules, for `promtool check rules`: that they are PromQL is not looked at here.
"""

import importlib.util
import itertools
import json
import pathlib
import re
import sys

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

MONITORING = pathlib.Path("deployment/chart/monitoring")
RUNBOOK = "docs/runbook.md"
ANNOTATIONS = {"summary", "description", "runbook_url"}
SEVERITIES = {"critical", "warning", "info"}
# What Grafana puts in for its variables; any value would do for the parser.
GRAFANA = {"__rate_interval": "5m", "namespace": ".*", "pod": ".*", "function": ".*"}
WIDTH = 24


def alerts():
    """The rules, by name."""
    groups = [group for file in ("rules.yaml", "absent.yaml") for group in yaml.safe_load((MONITORING / file).read_text())["groups"]]
    rules = [rule for group in groups for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in rules}
    assert rules and len(found) == len(rules), "no alert, or one is there twice"
    return found


def complete(found):
    for name, rule in found.items():
        if rule["labels"].keys() != {"severity"} or rule["labels"]["severity"] not in SEVERITIES:
            yield f"{name}: labels {rule['labels']}, expected a severity of {sorted(SEVERITIES)}"
        if rule["annotations"].keys() != ANNOTATIONS:
            yield f"{name}: annotations {sorted(rule['annotations'])}, expected {sorted(ANNOTATIONS)}"
        elif rule["annotations"]["runbook_url"] != f"{RUNBOOK}#{name.lower()}":
            yield f"{name}: the runbook is {rule['annotations']['runbook_url']}, expected {RUNBOOK}#{name.lower()}"


def sections(found):
    """Each alert has a section of the runbook, in which it says its severity, and each section its alert."""
    text = pathlib.Path(RUNBOOK).read_text()
    titles = re.findall(r"^## (WasmBox\w+)$", text, re.M)
    for name in sorted(set(found) ^ set(titles)):
        yield f"{RUNBOOK}: {name} is " + ("an alert without a section" if name in found else "a section without an alert")
    if len(titles) != len(set(titles)):
        yield f"{RUNBOOK}: a section is there twice"
    for name, body in re.findall(r"^## (WasmBox\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        if name in found and f"({found[name]['labels']['severity']})" not in body:
            yield f"{RUNBOOK}: {name} does not say that it is ({found[name]['labels']['severity']})"
        for part in "**See more.**", "**Likely.**", "**Do.**":
            if part not in body:
                yield f"{RUNBOOK}: {name} has no paragraph {part}"


def unit_tests(found):
    """Each alert has a time at which it fires, and one at which it does not."""
    fires, rests = set(), set()
    for test in yaml.safe_load(pathlib.Path("tests/deployment/rules-test.yaml").read_text())["tests"]:
        for query in test.get("promql_expr_test", []):
            for name in re.findall(r'alertname="(\w+)"', query["expr"]):
                (fires if query["exp_samples"] else rests).add(name)
    for name in sorted(found.keys() - (fires & rests)):
        yield f"tests/deployment/rules-test.yaml: {name} is not tested both ways"


def lost(given, understood, path):
    """Paths of what `given` has, and `understood`, which Grafana's own types have made of it, has not."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            if key not in understood:
                yield f"{path}.{key}"
            else:
                yield from lost(value, understood[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for index, pair in enumerate(zip(given, understood)):
            yield from lost(*pair, f"{path}[{index}]")
    elif given != understood:
        yield path


def dashboard(queries):
    document = json.loads((MONITORING / "dashboard.json").read_text())
    register_default_plugins()
    for path in lost(document, json.loads(JSONEncoder().encode(Dashboard.from_json(document))), "dashboard.json: "):
        yield f"{path} is nothing that Grafana knows"
    panels = document["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "dashboard.json: an id is there twice"
    for one, other in itertools.combinations([{**panel["gridPos"], "title": panel["title"]} for panel in panels], 2):
        if all(one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in ("xw", "yh")):
            yield f"dashboard.json: the panels {one['title']} and {other['title']} overlap"
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    # All that asks a data source: it is the one that is chosen, and what it is asked is PromQL.
    asking = [(panel["title"], target) for panel in panels for target in panel.get("targets", [])]
    asking += [(annotation["name"], annotation) for annotation in document["annotations"]["list"]]
    rules = []
    for title, target in asking:
        expression = target["expr"]
        if used := set(re.findall(r"\$\{?(\w+)", expression)) - GRAFANA.keys():
            yield f"dashboard.json: {title}: unknown variables {sorted(used)}"
        for name, value in GRAFANA.items():
            expression = expression.replace(f"${name}", value)
        rules.append({"record": f"dashboard:query:{len(rules)}", "expr": expression})
    if missing := GRAFANA.keys() - {"__rate_interval"} - variables.keys():
        yield f"dashboard.json: no variables {sorted(missing)}"
    named = asking + [(panel["title"], panel) for panel in panels if panel["type"] != "row"]
    named += [(name, variable) for name, variable in variables.items() if variable["type"] == "query"]
    for title, item in named:
        if item.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
            yield f"dashboard.json: {title} does not ask the data source that is chosen"
    for panel in panels:
        if panel["type"] != "row" and not importlib.util.find_spec(f"grafana_foundation_sdk.models.{panel['type']}"):
            yield f"dashboard.json: {panel['title']}: there are no panels {panel['type']}"
        if panel["type"] != "row" and not (panel.get("targets") and panel.get("description")):
            yield f"dashboard.json: {panel['title']} has no query or no description"
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > WIDTH:
            yield f"dashboard.json: {panel['title']} is too wide"
    pathlib.Path(queries).write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, sort_keys=False))


def main():
    found = alerts()
    errors = [*complete(found), *sections(found), *unit_tests(found), *dashboard(sys.argv[1])]
    for error in errors:
        print(error, file=sys.stderr)
    print(f"{len(found)} alerts, {len(errors)} errors")
    return 1 if errors else 0


sys.exit(main())
