"""Mutations that each rule of rules.py must detect. The rules are in rules.py."""

from __future__ import annotations

from typing import Callable

import rules
from rules import Cluster

Mutation = Callable[[Cluster], None]


def environment(name: str, value: str) -> Mutation:
    """Sets a variable of the ConfigMap."""

    def mutate(c: Cluster) -> None:
        c.one("ConfigMap")["data"][name] = value

    return mutate


def container(*path: str, to: object) -> Mutation:
    def mutate(c: Cluster) -> None:
        at = c.container()
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to

    return mutate


def pod(name: str, to: object) -> Mutation:
    def mutate(c: Cluster) -> None:
        c.pod()["spec"][name] = to

    return mutate


def spec(kind: str, name: str, to: object) -> Mutation:
    def mutate(c: Cluster) -> None:
        c.one(kind)["spec"][name] = to

    return mutate


def node_requirement(key: str, *values: str) -> Mutation:
    def mutate(c: Cluster) -> None:
        for one in c.one("NodePool")["spec"]["template"]["spec"]["requirements"]:
            if one["key"] == key:
                one["values"] = list(values)

    return mutate


def service(name: str, change: Callable[[dict], None]) -> Mutation:
    def mutate(c: Cluster) -> None:
        change(next(s for s in c.all("Service") if s["metadata"]["name"] == name))

    return mutate


def half_a_cpu(c: Cluster) -> None:
    for part in ("requests", "limits"):
        c.container()["resources"][part]["cpu"] = "5500m"


def cpus(number: str) -> Mutation:
    def mutate(c: Cluster) -> None:
        for part in ("requests", "limits"):
            c.container()["resources"][part]["cpu"] = number

    return mutate


def no_taint(c: Cluster) -> None:
    c.one("NodePool")["spec"]["template"]["spec"]["taints"] = []


def another_profile(c: Cluster) -> None:
    c.pod()["spec"]["securityContext"]["seccompProfile"]["localhostProfile"] = "other.json"


def no_rings(c: Cluster) -> None:
    for rule in c.seccomp["syscalls"]:
        rule["names"] = [n for n in rule["names"] if n != "io_uring_enter"]


def root(c: Cluster) -> None:
    c.pod()["spec"]["securityContext"]["runAsUser"] = 0


def action(name: str) -> Mutation:
    def mutate(c: Cluster) -> None:
        c.policies["serve.json"]["Statement"][0]["Action"].append(name)

    return mutate


def no_condition_check(c: Cluster) -> None:
    c.policies["serve.json"]["Statement"][0]["Action"].remove("dynamodb:ConditionCheckItem")


def any_account(c: Cluster) -> None:
    equals = c.trusts["trust-irsa.json"]["Statement"][0]["Condition"]["StringEquals"]
    for name in list(equals):
        if name.endswith(":sub"):
            equals[name] = "system:serviceaccount:inventory:*"


def no_metadata_wall(c: Cluster) -> None:
    for rule in c.one("NetworkPolicy")["spec"]["egress"]:
        for to in rule.get("to", []):
            to.get("ipBlock", {}).pop("except", None)


def without_address(cidr: str) -> Mutation:
    def mutate(c: Cluster) -> None:
        for rule in c.one("NetworkPolicy")["spec"]["egress"]:
            if "to" in rule:
                rule["to"] = [to for to in rule["to"] if to.get("ipBlock", {}).get("cidr") != cidr]

    return mutate


def dns_of_pods_only(c: Cluster) -> None:
    for rule in c.one("NetworkPolicy")["spec"]["egress"]:
        if any(p["port"] == 53 for p in rule["ports"]):
            rule["to"] = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]


def no_dynamodb(c: Cluster) -> None:
    policy = c.one("NetworkPolicy")["spec"]
    policy["egress"] = [r for r in policy["egress"] if all(p["port"] != 443 for p in r["ports"])]


def admin_in_ingress(c: Cluster) -> None:
    c.one("NetworkPolicy")["spec"]["ingress"][0]["ports"].append({"port": 8081})


def lone_label(c: Cluster) -> None:
    c.pod()["metadata"]["labels"] = {"app": "inventory-api"}


def rolling(name: str, to: object) -> Mutation:
    def mutate(c: Cluster) -> None:
        c.one("Deployment")["spec"]["strategy"]["rollingUpdate"][name] = to

    return mutate


def zones(name: str, to: object) -> Mutation:
    def mutate(c: Cluster) -> None:
        for one in c.pod()["spec"]["topologySpreadConstraints"]:
            if one["topologyKey"] == "topology.kubernetes.io/zone":
                one[name] = to

    return mutate


def no_collector_port(c: Cluster) -> None:
    policy = c.one("NetworkPolicy")["spec"]
    policy["egress"] = [r for r in policy["egress"] if all(p["port"] != 4317 for p in r["ports"])]


