"""Holds manifests against the schemas of those who read them: Kubernetes, Knative Serving and Eventing, KEDA.

    validate.py --crds DIR... --settings FILE MANIFEST...

CRDs are read from their projects' released modules. An unknown field is an error, as it is for the API server of a custom resource; the
fields of the resource-aware fork of Knative are those that it documents. Each file `base-*` is what one `kubectl apply -k` makes.
"""

import argparse
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest that the chart supports, and the newest that is known here.
KUBERNETES = ["1.30", "1.37"]
# The oldest that has volumes of images which boxes can use.
IMAGE_VOLUMES = ["1.33", "1.37"]
FORK = {"concurrentResourceRequest", "queueDepthResourceUnits"}
LABEL = "wasmbox.dev/runtime"
# Of the two cores of a node of kind, what its own pods leave: they ask for 950m (kubeadm's 650m, CoreDNS 200m, kindnet 100m).
FREE_MILLICORES = 1050
# What Knative adds to a pod of a Service, if config-deployment does not say otherwise.
QUEUE_PROXY_MILLICORES = 25
# The claim of the functions.
FUNCTIONS = "wasmws-wasm-pvc"


def closed(schema):
    """The schema with nothing allowed that it does not name: a CRD's API server drops such fields or refuses them."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-int-or-string"):
            schema = {"type": ["integer", "string"]}
        return schema
    return [closed(item) for item in schema] if isinstance(schema, list) else schema


def crds(directories):
    """By apiVersion and kind, one for each directory: a directory is a release."""
    found = {}
    for directory in directories:
        for path in sorted(pathlib.Path(directory).rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
                    continue
                spec = document["spec"]
                for version in spec["versions"]:
                    schema = closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"].update(apiVersion={}, kind={}, metadata={"type": "object"})
                    key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                    found.setdefault(key, {})[directory] = schema
    return found


def quantity(text):
    """A number of cores or bytes."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return float(number) * units.get(unit, 1)


def pod_specs(document):
    kind = document["kind"]
    if kind == "Pod":
        yield document["spec"]
    elif "template" in document.get("spec", {}):
        yield document["spec"]["template"]["spec"]


class Manifests:
    def __init__(self, crds, settings):
        self.crds, self.settings, self.errors, self.count = crds, settings, [], 0

    def check(self, path):
        for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
            if document is None:
                continue
            self.count += 1
            name = f"{path}: {document['kind']} {document['metadata']['name']}"
            key = document["apiVersion"], document["kind"]
            if key in self.crds:
                self.custom(name, document, self.crds[key])
            else:
                self.builtin(name, document)
            for spec in pod_specs(document):
                self.pod(name, document, spec)
            if document["kind"] == "RuntimeClass" and list(document["scheduling"]["nodeSelector"]) != [LABEL]:
                self.errors.append(f"{name}: not the label that the installer sets, {LABEL}")

    def builtin(self, name, document):
        of_images = any("image" in volume for spec in pod_specs(document) for volume in spec.get("volumes", []))
        for version in IMAGE_VOLUMES if of_images else KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except Exception as error:
                self.errors.append(f"{name}: Kubernetes {version}: {error}")

    def custom(self, name, document, schemas):
        if document["kind"] == "Service":
            # Fields of the fork: all of them, or none.
            spec = document["spec"]["template"]["spec"]
            own = FORK & spec.keys()
            superpod = document["spec"]["template"]["metadata"]["annotations"].get("features.knative.dev/superpod")
            if own != (FORK if superpod == "Enabled" else set()):
                self.errors.append(f"{name}: superpod is {superpod}, and of the fork's fields there are {sorted(own)}")
            fork = {field: spec.pop(field) for field in own}
            if any(type(value) is not int for value in fork.values()):
                self.errors.append(f"{name}: the fork's fields are whole numbers")
            elif fork:
                self.box_decides(name, spec, fork)
        for release, schema in schemas.items():
            if document["kind"] == "Trigger":
                # Its schema keeps what it does not name; Eventing refuses one without a subscriber by a webhook.
                schema["properties"]["spec"].update(additionalProperties=False, required=["subscriber"])
            for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
                self.errors.append(f"{name}: {release}: {'/'.join(map(str, error.path))}: {error.message}")

    def box_decides(self, name, spec, fork):
        """queue-proxy lets in more than the box runs and lets wait."""
        [container] = [one for one in spec["containers"] if one["name"] == "wasmbox"]
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        runs = environment.get("CONCURRENT_RESOURCE_REQUEST", quantity(container["resources"]["limits"]["memory"]) / 2**20)
        most = float(runs) + float(environment["QUEUE_DEPTH_RESOURCE_UNITS"])
        if not most < fork["concurrentResourceRequest"] <= fork["queueDepthResourceUnits"]:
            self.errors.append(f"{name}: the box runs and queues {most:.0f} MiB, queue-proxy {fork}")

    def pod(self, name, document, spec):
        for container in spec.get("initContainers", []) + spec["containers"]:
            image = container["image"]
            if not image.startswith("wasmbox:") and not re.search(r"@sha256:[0-9a-f]{64}$", image):
                self.errors.append(f"{name}: {image} is not named by its digest")
            security = container.get("securityContext", {})
            if security.get("privileged") is not True:
                self.restricted(name, spec, container, {**spec.get("securityContext", {}), **security})
            if container["name"] == "label" and not any(LABEL in argument for argument in container["args"]):
                self.errors.append(f"{name}: the label is not {LABEL}")
            if container["name"] != "wasmbox":
                continue
            environment = {variable["name"]: variable.get("value", "") for variable in container["env"]}
            for unknown in environment.keys() - self.settings:
                self.errors.append(f"{name}: the box has no setting {unknown}")
            drain = int(environment["DRAIN_TIMEOUT"].removesuffix("s"))
            grace = spec.get("terminationGracePeriodSeconds") or spec["timeoutSeconds"]
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if sleep + drain >= grace:
                self.errors.append(f"{name}: killed after {grace} s, and still draining: {sleep} + {drain} s")

    def restricted(self, name, spec, container, security):
        """The Pod Security Standard "restricted", and a read-only root; the node's cgroups belong to root."""
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        if all(volume["name"] != "cgroup" for volume in spec.get("volumes", [])):
            wanted["runAsNonRoot"] = True
        for key, value in wanted.items():
            if security.get(key) != value:
                self.errors.append(f"{name}: container {container['name']}: {key} is {security.get(key)}, not {value}")


