"""Runs third-party gRPC clients against a new server. Started by run.sh."""

import argparse
import pathlib

from harness import ROOT, Server, Suite, build, generate


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="server binary; default: a dev build")
    parser.add_argument("--slow", action="store_true", help="also run the case that takes 45 s")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def main():
    args = arguments()
    binary = args.binary or build(args.target)
    generate(args.target / "blackbox-generated", ["inventory/v1"])

    # Imported here because they import the generated modules.
    import buf_cases
    import grpcio_cases

    suite = Suite()
    with Server(binary.resolve(), args.target / "blackbox-server.log") as server:
        idle = grpcio_cases.KeepaliveChannel(server) if args.slow else None
        grpcio_cases.play(suite, server)
        buf_cases.play(suite, server, ROOT / "README.md")
        suite.case("keepalive pings every 10 s without calls are accepted")(
            lambda: grpcio_cases.keepalive(idle)
        )
        suite.case("SIGTERM ends the server with exit code 0")(server.stop)
    suite.finish()


if __name__ == "__main__":
    main()
