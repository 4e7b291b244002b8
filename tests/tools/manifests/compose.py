"""deploy/compose.yaml says the same as the dev overlay: images, commands, environment and configuration."""

import base64
import pathlib

# Compose's service → the workload that it is a pod of.
SERVICES = {
    "postgres": "postgres",
    "redis": "redis",
    "shard": "tao-shard",
    "leader": "tao-leader",
    "follower-0": "tao-follower",
    "follower-1": "tao-follower",
}
# Options that pods have in another form.
HARDENED = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


def environment(cluster, container):
    """A container's environment as it is set, with what Secrets hold."""
    found = {}
    for entry in container.get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        else:
            reference = entry["valueFrom"]["secretKeyRef"]
            secret = cluster.get("Secret", reference["name"])
            found[entry["name"]] = base64.b64decode(secret["data"][reference["key"]]).decode()
    return found


def seconds(text):
    return int(text.removesuffix("s"))


def problems(compose, folder, cluster):
    """What compose.yaml, which lies in the folder, has that the overlay has not, and the other way round."""
    services = compose["services"]
    if services.keys() != SERVICES.keys():
        yield f"compose has the services {sorted(services)} instead of {sorted(SERVICES)}"
        return
    for name, workload in SERVICES.items():
        service, w = services[name], next((w for w in cluster.workloads() if w.name == workload), None)
        if w is None:
            yield f"compose {name}: there is no workload {workload}"
            continue
        container = w.pod["containers"][0]
        pairs = [
            ("image", service["image"], container["image"]),
            ("command", service.get("command"), container.get("args")),
            ("environment", service.get("environment", {}), environment(cluster, container)),
            ("how many", list(SERVICES.values()).count(workload), w["spec"].get("replicas", 1)),
        ]
        if name in ("postgres", "redis"):
            pairs.append(("health check", service["healthcheck"]["test"], ["CMD", *container["livenessProbe"]["exec"]["command"]]))
        else:
            wanted = w.pod["terminationGracePeriodSeconds"] - sum(
                c.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for c in w.containers)
            pairs.append(("stop_grace_period", seconds(service["stop_grace_period"]), wanted))
            pairs += [(key, service.get(key), value) for key, value in HARDENED.items()]
            pairs.append(("health check", service["healthcheck"]["test"][1:], ["/usr/bin/tao", "health"]))
            yield from configuration(name, service, folder, cluster, w)
        for what, ours, theirs in pairs:
            if ours != theirs:
                yield f"compose {name}: {what} is {ours!r}, and {w} has {theirs!r}"
        if name in ("shard", "leader"):
            pod = f"{w.name}-0.{w['spec']['serviceName']}"
            aliases = service.get("networks", {}).get("default", {}).get("aliases", [])
            if aliases != [pod]:
                yield f"compose {name}: its aliases are {aliases}, and its pod's name is {pod}"


def configuration(name, service, folder, cluster, workload):
    """The mounted files are those of the ConfigMap, at the same place."""
    place = workload.pod["containers"][0]["volumeMounts"][0]["mountPath"]
    reference = workload.pod["volumes"][0]["configMap"]["name"]
    files = cluster.get("ConfigMap", reference)["data"]
    for volume in service.get("volumes", []):
        source, target, mode = volume.split(":")
        if (target, mode) != (place, "ro"):
            continue
        source = pathlib.Path(folder, source)
        mounted = {f.name: f.read_text() for f in source.iterdir()} if source.is_dir() else {}
        if mounted != files:
            yield f"compose {name}: {source} holds other files than the ConfigMap {reference}"
        return
    yield f"compose {name}: nothing is mounted at {place}"
