"""For each rule of rules.py, what must make it speak. Must not live here: the rules."""

from __future__ import annotations

from typing import Callable

import rules
from rules import Cluster

Damage = Callable[[Cluster], None]


def environment(name: str, value: str) -> Damage:
    """A variable of the ConfigMap."""

    def damage(c: Cluster) -> None:
        c.one("ConfigMap")["data"][name] = value

    return damage


def container(*path: str, to: object) -> Damage:
    def damage(c: Cluster) -> None:
        at = c.container()
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = to

    return damage


def pod(name: str, to: object) -> Damage:
    def damage(c: Cluster) -> None:
        c.pod()["spec"][name] = to

    return damage


def spec(kind: str, name: str, to: object) -> Damage:
    def damage(c: Cluster) -> None:
        c.one(kind)["spec"][name] = to

    return damage


def wanted_of_nodes(key: str, *values: str) -> Damage:
    def damage(c: Cluster) -> None:
        for one in c.one("NodePool")["spec"]["template"]["spec"]["requirements"]:
            if one["key"] == key:
                one["values"] = list(values)

    return damage


def service(name: str, change: Callable[[dict], None]) -> Damage:
    def damage(c: Cluster) -> None:
        change(next(s for s in c.all("Service") if s["metadata"]["name"] == name))

    return damage


def half_a_cpu(c: Cluster) -> None:
    for part in ("requests", "limits"):
        c.container()["resources"][part]["cpu"] = "5500m"


def cpus(number: str) -> Damage:
    def damage(c: Cluster) -> None:
        for part in ("requests", "limits"):
            c.container()["resources"][part]["cpu"] = number

    return damage


def no_taint(c: Cluster) -> None:
    c.one("NodePool")["spec"]["template"]["spec"]["taints"] = []


def another_profile(c: Cluster) -> None:
    c.pod()["spec"]["securityContext"]["seccompProfile"]["localhostProfile"] = "other.json"


def no_rings(c: Cluster) -> None:
    for rule in c.seccomp["syscalls"]:
        rule["names"] = [n for n in rule["names"] if n != "io_uring_enter"]


def root(c: Cluster) -> None:
    c.pod()["spec"]["securityContext"]["runAsUser"] = 0


def action(name: str) -> Damage:
    def damage(c: Cluster) -> None:
        c.policies["serve.json"]["Statement"][0]["Action"].append(name)

    return damage


def no_condition_check(c: Cluster) -> None:
    c.policies["serve.json"]["Statement"][0]["Action"].remove("dynamodb:ConditionCheckItem")


def any_account(c: Cluster) -> None:
    equals = c.trusts["trust-irsa.json"]["Statement"][0]["Condition"]["StringEquals"]
    for name in list(equals):
        if name.endswith(":sub"):
            equals[name] = "system:serviceaccount:inventory:*"


def no_metadata_wall(c: Cluster) -> None:
    for rule in c.one("NetworkPolicy")["spec"]["egress"]:
        for to in rule["to"]:
            to.get("ipBlock", {}).pop("except", None)


def no_dynamodb(c: Cluster) -> None:
    policy = c.one("NetworkPolicy")["spec"]
    policy["egress"] = [r for r in policy["egress"] if all(p["port"] != 443 for p in r["ports"])]


def admin_in_ingress(c: Cluster) -> None:
    c.one("NetworkPolicy")["spec"]["ingress"][0]["ports"].append({"port": 8081})


def lone_label(c: Cluster) -> None:
    c.pod()["metadata"]["labels"] = {"app": "inventory-api"}


def no_collector_port(c: Cluster) -> None:
    policy = c.one("NetworkPolicy")["spec"]
    policy["egress"] = [r for r in policy["egress"] if all(p["port"] != 4317 for p in r["ports"])]


