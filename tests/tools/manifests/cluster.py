"""What an overlay makes, with the questions that the rules ask of it."""

import copy
import subprocess
import tomllib

import yaml

# Made by people, before the production overlay is applied (docs/kubernetes.md): Secret → its keys.
OUTSIDE = {
    "tao-postgres": {"url", "password"},
    "tao-redis": {"url"},
    "tao-tls": {"ca.crt", "tier.crt", "tier.key", "public.crt", "public.key"},
}

WORKLOADS = ("Deployment", "StatefulSet")


class Manifest(dict):
    """One object, which can say what it is called."""

    def __str__(self):
        return f"{self['kind']} {self['metadata']['name']}"

    @property
    def name(self):
        return self["metadata"]["name"]

    @property
    def labels(self):
        return self["metadata"].get("labels", {})

    @property
    def pod(self):
        return self["spec"]["template"]["spec"]

    @property
    def pod_labels(self):
        return self["spec"]["template"]["metadata"]["labels"]

    @property
    def containers(self):
        return self.pod.get("initContainers", []) + self.pod["containers"]

    def ports(self):
        """Name and number of every port, to its number."""
        found = {}
        for container in self.containers:
            for port in container.get("ports", []):
                found[port["name"]] = found[port["containerPort"]] = port["containerPort"]
        return found


class Cluster:
    """All objects of an overlay."""

    def __init__(self, name, objects):
        self.name = name
        self.objects = [Manifest(o) for o in objects]

    def copy(self):
        return Cluster(self.name, copy.deepcopy(self.objects))

    def of(self, *kinds):
        return [o for o in self.objects if o["kind"] in kinds]

    def get(self, kind, name):
        """The object, or None."""
        return next((o for o in self.of(kind) if o.name == name), None)

    def workloads(self):
        return self.of(*WORKLOADS)

    def selected(self, selector):
        """The workloads whose pods have these labels."""
        wanted = selector.get("matchLabels", {}).items()
        return [w for w in self.workloads() if wanted and wanted <= w.pod_labels.items()]

    def tier(self, component):
        """The workload of a tier: shard, leader or follower."""
        tiers = self.selected({"matchLabels": {"app.kubernetes.io/name": "tao", "app.kubernetes.io/component": component}})
        return tiers[0] if len(tiers) == 1 else None

    def config(self, workload):
        """tao.toml as the pods of a workload read it."""
        maps = [v["configMap"]["name"] for v in workload.pod.get("volumes", []) if "configMap" in v]
        found = self.get("ConfigMap", maps[0]) if maps else None
        return tomllib.loads(found["data"]["tao.toml"]) if found else {}


def build(kustomize, folder):
    """Runs kustomize; its objects, in its order."""
    done = subprocess.run([*kustomize, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"manifests: {' '.join(kustomize)} {folder} failed:\n{done.stderr}")
    return [o for o in yaml.safe_load_all(done.stdout) if o]