def bases(paths):
    """What holds for whole bases: errors."""
    documents = {path: [one for one in yaml.safe_load_all(pathlib.Path(path).read_text()) if one] for path in paths}
    overhead = [
        quantity(one["overhead"]["podFixed"]["cpu"]) for all in documents.values() for one in all if one["kind"] == "RuntimeClass"
    ]
    workloads = {}
    for path, all in documents.items():
        # `kubectl delete -k` of a workload leaves the functions.
        if not path.endswith("base-functions.yaml") and any(one["metadata"]["name"] == FUNCTIONS for one in all):
            yield f"{path}: deletes {FUNCTIONS}"
        cores = 0
        for one in all:
            for spec in pod_specs(one):
                pod = sum(quantity(container["resources"]["requests"]["cpu"]) for container in spec["containers"])
                pod += overhead[0] if spec.get("runtimeClassName") else 0
                pods = 1
                if one["kind"] == "Deployment":
                    scaled = [other["spec"]["minReplicas"] for other in all if other["kind"] == "HorizontalPodAutoscaler"]
                    surge = one["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
                    pods = (scaled or [one["spec"].get("replicas", 1)])[0] + surge
                elif one["kind"] == "Service":
                    pod += QUEUE_PROXY_MILLICORES / 1000
                cores += pods * pod
        if cores * 1000 > FREE_MILLICORES:
            yield f"{path}: asks for {cores * 1000:.0f}m, and a node of two cores has {FREE_MILLICORES}m"
        # A Service of Knative makes one of Kubernetes of the same name, and so on: kinds count without their groups.
        if "/base-knative" in path or "/base-kubernetes" in path:
            workloads[path] = {(one["kind"], one["metadata"]["name"]) for one in all}
    [plain] = [path for path in workloads if "/base-kubernetes" in path]
    [selector] = [one["spec"]["selector"] for one in documents[plain] if one["kind"] == "Service"]
    for path in workloads.keys() - {plain}:
        if workloads[path] & workloads[plain]:
            yield f"{path} and {plain} both have {sorted(workloads[path] & workloads[plain])}"
        for one in documents[path]:
            if any(True for _ in pod_specs(one)) and selector.items() <= one["spec"]["template"]["metadata"]["labels"].items():
                yield f"{path}: the Service of {plain} takes the pods of {one['metadata']['name']}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--crds", nargs="+", required=True)
    arguments.add_argument("--settings", required=True)
    arguments.add_argument("manifests", nargs="+")
    arguments = arguments.parse_args()
    # `[env: A=]` and `[env: A, B]` of `wasmbox serve --help`.
    settings = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bPORT\b", pathlib.Path(arguments.settings).read_text()))
    manifests = Manifests(crds(arguments.crds), settings)
    for path in arguments.manifests:
        manifests.check(path)
    manifests.errors += bases([path for path in arguments.manifests if "/base-" in path])
    for error in manifests.errors:
        print(error, file=sys.stderr)
    print(f"{manifests.count} objects, {len(manifests.errors)} errors")
    return 1 if manifests.errors or not manifests.count else 0


sys.exit(main())
