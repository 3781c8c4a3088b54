"""The cases of tests/k8s/run.sh. Must not live here: what the manifests must say (rules.py), how the rules are
broken on purpose (broken.py)."""

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
from broken import BREAKS
from rules import DEPLOY, RULES, Cluster, Wrong

K8S = DEPLOY / "k8s"
OVERLAYS = [K8S / "base", K8S / "overlays" / "eks"]
# The oldest and the newest that the manifests are for: preStop.sleep is on by default since 1.30.
VERSIONS = ["1.30", "1.33"]
# Of resources that are not Kubernetes' own there are no schemas; the rules read them.
CORE = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")
# Failed on purpose, each with its reason. One that no longer fails has to go from here.
MEANT = {
    "CKV_K8S_43": "a digest names one build; which, is said by the kustomization of who deploys",
    "CKV_K8S_15": "IfNotPresent: a node that has the image starts when the registry is away",
    "CKV_K8S_31": "checkov knows RuntimeDefault only, which denies io_uring; ours is a Localhost profile",
}


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, capture_output=True, timeout=300, check=False, **more)


def render(folder: Path) -> str:
    done = run(["kubectl", "kustomize", str(folder)])
    if done.returncode:
        raise Wrong(f"kubectl kustomize {folder.relative_to(DEPLOY.parent)}: {done.stderr.strip()}")
    return done.stdout


def known_variables(server: Path | None) -> set[str] | None:
    """What `serve --help` names, and what the AWS SDK and OpenTelemetry read by themselves."""
    if server is None:
        return None
    said = run([str(server), "serve", "-h"]).stdout
    found = set(re.findall(r"^ {4}([A-Z][A-Z0-9_]+) ", said, re.MULTILINE))
    if len(found) < 20:
        raise Wrong(f"{server} serve -h names {len(found)} variables: has its help changed?")
    return found


def cluster(server: Path | None) -> Cluster:
    def read(name: str) -> Any:
        return json.loads((K8S / "overlays" / "eks" / "iam" / name).read_text())

    objects = [o for o in yaml.safe_load_all(render(OVERLAYS[1])) if o]
    return Cluster(
        objects=objects,
        policies={name: read(name) for name in ("serve.json", "operate.json")},
        trusts={name: read(name) for name in ("trust-irsa.json", "trust-pod-identity.json")},
        node_config=yaml.safe_load((DEPLOY / "nodes" / "node-config.yaml").read_text()),
        seccomp=json.loads((DEPLOY / "seccomp" / "inventory-api.json").read_text()),
        prepare=(DEPLOY / "nodes" / "prepare.sh").read_text(),
        known_variables=known_variables(server),
    )


def validates(folder: Path, version: str, break_it: bool = False) -> str:
    """Every object of Kubernetes' own against its schema, unknown fields being errors."""
    objects = [o for o in yaml.safe_load_all(render(folder)) if o and o["apiVersion"] in CORE]
    if break_it:
        next(o for o in objects if o["kind"] == "Deployment")["spec"]["replica"] = 3
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "all.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        tool = Path(sys.executable).parent / "kubernetes-validate"
        done = run([str(tool), "--strict", "-k", version, str(file)])
    if done.returncode:
        raise Wrong((done.stdout + done.stderr).strip())
    return f"{len(objects)} objects"


def checkov(break_it: bool = False) -> str:
    text = render(OVERLAYS[1])
    if break_it:
        text = text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "all.yaml"
        file.write_text(text)
        tool = Path(sys.executable).parent / "checkov"
        done = run([str(tool), "-f", str(file), "--framework", "kubernetes", "-o", "json", "--compact", "--quiet",
                    "--skip-download"])
    try:
        told = json.loads(done.stdout)
    except ValueError as error:
        raise Wrong(f"checkov printed no JSON: {(done.stdout + done.stderr)[-400:]}") from error
    failed = {f["check_id"]: f for f in told["results"]["failed_checks"]}
    for name in failed.keys() - MEANT.keys():
        raise Wrong(f"{name} {failed[name]['check_name']}: {failed[name]['resource']}")
    for name in MEANT.keys() - failed.keys():
        raise Wrong(f"{name} does not fail any more: take it from the list")
    passed = told["summary"]["passed"]
    if passed < 50:
        raise Wrong(f"checkov looked at little: {passed} passed")
    return f"{passed} passed, {len(MEANT)} fail as meant: {', '.join(sorted(MEANT))}"


def notices(call: Callable[[], Any]) -> str:
    """Wants `call` to find something wrong."""
    try:
        call()
    except Wrong as wrong:
        return str(wrong).splitlines()[-1][:110]
    raise Wrong("it did not notice")


def cases(whole: Cluster, self_test: bool) -> list[tuple[str, Callable[[], Any]]]:
    if not self_test:
        found: list[tuple[str, Callable[[], Any]]] = [
            (f"{folder.name} is valid for Kubernetes {version}", lambda f=folder, v=version: validates(f, v))
            for folder in OVERLAYS
            for version in VERSIONS
        ]
        found.append(("checkov", checkov))
        return found + [(rule.__name__.replace("_", " "), lambda r=rule: r(whole)) for rule in RULES]
    found = [
        ("an unknown field is found", lambda: notices(lambda: validates(OVERLAYS[1], VERSIONS[-1], True))),
        ("checkov finds a weakness", lambda: notices(lambda: checkov(True))),
    ]
    for rule in RULES:
        if rule not in BREAKS:
            raise SystemExit(f"broken.py has nothing for {rule.__name__}")
        for what, damage in BREAKS[rule]:

            def play(rule: Callable[[Cluster], None] = rule, damage: Callable[[Cluster], None] = damage) -> str:
                hurt = copy.deepcopy(whole)
                damage(hurt)
                return notices(lambda: rule(hurt))

            found.append((f"noticed: {what}", play))
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
        print("SKIP manifest test: no server is built, so its variables are not known (cargo build)")
        skipped += 1
    for name, call in cases(cluster(server), args.self_test):
        if args.only not in name:
            continue
        try:
            told = call()
        except (Wrong, KeyError, TypeError, StopIteration, subprocess.TimeoutExpired) as wrong:
            failed += 1
            print(f"FAIL {name}\n     {type(wrong).__name__}: {wrong}", flush=True)
        else:
            passed += 1
            print(f"ok   {name}{f': {told}' if told else ''}", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