MUTATIONS: dict[Callable[[Cluster], None], list[tuple[str, Mutation]]] = {
    rules.cpus_are_exclusive: [
        ("half a CPU", half_a_cpu),
        ("a memory limit above the request", container("resources", "limits", to={"cpu": "6", "memory": "9Gi"})),
        ("a fixed number of shards", environment("SHARDS", "4")),
    ],
    rules.a_node_fits_exactly_one_pod: [
        ("all CPUs of a node", cpus("8")),
        ("two pods on a node", cpus("3")),
    ],
    rules.the_pod_runs_on_dedicated_nodes_only: [
        ("no toleration", pod("tolerations", [])),
        ("no taint", no_taint),
        ("nodes of another architecture", node_requirement("kubernetes.io/arch", "arm64", "amd64")),
        ("spot nodes", node_requirement("karpenter.sh/capacity-type", "spot")),
        ("a label that no node has", pod("nodeSelector", {"kubernetes.io/arch": "arm64", "inventory/dedicated": "yes"})),
    ],
    rules.the_container_has_no_privileges: [
        ("root", root),
        ("a writable root", container("securityContext", "readOnlyRootFilesystem", to=False)),
        ("a capability", container("securityContext", "capabilities", to={"drop": ["ALL"], "add": ["IPC_LOCK"]})),
        ("the host's network", pod("hostNetwork", True)),
        ("a token", pod("automountServiceAccountToken", True)),
    ],
    rules.the_seccomp_profile_allows_io_uring: [
        ("a profile that no node has", another_profile),
        ("a profile without io_uring_enter", no_rings),
    ],
    rules.the_grace_period_covers_the_drain: [
        ("a grace period of 40 s", pod("terminationGracePeriodSeconds", 40)),
        ("a longer SHUTDOWN_GRACE", environment("SHUTDOWN_GRACE", "2m")),
        ("a command without a shell", container("lifecycle", "preStop", to={"exec": {"command": ["sleep", "10"]}})),
    ],
    rules.the_watchdog_exits_before_the_liveness_probe_fails: [
        ("a watchdog limit of one minute", environment("SHARD_STALL_EXIT", "60s")),
        ("a short liveness probe", container("livenessProbe", "periodSeconds", to=1)),
    ],
    rules.ports_are_consistent: [
        ("another GRPC_PORT", environment("GRPC_PORT", "9000")),
        ("ingress to the admin port", admin_in_ingress),
        ("a Service with another port", service("inventory-api", lambda s: s["spec"]["ports"][0].update(port=80))),
    ],
    rules.selectors_match_the_pods: [
        ("other labels", lone_label),
        ("a Service that selects no pod", service("inventory-api", lambda s: s["spec"].update(selector={"app": "x"}))),
    ],
    rules.a_drain_is_never_blocked: [
        ("maxUnavailable 0", spec("PodDisruptionBudget", "maxUnavailable", 0)),
        ("minAvailable", spec("PodDisruptionBudget", "minAvailable", 3)),
        ("one replica", spec("Deployment", "replicas", 1)),
    ],
    rules.a_zone_may_fail: [
        ("two replicas", spec("Deployment", "replicas", 2)),
        ("two pods more in one zone", zones("maxSkew", 2)),
        ("zones that block a rollout", zones("whenUnsatisfiable", "DoNotSchedule")),
        ("three pods that join at a time", rolling("maxSurge", 3)),
        ("a fixed number of members", environment("MEMBERSHIP", "static:0/3")),
    ],
    rules.clients_can_balance: [
        ("addresses of pods that drain", service("inventory-api-headless", lambda s: s["spec"].update(publishNotReadyAddresses=True))),
        ("no headless Service", service("inventory-api-headless", lambda s: s["spec"].pop("clusterIP"))),
    ],
    rules.each_pod_is_scraped_once: [
        ("both Services scraped", service("inventory-api-headless",
                                          lambda s: s["metadata"]["labels"].update({"inventory/scrape": "true"}))),
        ("an unknown port", spec("ServiceMonitor", "endpoints", [{"port": "web"}])),
    ],
    rules.the_admin_port_is_on_loopback: [
        ("the admin port on all addresses", environment("ADMIN_HOST", "0.0.0.0")),
    ],
    rules.tls_files_are_mounted_and_probes_have_no_tls: [
        ("a TLS file that nothing mounts", environment("TLS_CERT_FILE", "/etc/inventory/other/tls.crt")),
    ],
    rules.variables_are_known_and_not_secret: [
        ("a mistyped variable", environment("DDB_TIMEOUTS", "1s")),
        ("a secret", environment("AWS_SECRET_ACCESS_KEY", "x")),
    ],
    rules.egress_covers_all_dependencies: [
        ("no egress to DynamoDB", no_dynamodb),
        ("no egress to the collector", no_collector_port),
        ("egress to instance metadata", no_metadata_wall),
        ("DynamoDB over IPv4 only", without_address("::/0")),
        ("DynamoDB over IPv6 only", without_address("0.0.0.0/0")),
        ("the Pod Identity agent over IPv4 only", without_address("fd00:ec2::23/128")),
        ("DNS of pods only", dns_of_pods_only),
        ("a host name that is not fully qualified", environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.monitoring:4317")),
    ],
    rules.the_role_has_least_privilege: [
        ("a wildcard", action("dynamodb:*")),
        ("an additional action", action("dynamodb:DeleteTable")),
        ("a missing action", no_condition_check),
        ("another table", environment("DDB_TABLE_SEATS", "seats")),
    ],
    rules.the_role_trusts_one_service_account: [
        ("any service account", any_account),
        ("another service account", pod("serviceAccountName", "default")),
    ],
    rules.the_image_tag_is_fixed: [
        ("latest", container("image", to="inventory-api:latest")),
    ],
}


def mount_single_file(c: Cluster) -> None:
    c.container()["volumeMounts"][0]["subPath"] = "tls.crt"


def rename_certificate_secret(c: Cluster) -> None:
    c.one("Certificate")["spec"]["secretName"] = "other"


# Mutations of the overlay with TLS.
TLS_MUTATIONS: list[tuple[str, Mutation]] = [
    ("a path outside the mount", environment("TLS_KEY_FILE", "/etc/inventory/tls.key")),
    ("a single file mounted", mount_single_file),
    ("no Certificate for the secret", rename_certificate_secret),
    ("a gRPC probe", container("startupProbe", to={"grpc": {"port": 8080}})),
]
