"""Plays foreign gRPC clients against a fresh server and counts what held. Started by run.sh."""

import argparse
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="default: cargo build's")
    parser.add_argument("--slow", action="store_true", help="also what takes 45 s")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def generate(out):
    """Compiles the project's contracts for Python, from the files as they are now."""
    from grpc_tools import protoc

    out.mkdir(parents=True, exist_ok=True)
    protos = ROOT / "proto"
    files = [str(p) for p in sorted(protos.glob("inventory/v1/*.proto"))]
    failed = protoc.main(
        ["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    )
    if failed:
        sys.exit("protoc from grpcio-tools refuses the contracts")
    sys.path.insert(0, str(out))


def main():
    args = arguments()
    binary = args.binary
    if binary is None:
        subprocess.run(
            ["cargo", "build", "--quiet", "--bin", "inventory-api"], cwd=ROOT, check=True
        )
        binary = args.target / "debug" / "inventory-api"
    generate(args.target / "blackbox-generated")

    # Only now: these import the generated modules.
    import buf_cases
    import grpcio_cases
    from harness import Server, Suite

    suite = Suite()
    with Server(binary.resolve(), args.target / "blackbox-server.log") as server:
        patient = grpcio_cases.PatientChannel(server) if args.slow else None
        grpcio_cases.play(suite, server)
        buf_cases.play(suite, server, ROOT / "README.md")
        suite.case("keepalive pings every 10 s without calls are welcome")(
            lambda: grpcio_cases.keepalive(patient)
        )
        suite.case("SIGTERM ends the server with exit code 0")(server.stop)
    suite.finish()


if __name__ == "__main__":
    main()
