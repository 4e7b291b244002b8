"""Ways to break the test overlay, each of which a rule must notice: a rule that notices nothing is none."""


def _container(cluster, component="shard"):
    return cluster.tier(component).pod["containers"][0]


def _drop(mapping, key):
    del mapping[key]


def _edit(cluster, before, after):
    for o in cluster.of("ConfigMap"):
        o["data"]["tao.toml"] = o["data"]["tao.toml"].replace(before, after)


def _without(cluster, kind, name):
    cluster.objects = [o for o in cluster.objects if (o["kind"], o.name) != (kind, name)]


def _rule(cluster, policy, direction):
    return cluster.get("NetworkPolicy", policy)["spec"][direction][0]


def _peer(cluster, policy, direction):
    rule = _rule(cluster, policy, direction)
    return rule["from" if direction == "ingress" else "to"][0]["podSelector"]["matchLabels"]


# Rule → what is done to a copy of the cluster. (`_drop(m, k)` and `m.update` are statements that are expressions.)
BREAKS = [
    ("labels", lambda c: _drop(c.tier("shard").labels, "app.kubernetes.io/instance")),
    ("labels", lambda c: _drop(c.tier("shard").pod_labels, "app.kubernetes.io/name")),
    ("labels", lambda c: c.get("StatefulSet", "postgres")["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"].update(
        {"app.kubernetes.io/version": "1"})),
    ("security", lambda c: _drop(c.of("Namespace")[0].labels, "pod-security.kubernetes.io/enforce")),
    ("security", lambda c: _drop(c.get("ServiceAccount", "redis"), "automountServiceAccountToken")),
    ("security", lambda c: c.tier("leader").pod.update(serviceAccountName="other")),
    ("security", lambda c: c.tier("leader").pod.update(hostNetwork=True)),
    ("security", lambda c: _drop(c.tier("leader").pod, "enableServiceLinks")),
    ("security", lambda c: c.tier("follower").pod["securityContext"].update(runAsNonRoot=False)),
    ("security", lambda c: _drop(c.tier("follower").pod["securityContext"], "seccompProfile")),
    ("security", lambda c: c.tier("follower").pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("security", lambda c: _container(c)["securityContext"].update(readOnlyRootFilesystem=False)),
    ("security", lambda c: _container(c)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]})),
    ("containers", lambda c: _container(c).update(image="tao:latest")),
    ("containers", lambda c: _container(c).update(image="registry:5000/tao")),
    ("containers", lambda c: _drop(_container(c)["resources"]["limits"], "memory")),
    ("containers", lambda c: _drop(_container(c), "startupProbe")),
    ("containers", lambda c: _container(c)["readinessProbe"]["httpGet"].update(port="http")),
    ("containers", lambda c: _container(c).update(livenessProbe={"grpc": {"port": 50053}})),
    ("references", lambda c: _without(c, "ConfigMap", c.of("ConfigMap")[0].name)),
    ("references", lambda c: _container(c)["env"][1].update(
        name="X", valueFrom={"secretKeyRef": {"name": c.of("Secret")[0].name, "key": "url"}})),
    ("references", lambda c: _without(c, "Secret", c.of("Secret")[0].name)),
    ("references", lambda c: _container(c)["volumeMounts"][0].update(name="other")),
    ("certificates", lambda c: _container(c)["env"].append({"name": "TAO_TLS_CERT", "value": "/etc/tao-tls/tier.crt"})),
    ("certificates", lambda c: c.get("Service", "tao-shards")["spec"]["ports"][0].update(appProtocol="https")),
    ("services", lambda c: c.get("Service", "tao")["spec"]["selector"].update({"app.kubernetes.io/component": "x"})),
    ("services", lambda c: c.get("Service", "tao")["spec"]["ports"][0].update(targetPort="http")),
    ("services", lambda c: _drop(c.get("Service", "tao-shards")["spec"], "clusterIP")),
    ("services", lambda c: c.tier("shard")["spec"].update(serviceName="tao-leaders")),
    ("disruptions", lambda c: _without(c, "PodDisruptionBudget", "tao-leader")),
    ("disruptions", lambda c: c.get("PodDisruptionBudget", "tao-leader")["spec"].update(maxUnavailable=2)),
    ("disruptions", lambda c: _drop(c.get("PodDisruptionBudget", "tao-leader")["spec"]["selector"]["matchLabels"],
                                    "app.kubernetes.io/component")),
    ("policies", lambda c: _without(c, "NetworkPolicy", "postgres")),
    ("policies", lambda c: c.get("NetworkPolicy", "tao-leader")["spec"]["podSelector"]["matchLabels"].update(
        {"app.kubernetes.io/component": "x"})),
    ("policies", lambda c: _drop(c.get("NetworkPolicy", "tao-leader")["spec"]["ingress"][0], "from")),
    ("policies", lambda c: c.get("NetworkPolicy", "tao-leader")["spec"]["egress"][0]["ports"][0].update(port=1)),
    ("policies", lambda c: c.get("NetworkPolicy", "tao-leader")["spec"]["ingress"][0]["ports"][0].update(port="http")),
    ("policies", lambda c: c.get("NetworkPolicy", "tao-leader")["spec"]["ingress"][0]["from"][0]["podSelector"][
        "matchLabels"].update({"app.kubernetes.io/component": "x"})),
    ("policies", lambda c: _drop(c.get("NetworkPolicy", "tao-leader")["spec"]["egress"][0], "ports")),
    ("flows", lambda c: _peer(c, "tao-leader", "ingress").update({"app.kubernetes.io/component": "shard"})),
    ("flows", lambda c: _peer(c, "tao-leader", "egress").update({"app.kubernetes.io/component": "follower"})),
    ("flows", lambda c: _drop(_peer(c, "tao-leader", "egress"), "app.kubernetes.io/component")),
    ("flows", lambda c: _drop(_peer(c, "tao-shard", "egress"), "app.kubernetes.io/component")),
    ("flows", lambda c: _peer(c, "postgres", "ingress").update({"app.kubernetes.io/component": "leader"})),
    ("flows", lambda c: _peer(c, "tao-follower", "ingress").update({"tao-client": "false"})),
    ("flows", lambda c: _rule(c, "tao-follower", "ingress")["from"].pop()),
    ("flows", lambda c: _rule(c, "tao-follower", "ingress")["ports"][0].update(port="admin")),
    ("flows", lambda c: _rule(c, "tao", "egress")["ports"].append({"port": 443, "protocol": "TCP"})),
    ("flows", lambda c: _rule(c, "tao", "egress")["ports"].pop()),
    ("flows", lambda c: _drop(_rule(c, "tao-shard-postgres", "egress"), "to")),
    ("flows", lambda c: _without(c, "NetworkPolicy", "tao-follower-redis")),
    ("topology", lambda c: c.tier("shard")["spec"].update(replicas=3)),
    ("topology", lambda c: c.tier("leader")["spec"].update(replicas=1)),
    ("topology", lambda c: _edit(c, "0.0.0.0:50053", "0.0.0.0:50054")),
    ("topology", lambda c: _edit(c, "9464", "9465")),
    ("topology", lambda c: _edit(c, "tao-leader-1.tao-leaders", "tao-leader-1")),
    ("topology", lambda c: _container(c, "leader").update(args=["follower"])),
    ("memory", lambda c: _edit(c, '"64MiB"', '"512MiB"')),
    ("ending", lambda c: c.tier("leader").pod.update(terminationGracePeriodSeconds=20)),
    ("ending", lambda c: _drop(_container(c, "follower"), "lifecycle")),
    ("scaling", lambda c: _drop(c.tier("follower")["spec"], "replicas")),
    ("spread", lambda c: _drop(c.tier("follower").pod, "topologySpreadConstraints")),
    ("spread", lambda c: c.tier("follower").pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(
        {"app.kubernetes.io/component": "shard"})),
]

# What compose.yaml must not say instead of what it says.
COMPOSE = [
    ("restart: unless-stopped", "restarts: unless-stopped"),
    ("read_only: true", "read_only: yes please"),
    ("read_only: true", "read_only: false"),
    ("command: [leader]", "command: [shard]"),
    ("allkeys-lru", "noeviction"),
    ("PGPASSWORD: tao", "PGPASSWORD: other"),
    ("TAO_CONFIG: /etc/tao/tao.toml", "TAO_CONFIG: /etc/tao/other.toml"),
    ("../k8s/base/config", "../k8s/overlays/production"),
    ("postgres:17.6", "postgres:17.5"),
    ("tao-shard-0.tao-shards", "tao-shard-0"),
    ("stop_grace_period: 30s", "stop_grace_period: 10s"),
    ('"/usr/bin/tao", "health"', '"/usr/bin/tao", "id"'),
    ("follower-1:", "follower-2:"),
]
