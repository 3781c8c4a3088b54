"""Checks an SBOM of deploy/sbom.sh against `cargo metadata` and Cargo.lock.

  sbom.py [--self-test] SBOM METADATA

--self-test damages the SBOM in several ways and expects a problem for each of them.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "inventory-api"
# Linked, but no crates.
OTHERS = {"glibc", "rust-std"}


def checksums() -> dict[tuple[str, str], str]:
    pattern = r'name = "(.*)"\nversion = "(.*)"\n(?:source = .*\n)?(?:checksum = "(.*)"\n)?'
    return {(name, version): digest for name, version, digest in re.findall(pattern, (ROOT / "Cargo.lock").read_text())}


def problems(sbom: dict, metadata: dict) -> Iterator[str]:
    if (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) != ("CycloneDX", "1.5", 1):
        yield "not a CycloneDX 1.5 document"
    program = sbom["metadata"]["component"]
    if (program["type"], program["name"]) != ("application", PROGRAM):
        yield f"the program is {program['name']}"
    if str(ROOT) in json.dumps(sbom):
        yield "a path of this machine"
    locked = checksums()
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    found = {}
    for component in sbom["components"]:
        name, version = component["name"], component["version"]
        where = f"{name} {version}"
        if component["bom-ref"] in found:
            yield f"{where} is listed twice"
        found[component["bom-ref"]] = component
        if component["purl"] != component["bom-ref"] or not component["purl"].endswith(f"/{name}@{version}"):
            yield f"{where}: purl {component['purl']}"
        if name in OTHERS:
            continue
        if (name, version) not in packages:
            yield f"{where} is not in Cargo.lock"
            continue
        package = packages[name, version]
        if any("proc-macro" in target["kind"] for target in package["targets"]):
            yield f"{where} is a macro, which is not linked"
        expected = re.sub(r" */ *", " OR ", package["license"])
        if component.get("licenses") != [{"expression": expected}]:
            yield f"{where}: licence {component.get('licenses')}, expected {expected}"
        digests = [entry["content"] for entry in component.get("hashes", [])]
        if digests != [digest for digest in [locked[name, version]] if digest]:
            yield f"{where}: checksum {digests}"
    yield from missing(found, packages)
    yield from wrong_edges(sbom, found)


def missing(found: dict, packages: dict) -> Iterator[str]:
    names = {component["name"] for component in found.values()}
    for name in OTHERS - {"glibc"} - names:
        yield f"{name} is missing"
    for (of, _), package in packages.items():
        if of != PROGRAM and of not in names:
            continue
        for needed in package["dependencies"]:
            required = needed["kind"] is None and not needed["optional"] and needed["target"] is None
            kinds = [p["targets"] for (name, _), p in packages.items() if name == needed["name"]]
            is_macro = any("proc-macro" in target["kind"] for targets in kinds for target in targets)
            if required and not is_macro and needed["name"] not in names:
                yield f"{needed['name']}, which {of} needs, is missing"


def wrong_edges(sbom: dict, found: dict) -> Iterator[str]:
    edges = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    root = sbom["metadata"]["component"]["bom-ref"]
    known = {root, *found}
    for ref in {*edges, *(to for targets in edges.values() for to in targets)} - known:
        yield f"{ref} has edges and is not listed"
    reached, queue = {root}, [root]
    while queue:
        for to in edges.get(queue.pop(), []):
            if to not in reached:
                reached.add(to)
                queue.append(to)
    for ref in known - reached:
        if found[ref]["name"] not in OTHERS:
            yield f"nothing needs {ref}"


def self_test(sbom: dict, metadata: dict) -> Iterator[str]:
    def named(document: dict, name: str) -> dict:
        return next(component for component in document["components"] if component["name"] == name)

    def drop(document: dict, name: str) -> None:
        document["components"].remove(named(document, name))

    damages: dict[str, Callable[[dict], object]] = {
        "h2, which": lambda d: drop(d, "h2"),
        "rust-std is missing": lambda d: drop(d, "rust-std"),
        "h2 9.9.9 is not in": lambda d: named(d, "h2").update(version="9.9.9"),
        "listed twice": lambda d: d["components"].append(named(d, "h2")),
        "licence": lambda d: named(d, "h2").update(licenses=[{"expression": "GPL-3.0"}]),
        "checksum": lambda d: named(d, "h2")["hashes"][0].update(content="0"),
        "purl": lambda d: named(d, "h2").update(purl="pkg:cargo/h3@1"),
        "nothing needs": lambda d: d["dependencies"].clear(),
        "has edges and is not listed": lambda d: d["dependencies"].append({"ref": "pkg:cargo/x@1", "dependsOn": []}),
        "a path of": lambda d: named(d, "h2").update(description=str(ROOT)),
        "not a CycloneDX": lambda d: d.update(specVersion="1.4"),
    }
    for text, damage in damages.items():
        document = copy.deepcopy(sbom)
        damage(document)
        if not any(text in problem for problem in problems(document, metadata)):
            yield f"no problem with {text!r}"


def main() -> int:
    *options, sbom, metadata = sys.argv[1:]
    check = self_test if options == ["--self-test"] else problems
    found = list(check(json.loads(Path(sbom).read_text()), json.loads(Path(metadata).read_text())))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