BREAKS: dict[Callable[[Cluster], None], list[tuple[str, Damage]]] = {
    rules.cpus_are_whole_and_guaranteed: [
        ("half a CPU", half_a_cpu),
        ("more memory as a limit", container("resources", "limits", to={"cpu": "6", "memory": "9Gi"})),
        ("a number of shards", environment("SHARDS", "4")),
    ],
    rules.a_node_has_room_for_one_pod_and_not_two: [
        ("all CPUs of a node", cpus("8")),
        ("two pods on a node", cpus("3")),
    ],
    rules.the_pod_lands_on_its_nodes_only: [
        ("no toleration", pod("tolerations", [])),
        ("no taint", no_taint),
        ("machines of another architecture", wanted_of_nodes("kubernetes.io/arch", "arm64", "amd64")),
        ("spot machines", wanted_of_nodes("karpenter.sh/capacity-type", "spot")),
        ("a label that no node has", pod("nodeSelector", {"kubernetes.io/arch": "arm64", "inventory/dedicated": "yes"})),
    ],
    rules.the_container_may_nothing: [
        ("root", root),
        ("a root that can be written", container("securityContext", "readOnlyRootFilesystem", to=False)),
        ("a capability", container("securityContext", "capabilities", to={"drop": ["ALL"], "add": ["IPC_LOCK"]})),
        ("the host's network", pod("hostNetwork", True)),
        ("a token", pod("automountServiceAccountToken", True)),
    ],
    rules.io_uring_is_allowed_on_every_node: [
        ("a profile that no node has", another_profile),
        ("a profile without io_uring_enter", no_rings),
    ],
    rules.a_stop_has_its_time: [
        ("a grace of 40 s", pod("terminationGracePeriodSeconds", 40)),
        ("a longer SHUTDOWN_GRACE", environment("SHUTDOWN_GRACE", "2m")),
        ("a command without a shell", container("lifecycle", "preStop", to={"exec": {"command": ["sleep", "10"]}})),
    ],
    rules.the_watchdog_is_before_the_kubelet: [
        ("a watchdog of a minute", environment("SHARD_STALL_EXIT", "60s")),
        ("a quick liveness probe", container("livenessProbe", "periodSeconds", to=1)),
    ],
    rules.ports_are_the_same_everywhere: [
        ("another GRPC_PORT", environment("GRPC_PORT", "9000")),
        ("the admin port let in", admin_in_ingress),
        ("a Service with another port", service("inventory-api", lambda s: s["spec"]["ports"][0].update(port=80))),
    ],
    rules.selectors_find_the_pods: [
        ("other labels", lone_label),
        ("a Service that selects nobody", service("inventory-api", lambda s: s["spec"].update(selector={"app": "x"}))),
    ],
    rules.a_drain_is_never_blocked: [
        ("maxUnavailable 0", spec("PodDisruptionBudget", "maxUnavailable", 0)),
        ("minAvailable", spec("PodDisruptionBudget", "minAvailable", 3)),
        ("one replica", spec("Deployment", "replicas", 1)),
    ],
    rules.clients_can_balance: [
        ("no headless Service", service("inventory-api-headless", lambda s: s["spec"].pop("clusterIP"))),
    ],
    rules.figures_are_scraped_once: [
        ("both Services scraped", service("inventory-api-headless",
                                          lambda s: s["metadata"]["labels"].update({"inventory/scrape": "true"}))),
        ("a port that is not there", spec("ServiceMonitor", "endpoints", [{"port": "web"}])),
    ],
    rules.nobody_reaches_the_admin_port: [
        ("the admin port on all addresses", environment("ADMIN_HOST", "0.0.0.0")),
    ],
    rules.variables_are_known_and_no_secrets: [
        ("a mistyped variable", environment("DDB_TIMEOUTS", "1s")),
        ("a key", environment("AWS_SECRET_ACCESS_KEY", "x")),
    ],
    rules.the_pod_reaches_what_it_needs: [
        ("no way to DynamoDB", no_dynamodb),
        ("no way to the collector", no_collector_port),
        ("the machine's metadata", no_metadata_wall),
        ("a short name", environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.monitoring:4317")),
    ],
    rules.the_role_is_the_least: [
        ("a wildcard", action("dynamodb:*")),
        ("one action more", action("dynamodb:DeleteTable")),
        ("one action less", no_condition_check),
        ("another table", environment("DDB_TABLE_SEATS", "seats")),
    ],
    rules.the_role_is_this_accounts_alone: [
        ("any service account", any_account),
        ("another service account", pod("serviceAccountName", "default")),
    ],
    rules.the_image_is_one_build: [
        ("latest", container("image", to="inventory-api:latest")),
    ],
}
