"""Checks the manifests and compose.yaml without a cluster; needs kustomize or kubectl, and what install.sh installs.

Ends with one line that sums up; the exit code is 1 when a check failed.
"""

import json
import pathlib
import re
import shutil
import sys
import tempfile
import tomllib

import kubernetes_validate
import yaml
from compose_spec import PyCompose

import breaks
import compose
import rules
from cluster import Cluster, OUTSIDE, build

ROOT = pathlib.Path(__file__).resolve().parents[3]
OVERLAYS = ("dev", "test", "production")
# The oldest that the manifests are for, the one that the tests run, and the newest that there are schemas of.
KUBERNETES = ("1.31", "1.35", "1.37")
# Kinds that come from custom resource definitions, with the API that they must name: Kubernetes has no schema of them.
CUSTOM = {"PodMonitor": "monitoring.coreos.com/v1"}

passed = failed = 0


def check(what, problems):
    """Counts a check, and prints what it found."""
    global passed, failed
    problems = list(problems)
    if not problems:
        passed += 1
        return
    failed += 1
    for problem in problems:
        print(f"manifests: {what}: {problem}", file=sys.stderr)


def kustomize_command():
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    sys.exit("manifests: there is neither kustomize nor kubectl: run tests/tools/install.sh tests")


def schema_problems(objects, version):
    for o in objects:
        name = f"{o['kind']} {o['metadata']['name']}"
        if o["kind"] in CUSTOM:
            if o["apiVersion"] != CUSTOM[o["kind"]]:
                yield f"{name}: its API is {o['apiVersion']} instead of {CUSTOM[o['kind']]}"
            continue
        try:
            kubernetes_validate.validate(o, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {'.'.join(str(p) for p in error.path)}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"{name}: {error.message}"


def with_component(command, component):
    """The test overlay with a component that it does not have."""
    # Beside the overlays, since kustomize wants relative paths.
    with tempfile.TemporaryDirectory(dir=ROOT / "k8s" / "overlays", prefix=".with-") as folder:
        text = f"resources: [../test]\ncomponents: [../../components/{component}]\nnamespace: tao-test\n"
        text += "labels: [{pairs: {app.kubernetes.io/instance: test, app.kubernetes.io/managed-by: kustomize}}]\n"
        pathlib.Path(folder, "kustomization.yaml").write_text(text)
        return build(command, folder)


def agreements(production_cluster):
    """What is written in two places and must be the same."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    base = yaml.safe_load((ROOT / "k8s/base/kustomization.yaml").read_text())
    if base["labels"][0]["pairs"]["app.kubernetes.io/version"] != version:
        yield f"k8s/base/kustomization.yaml: app.kubernetes.io/version is not {version}, as in Cargo.toml"
    production = yaml.safe_load((ROOT / "k8s/overlays/production/kustomization.yaml").read_text())
    if production["images"][0]["newTag"] != version:
        yield f"k8s/overlays/production/kustomization.yaml: newTag is not {version}, as in Cargo.toml"
    if (ROOT / "k8s/base/config/schema.toml").read_bytes() != (ROOT / "libs/model/src/social.toml").read_bytes():
        yield "k8s/base/config/schema.toml is not the built-in schema, libs/model/src/social.toml"
    serve = (ROOT / "libs/runtime/src/serve.rs").read_text()
    if f"drain_timeout: Duration::from_secs({rules.DRAIN_SECONDS})" not in serve:
        yield f"libs/runtime/src/serve.rs: the drain does not take {rules.DRAIN_SECONDS} s: tell rules.py and the manifests"
    exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE).group(1).split()
    wanted = {str(port) for _, port in rules.TIERS.values()} | {"9464"}
    if set(exposed) != wanted:
        yield f"deploy/Dockerfile exposes {exposed}"
    guide = (ROOT / "docs/kubernetes.md").read_text()
    for secret, keys in OUTSIDE.items():
        for word in (secret, *(f"={key}=" if "." in key else f"--from-literal={key}=" for key in keys)):
            if word not in guide:
                yield f"docs/kubernetes.md does not say how to make the Secret {secret} ({word})"
    (scale,) = production_cluster.of("HorizontalPodAutoscaler")
    for component, name in (("shard", "storage shard"), ("leader", "leader"), ("follower", "follower")):
        w = production_cluster.tier(component)
        pods = w["spec"].get("replicas") or f"{scale['spec']['minReplicas']} to {scale['spec']['maxReplicas']}"
        resources = w.pod["containers"][0]["resources"]
        sizes = [f"{resources[k]['cpu']} CPU, {resources[k]['memory'].replace('Gi', ' GiB')}" for k in ("requests", "limits")]
        row = f"| {name} | {pods} | {sizes[0]} | {sizes[1]} |"
        if row not in guide:
            yield f"docs/kubernetes.md does not say {row}"


def compose_problems(text, dev):
    """Whether it is a compose file at all, and then whether it says what the dev overlay says."""
    parsed = yaml.safe_load(text)
    try:
        PyCompose.from_json(json.dumps({key: value for key, value in parsed.items() if not key.startswith("x-")}))
    except ValueError as error:
        return [str(error)]
    return compose.problems(parsed, ROOT / "deploy", dev)


def main():
    command = kustomize_command()
    clusters = {name: Cluster(name, build(command, ROOT / "k8s" / "overlays" / name)) for name in OVERLAYS}
    clusters["monitored"] = Cluster("monitored", with_component(command, "monitoring"))
    clusters["secured"] = Cluster("secured", with_component(command, "tls"))
    for name, cluster in clusters.items():
        for version in KUBERNETES:
            check(f"{name}, Kubernetes {version}", schema_problems(cluster.objects, version))
        for rule in rules.RULES:
            check(f"{name}, {rule.__name__}", rule(cluster))

    by_name = {rule.__name__: rule for rule in rules.RULES}
    for number, (rule, damage) in enumerate(breaks.BREAKS):
        broken = clusters["test"].copy()
        damage(broken)
        unnoticed = [] if list(by_name[rule](broken)) else ["the rule does not notice what was broken"]
        check(f"breaks.py, {rule}, number {number}", unnoticed)
    untested = by_name.keys() - {rule for rule, _ in breaks.BREAKS}
    check("breaks.py", [f"nothing breaks the rule {rule}" for rule in sorted(untested)])

    text = (ROOT / "deploy/compose.yaml").read_text()
    check("compose", compose_problems(text, clusters["dev"]))
    for before, after in breaks.COMPOSE:
        unnoticed = [] if before in text and list(compose_problems(text.replace(before, after), clusters["dev"])) else [after]
        check("breaks.py, compose, nobody notices", unnoticed)

    check("the repository", agreements(clusters["production"]))
    print(f"manifests: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
