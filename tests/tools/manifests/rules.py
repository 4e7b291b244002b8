"""Our own rules: what no schema says. Each takes a cluster and gives its problems, one sentence each."""

import re

from cluster import OUTSIDE

RECOMMENDED = ("name", "part-of", "instance", "managed-by")
TIERS = {"shard": ("tao-shards", 50053), "leader": ("tao-leaders", 50052), "follower": (None, 50051)}
# libs/runtime/src/serve.rs: a server's drain_timeout; __main__ checks that it is still so.
DRAIN_SECONDS = 20
# Until telemetry is flushed and the process is gone.
MARGIN_SECONDS = 5
# The share of a pod's memory that caches and streams may be told to fill.
CACHE_SHARE = 0.6


def labels(cluster):
    for o in cluster.objects:
        # What kustomize generates is found by its references.
        wanted = () if o["kind"] in ("ConfigMap", "Secret") else RECOMMENDED
        for name in wanted:
            if f"app.kubernetes.io/{name}" not in o.labels:
                yield f"{o} has no label app.kubernetes.io/{name}"
    for w in cluster.workloads():
        for name in (*RECOMMENDED, "component"):
            if f"app.kubernetes.io/{name}" not in w.pod_labels:
                yield f"{w}: pods have no label app.kubernetes.io/{name}"
        for template in w["spec"].get("volumeClaimTemplates", []):
            if "app.kubernetes.io/version" in template["metadata"].get("labels", {}):
                yield f"{w}: volume claims can't change, and their label app.kubernetes.io/version would"
        if not w["spec"]["selector"]["matchLabels"].items() <= w.pod_labels.items():
            yield f"{w}: its selector does not match its pods"


