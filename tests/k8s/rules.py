"""Consistency rules for the manifests: each rule reads all rendered objects and related files, and raises RuleViolation
with the object, the field and the expected value. Must not contain rendering, validators or output."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Time in which the process aborts remaining calls after SHUTDOWN_GRACE (limits.rs).
AFTER_GRACE_S = 4
# Variables with these words in their name must not be in a ConfigMap.
SECRET_WORDS = ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")


class RuleViolation(Exception):
    """A rule does not hold."""


@dataclass
class Cluster:
    """All rendered objects and the related files."""

    objects: list[dict[str, Any]]
    policies: dict[str, Any]
    trusts: dict[str, Any]
    node_config: dict[str, Any]
    seccomp: dict[str, Any]
    prepare: str
    # None if there is no server binary.
    known_variables: set[str] | None = None
    skipped: list[str] = field(default_factory=list)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        found = self.all(kind)
        if len(found) != 1:
            raise RuleViolation(f"{len(found)} objects of kind {kind}, expected one")
        return found[0]

    def pod(self) -> dict[str, Any]:
        return self.one("Deployment")["spec"]["template"]

    def container(self) -> dict[str, Any]:
        containers = self.pod()["spec"]["containers"]
        if len(containers) != 1:
            raise RuleViolation(f"{len(containers)} containers: expected one, because a second container is not counted in the CPUs")
        return containers[0]

    def environment(self) -> dict[str, str]:
        """Environment of the container."""
        got: dict[str, str] = {}
        for source in self.container().get("envFrom", []):
            name = source["configMapRef"]["name"]
            maps = [m for m in self.all("ConfigMap") if m["metadata"]["name"] == name]
            if len(maps) != 1:
                raise RuleViolation(f"envFrom names ConfigMap {name}, which does not exist")
            got |= maps[0]["data"]
        return got | {v["name"]: v["value"] for v in self.container().get("env", [])}


def require(truth: bool, text: str) -> None:
    if not truth:
        raise RuleViolation(text)


def seconds(text: str) -> float:
    """Parses a duration as the server does."""
    for unit, factor in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)):
        number = text.removesuffix(unit)
        if number != text and number.isdigit():
            return int(number) * factor
    raise RuleViolation(f"{text}: not a duration")


def mib(text: str) -> float:
    for unit, factor in (("Mi", 1), ("Gi", 1024)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise RuleViolation(f"memory {text}: expected Mi or Gi")


def covers(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def cpus_are_exclusive(c: Cluster) -> None:
    given = c.container()["resources"]
    require(given["requests"] == given["limits"], "resources: requests and limits differ, so the pod is not Guaranteed")
    require({"cpu", "memory"} <= given["requests"].keys(), "resources: cpu and memory are both required")
    require(str(given["requests"]["cpu"]).isdigit(), f"cpu {given['requests']['cpu']}: expected a whole number, which gets exclusive CPUs")
    kubelet = c.node_config["spec"]["kubelet"]["config"]
    require(kubelet.get("cpuManagerPolicy") == "static", "node-config.yaml: cpuManagerPolicy must be static for exclusive CPUs")
    require(c.environment().get("SHARDS") == "all", "SHARDS: must be all, so that shards follow the CPUs of the container")


def a_node_fits_exactly_one_pod(c: Cluster) -> None:
    cpu = int(c.container()["resources"]["requests"]["cpu"])
    for size in requirement(c, "karpenter.k8s.aws/instance-cpu"):
        reserved = len(c.node_config["spec"]["kubelet"]["config"]["reservedSystemCPUs"].split(","))
        require(cpu + reserved < int(size), f"cpu {cpu} and {reserved} reserved leave nothing for daemons on {size} CPUs")
        require(2 * cpu > int(size) - reserved, f"two pods of {cpu} CPUs fit on a node of {size}")
    # 512 KiB of locked memory per shard and one spare must fit into the limit of the containers.
    require("LimitMEMLOCK=64M" in c.prepare and (cpu + 1) * 0.5 <= 64, "prepare.sh: not enough locked memory")
    require(mib(c.container()["resources"]["requests"]["memory"]) >= 256 * cpu, "memory: less than 256 MiB per shard")


def requirement(c: Cluster, key: str) -> list[str]:
    for one in c.one("NodePool")["spec"]["template"]["spec"]["requirements"]:
        if one["key"] == key:
            require(one["operator"] == "In", f"NodePool: {key} must use operator In")
            return one["values"]
    raise RuleViolation(f"NodePool: no requirement of {key}")


def the_pod_runs_on_dedicated_nodes_only(c: Cluster) -> None:
    spec, pool = c.pod()["spec"], c.one("NodePool")["spec"]["template"]
    taints = pool["spec"]["taints"]
    require(len(taints) > 0, "NodePool: without a taint other pods run next to the shards")
    for taint in taints:
        require(taint["effect"] == "NoSchedule", "NodePool: the taint must be NoSchedule")
        tolerated = any(
            t.get("key") == taint["key"] and t.get("value") == taint.get("value") and t.get("effect") == taint["effect"]
            for t in spec.get("tolerations", [])
        )
        require(tolerated, f"Deployment: does not tolerate {taint['key']}")
    selector = dict(spec["nodeSelector"])
    require(selector.pop("kubernetes.io/arch", None) == "arm64", "nodeSelector: kubernetes.io/arch must be arm64")
    require(requirement(c, "kubernetes.io/arch") == ["arm64"], "NodePool: arm64 only")
    require(bool(selector) and covers(selector, pool["metadata"]["labels"]), f"NodePool: labels do not include {selector}")
    require(set(requirement(c, "karpenter.k8s.aws/instance-family")) <= {"c7g", "c8g"}, "NodePool: only c7g and c8g are covered by the sizing")
    require(requirement(c, "karpenter.sh/capacity-type") == ["on-demand"], "NodePool: spot nodes can be terminated during a sale")
    name = pool["spec"]["nodeClassRef"]["name"]
    require(c.one("EC2NodeClass")["metadata"]["name"] == name, f"nodeClassRef: there is no EC2NodeClass {name}")


def own_mounts(c: Cluster) -> list[dict[str, Any]]:
    return c.container().get("volumeMounts", [])


def the_container_has_no_privileges(c: Cluster) -> None:
    spec, own = c.pod()["spec"], c.container()["securityContext"]
    both = spec["securityContext"]
    require(both.get("runAsNonRoot") is True, "runAsNonRoot: must be true")
    require(both.get("runAsUser", 0) >= 10000 and both.get("runAsGroup", 0) >= 10000, "runAsUser, runAsGroup: must be 10000 or more")
    require(own.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem: must be true")
    require(own.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation: must be false")
    require(own.get("capabilities") == {"drop": ["ALL"]}, "capabilities: must drop ALL and add none")
    require(spec.get("automountServiceAccountToken") is False, "automountServiceAccountToken: must be false")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        require(not spec.get(name), f"{name} is not needed")
    writable = [v["name"] for v in spec.get("volumes", []) if "secret" not in v]
    writable += [m["name"] for m in own_mounts(c) if m.get("readOnly") is not True]
    require(not writable, f"volumes {writable}: the server writes no files; certificates are read-only secrets")


def the_seccomp_profile_allows_io_uring(c: Cluster) -> None:
    profile = c.pod()["spec"]["securityContext"].get("seccompProfile", {})
    require(profile.get("type") == "Localhost", "seccompProfile: must be Localhost, because the runtime default denies io_uring")
    path = f"/var/lib/kubelet/seccomp/{profile.get('localhostProfile')}"
    require(f"cat >{path} " in c.prepare, f"prepare.sh does not put {path} on the nodes")
    allowed = {n for rule in c.seccomp["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
    needed = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
    require(needed <= allowed, f"deploy/seccomp: {', '.join(sorted(needed - allowed))} is not allowed")
    require(c.seccomp["defaultAction"] == "SCMP_ACT_ERRNO", "deploy/seccomp: the default action must be SCMP_ACT_ERRNO")
    require("SCMP_ARCH_AARCH64" in json.dumps(c.seccomp), "deploy/seccomp: aarch64 is missing")


def the_grace_period_covers_the_drain(c: Cluster) -> None:
    hook = c.container()["lifecycle"]["preStop"]
    require("sleep" in hook, "preStop: must be sleep, because the image has no shell")
    needed = hook["sleep"]["seconds"] + seconds(c.environment()["SHUTDOWN_GRACE"]) + AFTER_GRACE_S
    grace = c.pod()["spec"]["terminationGracePeriodSeconds"]
    require(grace >= needed, f"terminationGracePeriodSeconds {grace}: must be at least {needed:.0f} (preStop, SHUTDOWN_GRACE and abort)")
    kubelet = c.node_config["spec"]["kubelet"]["config"]
    node = seconds(kubelet["shutdownGracePeriod"]) - seconds(kubelet["shutdownGracePeriodCriticalPods"])
    require(node >= grace, f"node-config.yaml: shutdownGracePeriod leaves {node:.0f} s, the pod needs {grace}")


def the_watchdog_exits_before_the_liveness_probe_fails(c: Cluster) -> None:
    probe, environment = c.container()["livenessProbe"], c.environment()
    takes = probe["periodSeconds"] * probe["failureThreshold"]
    limit = seconds(environment["SHARD_STALL_EXIT"])
    require(takes > limit, f"livenessProbe fails after {takes} s: must be later than the watchdog ({limit:.0f} s), which logs the reason")
    require(seconds(environment["SHARD_STALL_LIMIT"]) < limit, "SHARD_STALL_LIMIT: must be below SHARD_STALL_EXIT")
    has_tls = "TLS_CERT_FILE" in environment
    require(has_tls or "grpc" in c.container()["startupProbe"], "startupProbe: must use gRPC on GRPC_PORT")
    require("readinessProbe" in c.container(), "readinessProbe is missing")


def ports_are_consistent(c: Cluster) -> None:
    environment = c.environment()
    if "TLS_CERT_FILE" not in environment:
        require(c.container()["startupProbe"]["grpc"]["port"] == int(environment["GRPC_PORT"]), "startupProbe: not GRPC_PORT")
    named = {p["name"]: p["containerPort"] for p in c.container()["ports"]}
    wanted = {"grpc": int(environment["GRPC_PORT"]), "metrics": int(environment["METRICS_PORT"])}
    require(named == wanted, f"ports: {named}, expected {wanted}")
    for probe in ("readinessProbe", "livenessProbe"):
        require(c.container()[probe]["httpGet"]["port"] == "metrics", f"{probe}: must use the metrics port")
    for service in c.all("Service"):
        for port in service["spec"]["ports"]:
            require(port["targetPort"] in named, f"Service: {port['targetPort']} is not a port of the container")
            require(port["port"] == named[port["targetPort"]], f"Service: port {port['port']} differs from {port['targetPort']}")
    ingress = {p["port"] for rule in c.one("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]}
    require(ingress == set(wanted.values()), f"NetworkPolicy: ingress {sorted(ingress)}, expected {sorted(wanted.values())}")


def selectors_match_the_pods(c: Cluster) -> None:
    labels = c.pod()["metadata"]["labels"]
    spread = [s["labelSelector"]["matchLabels"] for s in c.pod()["spec"]["topologySpreadConstraints"]]
    selectors = {
        "Deployment": c.one("Deployment")["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": c.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": c.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    }
    selectors |= {s["metadata"]["name"]: s["spec"]["selector"] for s in c.all("Service")}
    selectors |= {f"topologySpreadConstraints[{n}]": s for n, s in enumerate(spread)}
    for who, selector in selectors.items():
        require(bool(selector) and covers(selector, labels), f"{who}: {selector} does not select {labels}")
    keys = {s["topologyKey"] for s in c.pod()["spec"]["topologySpreadConstraints"]}
    require({"kubernetes.io/hostname", "topology.kubernetes.io/zone"} <= keys, "topologySpreadConstraints: hosts and zones are required")


def a_drain_is_never_blocked(c: Cluster) -> None:
    budget = c.one("PodDisruptionBudget")["spec"]
    require("minAvailable" not in budget, "PodDisruptionBudget: minAvailable blocks a drain if a pod is unhealthy")
    require(budget.get("maxUnavailable") not in (None, 0, "0", "0%"), "PodDisruptionBudget: maxUnavailable must be 1 or more")
    require(budget.get("unhealthyPodEvictionPolicy") == "AlwaysAllow", "PodDisruptionBudget: unhealthyPodEvictionPolicy must be AlwaysAllow")
    require(c.one("Deployment")["spec"]["replicas"] >= 2, "replicas: must be 2 or more, because a drain of one replica is an outage")
    rolling = c.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    require(rolling["maxUnavailable"] == 0, "rollingUpdate: maxUnavailable must be 0 to keep capacity")


def a_zone_may_fail(c: Cluster) -> None:
    require(c.one("Deployment")["spec"]["replicas"] >= 3, "replicas: must be 3 or more, one for each zone")
    spread = {s["topologyKey"]: s for s in c.pod()["spec"]["topologySpreadConstraints"]}
    zones = spread.get("topology.kubernetes.io/zone")
    require(zones is not None and zones["maxSkew"] == 1, "topologySpreadConstraints: maxSkew over zones must be 1")
    require(zones["whenUnsatisfiable"] == "ScheduleAnyway", "topologySpreadConstraints: a zone without capacity must not block a rollout")
    require(c.one("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1, "rollingUpdate: maxSurge must be 1, so that one process joins at a time")
    require(c.environment().get("MEMBERSHIP") == "store", "MEMBERSHIP: must be store, because the number of pods changes during a rollout")


def clients_can_balance(c: Cluster) -> None:
    headless = [s for s in c.all("Service") if s["spec"].get("clusterIP") == "None"]
    require(len(headless) == 1, "exactly one headless Service is required")
    require([p["name"] for p in headless[0]["spec"]["ports"]] == ["grpc"], "the headless Service must have the gRPC port only")
    require(not headless[0]["spec"].get("publishNotReadyAddresses"), "the headless Service must not name pods that drain")


def each_pod_is_scraped_once(c: Cluster) -> None:
    monitor = c.one("ServiceMonitor")["spec"]
    selector = monitor["selector"]["matchLabels"]
    found = [s for s in c.all("Service") if covers(selector, s["metadata"].get("labels", {}))]
    names = [s["metadata"]["name"] for s in found]
    require(names == ["inventory-api"], f"ServiceMonitor selects {names}; must select inventory-api only, the job of the rules")
    ports = {p["name"] for p in found[0]["spec"]["ports"]}
    for end in monitor["endpoints"]:
        require(end["port"] in ports, f"ServiceMonitor: the Service has no port {end['port']}")


def the_admin_port_is_on_loopback(c: Cluster) -> None:
    environment = c.environment()
    if environment.get("ADMIN_PORT") == "off":
        return
    address = ipaddress.ip_address(environment.get("ADMIN_HOST", "127.0.0.1"))
    require(address.is_loopback, f"ADMIN_HOST {address}: must be a loopback address; kubectl port-forward reaches it")


def tls_files_are_mounted_and_probes_have_no_tls(c: Cluster) -> None:
    """Of the port for clients, if it has TLS."""
    environment = c.environment()
    files = {n: environment[n] for n in ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE") if n in environment}
    if not files:
        return
    container = c.container()
    secrets = {v["name"]: v["secret"]["secretName"] for v in c.pod()["spec"].get("volumes", []) if "secret" in v}
    issued = {o["spec"]["secretName"] for o in c.all("Certificate")}
    for name, path in files.items():
        mounts = [m for m in container.get("volumeMounts", []) if path.startswith(m["mountPath"] + "/")]
        require(len(mounts) == 1, f"{name}={path}: no volume is mounted there")
        require("subPath" not in mounts[0], f"{name}={path}: a subPath does not follow a renewed secret")
        require(secrets.get(mounts[0]["name"]) in issued, f"{name}={path}: no Certificate writes this secret")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        require("grpc" not in container[probe], f"{probe}: gRPC probes of Kubernetes have no TLS")


def variables_are_known_and_not_secret(c: Cluster) -> None:
    for name in c.environment():
        is_path = name.endswith("_FILE")
        is_secret = any(word in name for word in SECRET_WORDS) and not is_path
        require(not is_secret, f"{name}: a secret must not be in a ConfigMap")
        if c.known_variables is not None:
            require(name in c.known_variables, f"{name}: not a variable of the server")


# Per address family: every address, instance metadata, the Pod Identity agent.
ADDRESSES = {
    "IPv4": ("0.0.0.0/0", "169.254.169.254/32", "169.254.170.23/32"),
    "IPv6": ("::/0", "fd00:ec2::254/128", "fd00:ec2::23/128"),
}


def ports_of(rule: dict) -> set[int]:
    return {p["port"] for p in rule["ports"]}


def egress_covers_all_dependencies(c: Cluster) -> None:
    rules = c.one("NetworkPolicy")["spec"]["egress"]
    ports = {p["port"] for rule in rules for p in rule["ports"]}
    require({53, 443} <= ports, "NetworkPolicy: egress must allow DNS (53) and DynamoDB (443)")
    endpoint = c.environment().get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint:
        host, _, port = endpoint.removeprefix("http://").rpartition(":")
        require(int(port) in ports, f"NetworkPolicy: egress must allow the collector port {port}")
        require(host.endswith(".svc.cluster.local"), f"OTEL_EXPORTER_OTLP_ENDPOINT: {host} must be fully qualified, or every search domain is tried")
    require(any(53 in ports_of(rule) and "to" not in rule for rule in rules), "NetworkPolicy: DNS must be allowed at any address, for NodeLocal DNSCache")
    for family, (everything, metadata, agent) in ADDRESSES.items():
        blocks = [(rule, to["ipBlock"]) for rule in rules for to in rule.get("to", []) if "ipBlock" in to]
        world = [(rule, b) for rule, b in blocks if b["cidr"] == everything]
        require(any(443 in ports_of(rule) for rule, _ in world), f"NetworkPolicy: egress must allow DynamoDB (443) over {family}")
        require(all(metadata in b.get("except", []) for _, b in world), f"NetworkPolicy: instance metadata must be excluded over {family}")
        require(any(80 in ports_of(rule) and b["cidr"] == agent for rule, b in blocks), f"NetworkPolicy: egress must allow the Pod Identity agent over {family}")


def the_role_has_least_privilege(c: Cluster) -> None:
    for name, policy in c.policies.items():
        for statement in policy["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            resources = [resources] if isinstance(resources, str) else resources
            require(all("*" not in a for a in actions), f"{name}: {statement['Sid']} has a wildcard action")
            require(all("*" not in r for r in resources), f"{name}: {statement['Sid']} has a wildcard resource")
            require(all(a.startswith("dynamodb:") for a in actions), f"{name}: {statement['Sid']} has actions outside DynamoDB")
    serve = {a for s in c.policies["serve.json"]["Statement"] for a in s["Action"]}
    # The actions that the server uses; TransactWriteItems needs Put, Update and ConditionCheck.
    needed = {"GetItem", "BatchGetItem", "Query", "Scan", "PutItem", "UpdateItem", "ConditionCheckItem",
              "DescribeTable", "DescribeTimeToLive"}
    serve = {a.removeprefix("dynamodb:") for a in serve}
    require(serve == needed, f"serve.json: unexpected or missing actions: {', '.join(sorted(serve ^ needed))}")
    tables = {r.rpartition(":table/")[2] for s in c.policies["serve.json"]["Statement"] for r in s["Resource"]}
    environment = c.environment()
    names = {environment[f"DDB_TABLE_{t}"] for t in ("INVENTORY", "SEATS", "IDEMPOTENCY")}
    wanted = names | {f"{environment['DDB_TABLE_IDEMPOTENCY']}/index/expiry"}
    require(tables == wanted, f"serve.json: tables {sorted(tables)}, the server uses {sorted(wanted)}")


def the_role_trusts_one_service_account(c: Cluster) -> None:
    account = c.one("ServiceAccount")["metadata"]
    require(c.pod()["spec"]["serviceAccountName"] == account["name"], "serviceAccountName: differs from the ServiceAccount")
    subject = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    irsa = json.dumps(c.trusts["trust-irsa.json"])
    require(f'"{subject}"' in irsa and "StringLike" not in irsa, f"trust-irsa.json: must trust {subject} only")
    pod = c.trusts["trust-pod-identity.json"]["Statement"][0]["Condition"]["StringEquals"]
    require(pod.get("aws:RequestTag/kubernetes-service-account") == account["name"], "trust-pod-identity.json: must name the service account")
    require(pod.get("aws:RequestTag/kubernetes-namespace") == account["namespace"], "trust-pod-identity.json: must name the namespace")


def the_image_tag_is_fixed(c: Cluster) -> None:
    name, _, tag = c.container()["image"].rpartition(":")
    require(bool(name) and tag not in ("", "latest"), f"image {c.container()['image']}: a fixed tag is required")


RULES: list[Callable[[Cluster], None]] = [
    cpus_are_exclusive,
    a_node_fits_exactly_one_pod,
    the_pod_runs_on_dedicated_nodes_only,
    the_container_has_no_privileges,
    the_seccomp_profile_allows_io_uring,
    the_grace_period_covers_the_drain,
    the_watchdog_exits_before_the_liveness_probe_fails,
    ports_are_consistent,
    selectors_match_the_pods,
    a_drain_is_never_blocked,
    a_zone_may_fail,
    clients_can_balance,
    each_pod_is_scraped_once,
    the_admin_port_is_on_loopback,
    tls_files_are_mounted_and_probes_have_no_tls,
    variables_are_known_and_not_secret,
    egress_covers_all_dependencies,
    the_role_has_least_privilege,
    the_role_trusts_one_service_account,
    the_image_tag_is_fixed,
]
