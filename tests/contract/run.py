"""Plays the Reservation API and its worker against a fresh server. Started by run.sh."""

import argparse
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "blackbox"))

from harness import ROOT, Server, Skip, Suite, build, generate

# Longer than two of the client's keepalive pings.
IDLE_SECONDS = 65


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, help="default: cargo build's")
    parser.add_argument("--slow", action="store_true", help="also what takes 65 s")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with TEXT in their name")
    parser.add_argument("--target", type=pathlib.Path, default=ROOT / "target")
    return parser.parse_args()


def idle(server):
    """The real client's channel, without a call for as long as it sends two pings."""
    import grpc
    from clients import CHANNEL, ContractB
    from stage import fresh

    states = []
    with grpc.insecure_channel(server.address, CHANNEL) as channel:
        channel.subscribe(states.append, try_to_connect=True)
        grpc.channel_ready_future(channel).result(timeout=30)
        time.sleep(IDLE_SECONDS)
        ready = grpc.ChannelConnectivity.READY
        after = states[states.index(ready) + 1 :]
        assert not after, f"the connection did not stay: {after}"
        answer = ContractB(channel).check(fresh("nowhere"), quantity=1)
        assert answer.HasField("error"), answer


def main():
    args = arguments()
    binary = (args.binary or build(args.target)).resolve()
    generate(
        args.target / "contract-generated", ["inventory/v1", "reservation/v1", "common/v1"]
    )

    # Only now: these import the generated modules.
    import sequences
    import transitions
    from stage import Stage

    suite = Suite(args.only)
    with Server(binary, args.target / "contract-server.log") as server:
        stage = Stage(server)
        sequences.play(suite, stage)
        transitions.play(suite, stage)

        @suite.case("the client's channel stays through two pings without a call")
        def _():
            if not args.slow:
                raise Skip("takes 65 s; run with --slow")
            idle(server)

        stage.close()
        suite.case("SIGTERM ends the server with exit code 0")(server.stop)
    log = args.target / "contract-server-reject.log"
    with Server(binary, log, LATE_COMMIT="reject") as server:
        stage = Stage(server)
        sequences.rejects_late(suite, stage)
        stage.close()
    suite.finish()


if __name__ == "__main__":
    main()