def security(cluster):
    for n in cluster.of("Namespace"):
        if n.labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{n} does not enforce restricted pod security"
    for account in cluster.of("ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{account} has a token"
    for w in cluster.workloads():
        pod, context = w.pod, w.pod.get("securityContext", {})
        account = cluster.get("ServiceAccount", pod.get("serviceAccountName", "default"))
        if account is None:
            yield f"{w}: there is no ServiceAccount {pod.get('serviceAccountName', 'default')}"
        if pod.get("automountServiceAccountToken") is not False or pod.get("enableServiceLinks") is not False:
            yield f"{w}: pods get a token, or a variable for every Service"
        if any(pod.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{w}: pods share the node's namespaces"
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{w}: pods may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{w}: pods have no seccomp profile"
        allowed = {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim"}
        for volume in pod.get("volumes", []):
            if not allowed & volume.keys():
                yield f"{w}: the volume {volume['name']} is of a kind that restricted pods may not have"
        for c in w.containers:
            own = c.get("securityContext", {})
            if (own.get("allowPrivilegeEscalation"), own.get("readOnlyRootFilesystem")) != (False, True):
                yield f"{w}: {c['name']} can gain rights or write to its root"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{w}: {c['name']} keeps capabilities"


def containers(cluster):
    for w in cluster.workloads():
        for c in w.containers:
            tag = c["image"].rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{w}: the image {c['image']} has no tag that stays"
            for kind in ("requests", "limits"):
                missing = {"cpu", "memory"} - c.get("resources", {}).get(kind, {}).keys()
                if missing:
                    yield f"{w}: {c['name']} has no {kind} of {' and '.join(sorted(missing))}"
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = c.get(kind)
                if probe is None:
                    yield f"{w}: {c['name']} has no {kind}"
                elif "httpGet" in probe and probe["httpGet"]["port"] not in w.ports():
                    yield f"{w}: {kind} asks the port {probe['httpGet']['port']}, which {c['name']} does not have"
                elif "grpc" in probe or "tcpSocket" in probe:
                    yield f"{w}: {kind} asks a port that will speak TLS; ask the admin port"


def references(cluster):
    for w in cluster.workloads():
        named = []
        for c in w.containers:
            for entry in c.get("env", []):
                source = entry.get("valueFrom", {})
                for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                    if key in source:
                        named.append((kind, source[key]["name"], source[key]["key"]))
            for entry in c.get("envFrom", []):
                for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                    if key in entry:
                        named.append((kind, entry[key]["name"], None))
            volumes = {v["name"] for v in w.pod.get("volumes", [])}
            volumes |= {t["metadata"]["name"] for t in w["spec"].get("volumeClaimTemplates", [])}
            for mount in c.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{w}: {c['name']} mounts {mount['name']}, which is no volume of the pod"
        for volume in w.pod.get("volumes", []):
            if "configMap" in volume:
                named.append(("ConfigMap", volume["configMap"]["name"], None))
            if "secret" in volume:
                for item in volume["secret"].get("items", [{"key": None}]):
                    named.append(("Secret", volume["secret"]["secretName"], item["key"]))
        for kind, name, key in named:
            found = cluster.get(kind, name)
            keys = {*found.get("data", {}), *found.get("stringData", {})} if found else set()
            if found is None and kind == "Secret" and cluster.name in ("production", "secured"):
                found, keys = name in OUTSIDE or None, OUTSIDE.get(name, set())
            if found is None:
                yield f"{w}: there is no {kind} {name}"
            elif key is not None and key not in keys:
                yield f"{w}: the {kind} {name} has no key {key}"


def certificates(cluster):
    """Files of TLS are where the Secret's keys are mounted, and production has them."""
    for component, (_, number) in TIERS.items():
        w = cluster.tier(component)
        if w is None:
            continue
        container = w.pod["containers"][0]
        secrets = {v["name"]: v["secret"] for v in w.pod.get("volumes", []) if "secret" in v}
        there = set()
        for mount in container["volumeMounts"]:
            for item in secrets.get(mount["name"], {}).get("items", []):
                there.add(f"{mount['mountPath']}/{item['path']}")
        told = {e["name"]: e.get("value") for e in container.get("env", []) if re.search("_TLS_.*(CA|CERT|KEY)$", e["name"])}
        for name, file in told.items():
            if file not in there:
                yield f"{w}: {name} is {file}, and no Secret has it there"
        wanted = {"TAO_TLS_CA", "TAO_TLS_CERT", "TAO_TLS_KEY"}
        if component == "follower":
            wanted |= {"TAO_PUBLIC_TLS_CERT", "TAO_PUBLIC_TLS_KEY", "TAO_PUBLIC_TLS_CLIENT_CA"}
        if cluster.name in ("production", "secured") and wanted - told.keys():
            yield f"{w}: it is not told of {', '.join(sorted(wanted - told.keys()))}"
        protocol = "https" if told else "kubernetes.io/h2c"
        for s in cluster.of("Service"):
            for port in s["spec"]["ports"]:
                if port["port"] == number and port.get("appProtocol") != protocol:
                    yield f"{s}: its protocol is {port.get('appProtocol')}, and its pods speak {protocol}"
    if cluster.name == "production" and cluster.config(cluster.tier("follower"))["server"].get("reflection") is not False:
        yield "tao.toml: reflection is not switched off"


def services(cluster):
    for s in cluster.of("Service"):
        behind = cluster.selected({"matchLabels": s["spec"].get("selector", {})})
        if len(behind) != 1:
            yield f"{s} selects the pods of {len(behind)} workloads instead of one"
        for w in behind:
            for port in s["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in w.ports():
                    yield f"{s}: {w} has no port {port.get('targetPort', port['port'])}"
    for w in cluster.of("StatefulSet"):
        s = cluster.get("Service", w["spec"]["serviceName"])
        if s is None or s["spec"].get("clusterIP") != "None" or w not in cluster.selected({"matchLabels": s["spec"]["selector"]}):
            yield f"{w}: {w['spec']['serviceName']} is no headless Service of its pods"


def disruptions(cluster):
    covered = []
    for p in cluster.of("PodDisruptionBudget"):
        selected = cluster.selected(p["spec"]["selector"])
        covered += [w.name for w in selected]
        if len(selected) != 1:
            yield f"{p} selects the pods of {len(selected)} workloads instead of one"
        if p["spec"].get("maxUnavailable") != 1:
            yield f"{p} allows something else than one pod at a time"
    for component in TIERS:
        tier = cluster.tier(component)
        if tier is None:
            yield f"there is no single workload of the tier {component}"
        elif covered.count(tier.name) != 1:
            yield f"{tier} has {covered.count(tier.name)} PodDisruptionBudgets instead of one"


def policies(cluster):
    shut = {"Ingress": set(), "Egress": set()}
    for p in cluster.of("NetworkPolicy"):
        selected = cluster.selected(p["spec"]["podSelector"])
        if not selected:
            yield f"{p} selects no pods"
        for direction in p["spec"]["policyTypes"]:
            shut[direction] |= {w.name for w in selected}
        for rule in p["spec"].get("ingress", []):
            if not rule.get("from"):
                yield f"{p} lets everybody in"
            yield from peers(cluster, p, rule.get("from", []), selected, rule.get("ports", []))
        for rule in p["spec"].get("egress", []):
            for peer in rule.get("to", []):
                yield from peers(cluster, p, [peer], cluster.selected(peer.get("podSelector", {})), rule.get("ports", []))
            if not rule.get("ports"):
                yield f"{p} lets its pods out to any port"
    for direction, names in shut.items():
        for w in cluster.workloads():
            if w.name not in names:
                yield f"{w}: no NetworkPolicy limits its {direction}"


def peers(cluster, policy, peers, servers, ports):
    for peer in peers:
        selector = peer.get("podSelector", {})
        if "podSelector" in peer and "tao-client" not in selector.get("matchLabels", {}) and not cluster.selected(selector):
            yield f"{policy} names pods that don't exist: {selector}"
    for port in ports:
        for w in servers:
            if port["port"] not in w.ports():
                yield f"{policy}: {w} has no port {port['port']}"


def flows(cluster):
    """Policies let exactly this in and out: the ends of every connection that tiers make, each told by the policies of its own side."""
    ingress = {("clients", "follower", "50051/TCP"), ("namespaces of clients", "follower", "50051/TCP")}
    between = {("follower", "leader", "50052/TCP"), ("leader", "shard", "50053/TCP"), ("shard", "shard", "50053/TCP")}
    egress = {(tier, ANYWHERE, f"53/{protocol}") for tier in TIERS for protocol in ("UDP", "TCP")}
    for client, server, port in (("shard", "postgres", "5432/TCP"), ("follower", "redis", "6379/TCP")):
        if any(party(w) == server for w in cluster.workloads()):
            between.add((client, server, port))
        else:
            egress.add((client, ANYWHERE, port))
    if cluster.name == "monitored":
        ingress |= {("monitoring", tier, "9464/TCP") for tier in TIERS}
    for direction, wanted in (("ingress", ingress | between), ("egress", egress | between)):
        allowed = set(allows(cluster, direction))
        for source, target, port in sorted(wanted - allowed):
            yield f"no NetworkPolicy's {direction} lets {source} reach {target} at {port}"
        for source, target, port in sorted(allowed - wanted):
            yield f"a NetworkPolicy's {direction} lets {source} reach {target} at {port}"


ANYWHERE = "any address"


def allows(cluster, direction):
    """What all policies together let through: source, target and port."""
    for p in cluster.of("NetworkPolicy"):
        for rule in p["spec"].get(direction, []):
            others = rule.get("from" if direction == "ingress" else "to")
            others = [name for peer in others for name in parties(cluster, peer)] if others else [ANYWHERE]
            for w in cluster.selected(p["spec"]["podSelector"]):
                for other in others:
                    source, target = (other, party(w)) if direction == "ingress" else (party(w), other)
                    for port in rule.get("ports", [{}]):
                        # Ports by name are those of the pods that the policy is of.
                        number = w.ports().get(port.get("port"), port.get("port")) if direction == "ingress" else port.get("port")
                        yield source, target, f"{number}/{port.get('protocol', 'TCP')}"


def parties(cluster, peer):
    """Who a policy's peer is; whatever is not known by a name stands for itself."""
    outside = {"tao-client": "true"}
    if peer.keys() == {"podSelector"} and peer["podSelector"].keys() == {"matchLabels"}:
        return ["clients"] if peer["podSelector"]["matchLabels"] == outside else map(party, cluster.selected(peer["podSelector"]))
    if peer == {"namespaceSelector": {"matchLabels": outside}}:
        return ["namespaces of clients"]
    if peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}:
        return ["monitoring"]
    return [str(peer)]


def party(workload):
    """A tier by its component, anything else by its name."""
    name = workload.pod_labels.get("app.kubernetes.io/name")
    return workload.pod_labels.get("app.kubernetes.io/component") if name == "tao" else name


def topology(cluster):
    """The names in tao.toml are those of the pods, and each tier listens where its Service leads."""
    for component, (service, number) in TIERS.items():
        w = cluster.tier(component)
        if w is None:
            yield f"there is no single workload of the tier {component}"
            continue
        config = cluster.config(w)
        listen = config.get(component, {}).get("listen", "")
        if not listen.endswith(f":{number}") or w.ports().get("grpc") != number:
            yield f"{w}: it listens on {listen!r}, and its port grpc is {w.ports().get('grpc')}"
        if not config.get("server", {}).get("admin_listen", "").endswith(f":{w.ports().get('admin')}"):
            yield f"{w}: its port admin is {w.ports().get('admin')}, and tao.toml says otherwise"
        args = w.pod["containers"][0].get("args")
        if args != [component]:
            yield f"{w}: its arguments are {args}"
        front = {"shard": ("leader", "shards"), "leader": ("follower", "leaders")}.get(component)
        if front:
            named = config.get(front[0], {}).get(front[1])
            pods = [f"{w.name}-{n}.{service}:{number}" for n in range(w["spec"].get("replicas", 1))]
            if named != pods:
                yield f"tao.toml: {front[0]}.{front[1]} is {named}, and the pods are {pods}"


def memory(cluster):
    for component in TIERS:
        w = cluster.tier(component)
        if w is None:
            continue
        section = cluster.config(w).get(component, {})
        told = sum(size(section.get(key, "0MiB")) for key in ("cache_size", "stream_size"))
        limit = size(w.pod["containers"][0]["resources"]["limits"]["memory"])
        if told > CACHE_SHARE * limit:
            yield f"{w}: caches and streams of {told >> 20} MiB are more than {CACHE_SHARE:.0%} of {limit >> 20} MiB"


def size(text):
    number, unit = re.fullmatch(r"(\d+)([KMG]i)B?", text).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


def ending(cluster):
    for component in TIERS:
        w = cluster.tier(component)
        if w is None:
            continue
        before = sum(c.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for c in w.containers)
        needed = before + DRAIN_SECONDS + MARGIN_SECONDS
        if w.pod.get("terminationGracePeriodSeconds", 0) < needed:
            yield f"{w}: its way out takes up to {needed} s, and terminationGracePeriodSeconds is less"
        if component == "follower" and not before:
            yield f"{w}: it must go on serving for a while after it was taken out of its Services"


def scaling(cluster):
    scaled = set()
    for h in cluster.of("HorizontalPodAutoscaler"):
        target = h["spec"]["scaleTargetRef"]
        w = cluster.get(target["kind"], target["name"])
        if w is None:
            yield f"{h}: there is no {target['kind']} {target['name']}"
        elif "replicas" in w["spec"]:
            yield f"{w} has replicas, and so has {h}"
        else:
            scaled.add(w.name)
    for w in cluster.workloads():
        if "replicas" not in w["spec"] and w.name not in scaled:
            yield f"{w} says nowhere how many pods it has"


def spread(cluster):
    for component in TIERS:
        w = cluster.tier(component)
        if w is None:
            continue
        constraints = w.pod.get("topologySpreadConstraints", [])
        keys = [c["topologyKey"] for c in constraints]
        if "kubernetes.io/hostname" not in keys or len(keys) != len(set(keys)):
            yield f"{w}: its pods are spread over {keys}"
        if cluster.name == "production" and "topology.kubernetes.io/zone" not in keys:
            yield f"{w}: its pods are not spread over zones"
        if any(w not in cluster.selected(c["labelSelector"]) for c in constraints):
            yield f"{w}: a spread constraint counts other pods"


RULES = [
    labels, security, containers, references, certificates, services, disruptions, policies, flows, topology, memory,
    ending, scaling, spread,
]
