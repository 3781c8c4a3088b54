"""Runs the call sequences of the Reservation API and its worker against a new server. Started by run.sh."""

import argparse
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blackbox"))

from harness import ROOT, Server, Skip, Suite, build, generate

# Longer than two keepalive periods of the client.
IDLE_SECONDS = 65


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="server binary; default: a dev build")
    parser.add_argument("--slow", action="store_true", help="also run the case that takes 65 s")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the cases whose name contains TEXT")
    parser.add_argument("--store", metavar="URL", help="DynamoDB-compatible service to serve from; default: in memory")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def idle(server):
    """Keeps the channel of the real client without calls for two keepalive pings."""
    import grpc
    from clients import CHANNEL, ReservationClient
    from fixture import fresh

    states = []
    with grpc.insecure_channel(server.address, CHANNEL) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        grpc.channel_ready_future(channel).result(timeout=30)
        time.sleep(IDLE_SECONDS)
        ready = grpc.ChannelConnectivity.READY
        after = states[states.index(ready) + 1 :]
        assert not after, f"the connection changed state: {after}"
        answer = ReservationClient(channel).check(fresh("nowhere"), quantity=1)
        assert answer.HasField("error"), answer


def main():
    args = arguments()
    binary = (args.binary or build(args.target)).resolve()
    generate(
        args.target / "contract-generated", ["inventory/v1", "reservation/v1", "common/v1"]
    )

    # Imported here because they import the generated modules.
    import sequences
    import transitions
    from fixture import Fixture

    suite = Suite(args.only)
    with Server(binary, args.target / "contract-server.log", store=args.store) as server:
        fixture = Fixture(server)
        sequences.play(suite, fixture)
        transitions.play(suite, fixture)

        @suite.case("the client channel survives two keepalive pings without calls")
        def _():
            if not args.slow:
                raise Skip("takes 65 s; run with --slow")
            idle(server)

        fixture.close()
        suite.case("SIGTERM ends the server with exit code 0")(server.stop)
    log = args.target / "contract-server-reject.log"
    with Server(binary, log, store=args.store, LATE_COMMIT="reject") as server:
        fixture = Fixture(server)
        sequences.rejects_late(suite, fixture)
        fixture.close()
    suite.finish()


if __name__ == "__main__":
    main()
