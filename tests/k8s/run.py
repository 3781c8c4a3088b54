"""The cases of tests/k8s/run.sh. The rules are in rules.py, the mutations of the self-test in mutations.py."""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import yaml
import rules
from mutations import MUTATIONS, TLS_MUTATIONS
from rules import DEPLOY, RULES, Cluster, RuleViolation

K8S = DEPLOY / "k8s"
OVERLAYS = [K8S / "base", K8S / "overlays" / "eks", K8S / "overlays" / "eks-tls"]
# Oldest and newest supported version; preStop.sleep is enabled by default since 1.30.
VERSIONS = ["1.30", "1.33"]
# Kubernetes has schemas for its own resources only; custom resources are checked by the rules.
CORE = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")
# Accepted checkov failures with reasons. An entry that no longer fails is an error.
ACCEPTED = {
    "CKV_K8S_43": "image digests are set by the kustomization of the deployer",
    "CKV_K8S_15": "IfNotPresent lets a node with the image start while the registry is unavailable",
    "CKV_K8S_31": "checkov accepts RuntimeDefault only, which denies io_uring; the pod uses a Localhost profile",
}


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, capture_output=True, timeout=300, check=False, **more)


def render(folder: Path) -> str:
    done = run(["kubectl", "kustomize", str(folder)])
    if done.returncode:
        raise RuleViolation(f"kubectl kustomize {folder.relative_to(DEPLOY.parent)}: {done.stderr.strip()}")
    return done.stdout


def known_variables(server: Path | None) -> set[str] | None:
    """All variables that `serve --help` lists, including those of the AWS SDK and OpenTelemetry."""
    if server is None:
        return None
    said = run([str(server), "serve", "-h"]).stdout
    found = set(re.findall(r"^ {4}([A-Z][A-Z0-9_]+) ", said, re.MULTILINE))
    if len(found) < 20:
        raise RuleViolation(f"{server} serve -h lists only {len(found)} variables: did the help format change?")
    return found


def cluster(server: Path | None, overlay: Path) -> Cluster:
    def read(name: str) -> Any:
        return json.loads((K8S / "overlays" / "eks" / "iam" / name).read_text())

    objects = [o for o in yaml.safe_load_all(render(overlay)) if o]
    return Cluster(
        objects=objects,
        policies={name: read(name) for name in ("serve.json", "operate.json")},
        trusts={name: read(name) for name in ("trust-irsa.json", "trust-pod-identity.json")},
        node_config=yaml.safe_load((DEPLOY / "nodes" / "node-config.yaml").read_text()),
        seccomp=json.loads((DEPLOY / "seccomp" / "inventory-api.json").read_text()),
        prepare=(DEPLOY / "nodes" / "prepare.sh").read_text(),
        known_variables=known_variables(server),
    )


def validate(folder: Path, version: str, mutate: bool = False) -> str:
    """Validates every core object against its schema; unknown fields are errors."""
    objects = [o for o in yaml.safe_load_all(render(folder)) if o and o["apiVersion"] in CORE]
    if mutate:
        next(o for o in objects if o["kind"] == "Deployment")["spec"]["replica"] = 3
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "all.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        tool = Path(sys.executable).parent / "kubernetes-validate"
        done = run([str(tool), "--strict", "-k", version, str(file)])
    if done.returncode:
        raise RuleViolation((done.stdout + done.stderr).strip())
    return f"{len(objects)} objects"


def checkov(mutate: bool = False) -> str:
    text = render(OVERLAYS[1])
    if mutate:
        text = text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "all.yaml"
        file.write_text(text)
        tool = Path(sys.executable).parent / "checkov"
        done = run([str(tool), "-f", str(file), "--framework", "kubernetes", "-o", "json", "--compact", "--quiet",
                    "--skip-download"])
    try:
        report = json.loads(done.stdout)
    except ValueError as error:
        raise RuleViolation(f"checkov printed no JSON: {(done.stdout + done.stderr)[-400:]}") from error
    failed = {f["check_id"]: f for f in report["results"]["failed_checks"]}
    for name in failed.keys() - ACCEPTED.keys():
        raise RuleViolation(f"{name} {failed[name]['check_name']}: {failed[name]['resource']}")
    for name in ACCEPTED.keys() - failed.keys():
        raise RuleViolation(f"{name} no longer fails: remove it from ACCEPTED")
    passed = report["summary"]["passed"]
    if passed < 50:
        raise RuleViolation(f"checkov ran too few checks: {passed} passed")
    return f"{passed} passed, {len(ACCEPTED)} accepted failures: {', '.join(sorted(ACCEPTED))}"


def expect_violation(call: Callable[[], Any]) -> str:
    """Fails unless `call` raises a RuleViolation."""
    try:
        call()
    except RuleViolation as wrong:
        return str(wrong).splitlines()[-1][:110]
    raise RuleViolation("no violation detected")


def cases(whole: Cluster, with_tls: Cluster, self_test: bool) -> list[tuple[str, Callable[[], Any]]]:
    if not self_test:
        found: list[tuple[str, Callable[[], Any]]] = [
            (f"{folder.name} is valid for Kubernetes {version}", lambda f=folder, v=version: validate(f, v))
            for folder in OVERLAYS
            for version in VERSIONS
        ]
        found.append(("checkov", checkov))
        found += [(rule.__name__.replace("_", " "), lambda r=rule: r(whole)) for rule in RULES]
        return found + [(f"{rule.__name__.replace('_', ' ')} (eks-tls)", lambda r=rule: r(with_tls)) for rule in RULES]
    found = [
        ("an unknown field is detected", lambda: expect_violation(lambda: validate(OVERLAYS[1], VERSIONS[-1], True))),
        ("checkov detects a weakness", lambda: expect_violation(lambda: checkov(True))),
    ]
    tls = rules.tls_files_are_mounted_and_probes_have_no_tls
    for what, mutate in TLS_MUTATIONS:

        def play_tls(mutate: Callable[[Cluster], None] = mutate) -> str:
            mutant = copy.deepcopy(with_tls)
            mutate(mutant)
            return expect_violation(lambda: tls(mutant))

        found.append((f"detected with TLS: {what}", play_tls))
    for rule in RULES:
        if rule not in MUTATIONS:
            raise SystemExit(f"mutations.py has no mutation for {rule.__name__}")
        for what, mutate in MUTATIONS[rule]:

            def play(rule: Callable[[Cluster], None] = rule, mutate: Callable[[Cluster], None] = mutate) -> str:
                mutant = copy.deepcopy(whole)
                mutate(mutant)
                return expect_violation(lambda: rule(mutant))

            found.append((f"detected: {what}", play))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/k8s/run.sh")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--only", default="")
    try:
        args = parser.parse_args()
    except SystemExit as exit_:
        return 64 if exit_.code else 0
    built = [args.bin] if args.bin else [args.target / p / "inventory-api" for p in ("debug", "release")]
    server = next((b for b in built if b.is_file()), None)
    passed = failed = skipped = 0
    if server is None:
        print("SKIP manifest test: no server binary, so its variables cannot be checked (cargo build)")
        skipped += 1
    for name, call in cases(cluster(server, OVERLAYS[1]), cluster(server, OVERLAYS[2]), args.self_test):
        if args.only not in name:
            continue
        try:
            result = call()
        except (RuleViolation, KeyError, TypeError, StopIteration, subprocess.TimeoutExpired) as wrong:
            failed += 1
            print(f"FAIL {name}\n     {type(wrong).__name__}: {wrong}", flush=True)
        else:
            passed += 1
            print(f"ok   {name}{f': {result}' if result else ''}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
