"""What the manifests must say together: each rule reads all rendered objects and the files beside them, and raises
Wrong with the object, the field and what would be right. Must not live here: rendering, validators, printing."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# The process gives up what is left this long after its grace (src/limits).
AFTER_GRACE_S = 4
# In the name of a variable: what must not be in a ConfigMap.
SECRET_WORDS = ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")


class Wrong(Exception):
    """A rule is broken."""


@dataclass
class Cluster:
    """All that an `apply` would send, and what lies beside it."""

    objects: list[dict[str, Any]]
    policies: dict[str, Any]
    trusts: dict[str, Any]
    node_config: dict[str, Any]
    seccomp: dict[str, Any]
    prepare: str
    # None where no server is built.
    known_variables: set[str] | None = None
    skipped: list[str] = field(default_factory=list)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        found = self.all(kind)
        if len(found) != 1:
            raise Wrong(f"{len(found)} objects of kind {kind}, wanted one")
        return found[0]

    def pod(self) -> dict[str, Any]:
        return self.one("Deployment")["spec"]["template"]

    def container(self) -> dict[str, Any]:
        containers = self.pod()["spec"]["containers"]
        if len(containers) != 1:
            raise Wrong(f"{len(containers)} containers: a second one is not in the CPUs' bill")
        return containers[0]

    def environment(self) -> dict[str, str]:
        """As the container gets it."""
        got: dict[str, str] = {}
        for source in self.container().get("envFrom", []):
            name = source["configMapRef"]["name"]
            maps = [m for m in self.all("ConfigMap") if m["metadata"]["name"] == name]
            if len(maps) != 1:
                raise Wrong(f"envFrom names ConfigMap {name}, which is not there")
            got |= maps[0]["data"]
        return got | {v["name"]: v["value"] for v in self.container().get("env", [])}


def want(truth: bool, text: str) -> None:
    if not truth:
        raise Wrong(text)


def seconds(text: str) -> float:
    """A duration as the server reads it."""
    for unit, factor in (("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)):
        number = text.removesuffix(unit)
        if number != text and number.isdigit():
            return int(number) * factor
    raise Wrong(f"{text} is no duration")


def mib(text: str) -> float:
    for unit, factor in (("Mi", 1), ("Gi", 1024)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise Wrong(f"memory {text}: Mi or Gi is wanted")


def covers(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def cpus_are_whole_and_guaranteed(c: Cluster) -> None:
    given = c.container()["resources"]
    want(given["requests"] == given["limits"], "resources: requests and limits differ, so the pod is not Guaranteed")
    want({"cpu", "memory"} <= given["requests"].keys(), "resources: cpu and memory are both wanted")
    want(str(given["requests"]["cpu"]).isdigit(), f"cpu {given['requests']['cpu']}: a whole number gets exclusive CPUs")
    kubelet = c.node_config["spec"]["kubelet"]["config"]
    want(kubelet.get("cpuManagerPolicy") == "static", "node-config.yaml: cpuManagerPolicy static gives exclusive CPUs")
    want(c.environment().get("SHARDS") == "all", "SHARDS: all follows the CPUs that are given")


def a_node_has_room_for_one_pod_and_not_two(c: Cluster) -> None:
    cpu = int(c.container()["resources"]["requests"]["cpu"])
    for size in requirement(c, "karpenter.k8s.aws/instance-cpu"):
        reserved = len(c.node_config["spec"]["kubelet"]["config"]["reservedSystemCPUs"].split(","))
        want(cpu + reserved < int(size), f"cpu {cpu} and {reserved} reserved leave nothing for daemons on {size} CPUs")
        want(2 * cpu > int(size) - reserved, f"two pods of {cpu} CPUs fit on a node of {size}")
    # 512 KiB of locked memory a shard and once more, below what the nodes' containers get.
    want("LimitMEMLOCK=64M" in c.prepare and (cpu + 1) * 0.5 <= 64, "prepare.sh: the locked memory does not last")
    want(mib(c.container()["resources"]["requests"]["memory"]) >= 256 * cpu, "memory: less than 256 MiB a shard")


def requirement(c: Cluster, key: str) -> list[str]:
    for one in c.one("NodePool")["spec"]["template"]["spec"]["requirements"]:
        if one["key"] == key:
            want(one["operator"] == "In", f"NodePool: {key} is wanted by In")
            return one["values"]
    raise Wrong(f"NodePool: no requirement of {key}")


def the_pod_lands_on_its_nodes_only(c: Cluster) -> None:
    spec, pool = c.pod()["spec"], c.one("NodePool")["spec"]["template"]
    taints = pool["spec"]["taints"]
    want(len(taints) > 0, "NodePool: without a taint others land beside the shards")
    for taint in taints:
        want(taint["effect"] == "NoSchedule", "NodePool: the taint has to be NoSchedule")
        tolerated = any(
            t.get("key") == taint["key"] and t.get("value") == taint.get("value") and t.get("effect") == taint["effect"]
            for t in spec.get("tolerations", [])
        )
        want(tolerated, f"Deployment: does not tolerate {taint['key']}")
    selector = dict(spec["nodeSelector"])
    want(selector.pop("kubernetes.io/arch", None) == "arm64", "nodeSelector: kubernetes.io/arch is wanted as arm64")
    want(requirement(c, "kubernetes.io/arch") == ["arm64"], "NodePool: arm64 only")
    want(bool(selector) and covers(selector, pool["metadata"]["labels"]), f"NodePool: its labels do not have {selector}")
    want(set(requirement(c, "karpenter.k8s.aws/instance-family")) <= {"c7g", "c8g"}, "NodePool: c7g and c8g are what was sized")
    want(requirement(c, "karpenter.sh/capacity-type") == ["on-demand"], "NodePool: a spot machine goes in mid sale")
    name = pool["spec"]["nodeClassRef"]["name"]
    want(c.one("EC2NodeClass")["metadata"]["name"] == name, f"nodeClassRef: there is no EC2NodeClass {name}")


def the_container_may_nothing(c: Cluster) -> None:
    spec, own = c.pod()["spec"], c.container()["securityContext"]
    both = spec["securityContext"]
    want(both.get("runAsNonRoot") is True, "runAsNonRoot: true is wanted")
    want(both.get("runAsUser", 0) >= 10000 and both.get("runAsGroup", 0) >= 10000, "runAsUser, runAsGroup: 10000 or more")
    want(own.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem: true is wanted")
    want(own.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation: false is wanted")
    want(own.get("capabilities") == {"drop": ["ALL"]}, "capabilities: drop ALL and add none")
    want(spec.get("automountServiceAccountToken") is False, "automountServiceAccountToken: false is wanted")
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        want(not spec.get(name), f"{name} is not needed")
    want(not spec.get("volumes"), "volumes: the server writes no files")


def io_uring_is_allowed_on_every_node(c: Cluster) -> None:
    profile = c.pod()["spec"]["securityContext"].get("seccompProfile", {})
    want(profile.get("type") == "Localhost", "seccompProfile: Localhost is wanted, the runtimes' default denies io_uring")
    path = f"/var/lib/kubelet/seccomp/{profile.get('localhostProfile')}"
    want(f"cat >{path} " in c.prepare, f"prepare.sh does not put {path} on the nodes")
    allowed = {n for rule in c.seccomp["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}
    needed = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
    want(needed <= allowed, f"deploy/seccomp: {', '.join(sorted(needed - allowed))} is not allowed")
    want(c.seccomp["defaultAction"] == "SCMP_ACT_ERRNO", "deploy/seccomp: what is not named must be refused")
    want("SCMP_ARCH_AARCH64" in json.dumps(c.seccomp), "deploy/seccomp: does not name aarch64")


def a_stop_has_its_time(c: Cluster) -> None:
    hook = c.container()["lifecycle"]["preStop"]
    want("sleep" in hook, "preStop: sleep is wanted, there is no shell in the image")
    needed = hook["sleep"]["seconds"] + seconds(c.environment()["SHUTDOWN_GRACE"]) + AFTER_GRACE_S
    grace = c.pod()["spec"]["terminationGracePeriodSeconds"]
    want(grace >= needed, f"terminationGracePeriodSeconds {grace}: preStop, SHUTDOWN_GRACE and the end want {needed:.0f}")
    kubelet = c.node_config["spec"]["kubelet"]["config"]
    node = seconds(kubelet["shutdownGracePeriod"]) - seconds(kubelet["shutdownGracePeriodCriticalPods"])
    want(node >= grace, f"node-config.yaml: shutdownGracePeriod leaves {node:.0f} s, the pod wants {grace}")


def the_watchdog_is_before_the_kubelet(c: Cluster) -> None:
    probe, environment = c.container()["livenessProbe"], c.environment()
    takes = probe["periodSeconds"] * probe["failureThreshold"]
    limit = seconds(environment["SHARD_STALL_EXIT"])
    want(takes > limit, f"livenessProbe takes {takes} s: the watchdog, which says why, takes {limit:.0f}")
    want(seconds(environment["SHARD_STALL_LIMIT"]) < limit, "SHARD_STALL_LIMIT: below SHARD_STALL_EXIT is wanted")
    want("grpc" in c.container()["startupProbe"], "startupProbe: by gRPC, the port that clients use")
    want("readinessProbe" in c.container(), "readinessProbe is missing")


def ports_are_the_same_everywhere(c: Cluster) -> None:
    environment = c.environment()
    want(c.container()["startupProbe"]["grpc"]["port"] == int(environment["GRPC_PORT"]), "startupProbe: not GRPC_PORT")
    named = {p["name"]: p["containerPort"] for p in c.container()["ports"]}
    wanted = {"grpc": int(environment["GRPC_PORT"]), "metrics": int(environment["METRICS_PORT"])}
    want(named == wanted, f"ports: {named}, wanted {wanted}")
    for probe in ("readinessProbe", "livenessProbe"):
        want(c.container()[probe]["httpGet"]["port"] == "metrics", f"{probe}: /readyz and /healthz are on metrics")
    for service in c.all("Service"):
        for port in service["spec"]["ports"]:
            want(port["targetPort"] in named, f"Service: {port['targetPort']} is no port of the container")
            want(port["port"] == named[port["targetPort"]], f"Service: port {port['port']} is not {port['targetPort']}'s")
    ingress = {p["port"] for rule in c.one("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]}
    want(ingress == set(wanted.values()), f"NetworkPolicy: lets in {sorted(ingress)}, wanted {sorted(wanted.values())}")


def selectors_find_the_pods(c: Cluster) -> None:
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
        want(bool(selector) and covers(selector, labels), f"{who}: {selector} does not select {labels}")
    keys = {s["topologyKey"] for s in c.pod()["spec"]["topologySpreadConstraints"]}
    want({"kubernetes.io/hostname", "topology.kubernetes.io/zone"} <= keys, "topologySpreadConstraints: hosts and zones")


def a_drain_is_never_blocked(c: Cluster) -> None:
    budget = c.one("PodDisruptionBudget")["spec"]
    want("minAvailable" not in budget, "PodDisruptionBudget: minAvailable blocks a drain once a pod is unwell")
    want(budget.get("maxUnavailable") not in (None, 0, "0", "0%"), "PodDisruptionBudget: maxUnavailable of 1 or more")
    want(budget.get("unhealthyPodEvictionPolicy") == "AlwaysAllow", "PodDisruptionBudget: unhealthy pods must go")
    want(c.one("Deployment")["spec"]["replicas"] >= 2, "replicas: with one, a drain is an outage")
    rolling = c.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    want(rolling["maxUnavailable"] == 0, "rollingUpdate: maxUnavailable 0 keeps the capacity of a sale")


def clients_can_balance(c: Cluster) -> None:
    headless = [s for s in c.all("Service") if s["spec"].get("clusterIP") == "None"]
    want(len(headless) == 1, "one headless Service is wanted")
    want([p["name"] for p in headless[0]["spec"]["ports"]] == ["grpc"], "the headless Service has gRPC only")


def figures_are_scraped_once(c: Cluster) -> None:
    monitor = c.one("ServiceMonitor")["spec"]
    selector = monitor["selector"]["matchLabels"]
    found = [s for s in c.all("Service") if covers(selector, s["metadata"].get("labels", {}))]
    names = [s["metadata"]["name"] for s in found]
    want(names == ["inventory-api"], f"ServiceMonitor selects {names}; rules and dashboards ask for job inventory-api")
    ports = {p["name"] for p in found[0]["spec"]["ports"]}
    for end in monitor["endpoints"]:
        want(end["port"] in ports, f"ServiceMonitor: the Service has no port {end['port']}")


def nobody_reaches_the_admin_port(c: Cluster) -> None:
    environment = c.environment()
    if environment.get("ADMIN_PORT") == "off":
        return
    address = ipaddress.ip_address(environment.get("ADMIN_HOST", "127.0.0.1"))
    want(address.is_loopback, f"ADMIN_HOST {address}: it asks no password, loopback is wanted")


def variables_are_known_and_no_secrets(c: Cluster) -> None:
    for name in c.environment():
        want(not any(word in name for word in SECRET_WORDS), f"{name}: secrets do not belong into a ConfigMap")
        if c.known_variables is not None:
            want(name in c.known_variables, f"{name}: the server does not know this variable")


def the_pod_reaches_what_it_needs(c: Cluster) -> None:
    rules = c.one("NetworkPolicy")["spec"]["egress"]
    ports = {p["port"] for rule in rules for p in rule["ports"]}
    want({53, 443} <= ports, "NetworkPolicy: names (53) and DynamoDB (443) must be reachable")
    endpoint = c.environment().get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if endpoint:
        host, _, port = endpoint.removeprefix("http://").rpartition(":")
        want(int(port) in ports, f"NetworkPolicy: the collector's port {port} is not let out")
        want(host.endswith(".svc.cluster.local"), f"OTEL_EXPORTER_OTLP_ENDPOINT: {host} is looked up in every search domain")
    blocks = [to["ipBlock"] for rule in rules for to in rule["to"] if "ipBlock" in to and to["ipBlock"]["cidr"] == "0.0.0.0/0"]
    want(all("169.254.169.254/32" in b.get("except", []) for b in blocks), "NetworkPolicy: the machine's metadata is open")


def the_role_is_the_least(c: Cluster) -> None:
    for name, policy in c.policies.items():
        for statement in policy["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            resources = [resources] if isinstance(resources, str) else resources
            want(all("*" not in a for a in actions), f"{name}: {statement['Sid']} has a wildcard among its actions")
            want(all("*" not in r for r in resources), f"{name}: {statement['Sid']} has a wildcard among its resources")
            want(all(a.startswith("dynamodb:") for a in actions), f"{name}: {statement['Sid']} is about more than DynamoDB")
    serve = {a for s in c.policies["serve.json"]["Statement"] for a in s["Action"]}
    # Each is one that the server calls: TransactWriteItems is Put, Update and ConditionCheck.
    needed = {"GetItem", "BatchGetItem", "Query", "Scan", "PutItem", "UpdateItem", "ConditionCheckItem",
              "DescribeTable", "DescribeTimeToLive"}
    serve = {a.removeprefix("dynamodb:") for a in serve}
    want(serve == needed, f"serve.json: differs by {', '.join(sorted(serve ^ needed))}")
    tables = {r.rpartition(":table/")[2] for s in c.policies["serve.json"]["Statement"] for r in s["Resource"]}
    environment = c.environment()
    names = {environment[f"DDB_TABLE_{t}"] for t in ("INVENTORY", "SEATS", "IDEMPOTENCY")}
    wanted = names | {f"{environment['DDB_TABLE_IDEMPOTENCY']}/index/expiry"}
    want(tables == wanted, f"serve.json: is about {sorted(tables)}, the server uses {sorted(wanted)}")


def the_role_is_this_accounts_alone(c: Cluster) -> None:
    account = c.one("ServiceAccount")["metadata"]
    want(c.pod()["spec"]["serviceAccountName"] == account["name"], "serviceAccountName: not the ServiceAccount's")
    subject = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    irsa = json.dumps(c.trusts["trust-irsa.json"])
    want(f'"{subject}"' in irsa and "StringLike" not in irsa, f"trust-irsa.json: trusts others than {subject}")
    pod = c.trusts["trust-pod-identity.json"]["Statement"][0]["Condition"]["StringEquals"]
    want(pod.get("aws:RequestTag/kubernetes-service-account") == account["name"], "trust-pod-identity.json: any account")
    want(pod.get("aws:RequestTag/kubernetes-namespace") == account["namespace"], "trust-pod-identity.json: any namespace")


def the_image_is_one_build(c: Cluster) -> None:
    name, _, tag = c.container()["image"].rpartition(":")
    want(bool(name) and tag not in ("", "latest"), f"image {c.container()['image']}: a fixed tag is wanted")


RULES: list[Callable[[Cluster], None]] = [
    cpus_are_whole_and_guaranteed,
    a_node_has_room_for_one_pod_and_not_two,
    the_pod_lands_on_its_nodes_only,
    the_container_may_nothing,
    io_uring_is_allowed_on_every_node,
    a_stop_has_its_time,
    the_watchdog_is_before_the_kubelet,
    ports_are_the_same_everywhere,
    selectors_find_the_pods,
    a_drain_is_never_blocked,
    clients_can_balance,
    figures_are_scraped_once,
    nobody_reaches_the_admin_port,
    variables_are_known_and_no_secrets,
    the_pod_reaches_what_it_needs,
    the_role_is_the_least,
    the_role_is_this_accounts_alone,
    the_image_is_one_build,
]
