"""Cases with grpcio, Google's Python client, and its health, reflection and status packages."""

import json
import re
import threading
import time
import urllib.request
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from harness import Skip
from inventory.v1 import inventory_pb2 as pb
from inventory.v1 import inventory_pb2_grpc as pb_grpc

EVENT = "evt_2025_1001"
SERVICE = "inventory.v1.Inventory"
OTHER_SERVICE = "reservation.v1.InventoryService"
SECONDS = 10


def fresh():
    return f"bb-{uuid.uuid4().hex}"


def commit_of(reservation, event=EVENT, qty=1, **more):
    return pb.CommitReq(reservation_id=reservation, event_id=event, qty=qty, **more)


def expect_error(call, code):
    """The error of a call that must fail with `code`."""
    try:
        answer = call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        return error
    raise AssertionError(f"returned {answer!r} instead of {code}")


def detail(error, kind):
    """The error detail of this type in grpc-status-details-bin."""
    status = rpc_status.from_call(error)
    assert status is not None, "no grpc-status-details-bin"
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            unpacked = kind()
            packed.Unpack(unpacked)
            return unpacked
    raise AssertionError(f"no {kind.DESCRIPTOR.name} in {[d.type_url for d in status.details]}")


def expect_reason(error, reason, **metadata):
    info = detail(error, error_details_pb2.ErrorInfo)
    assert info.reason == reason, f"{info.reason} instead of {reason}"
    assert info.domain, "ErrorInfo without a domain"
    for key, value in metadata.items():
        assert info.metadata[key] == value, f"{key} is {info.metadata[key]!r}"


def play(suite, server):
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        stub = pb_grpc.InventoryStub(channel)
        reflection(suite, channel)
        commits(suite, server, stub)
        rejections(suite, stub)
        retries(suite, server)
        protocol(suite, server, channel, stub)
        deadlines(suite, server, stub)
        health(suite, server, channel)


def reflection(suite, channel):
    @suite.case("reflection (v1alpha, grpcio) lists the service and its methods")
    def _():
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {SERVICE, OTHER_SERVICE, "grpc.health.v1.Health"} <= services, services
        assert "inventory.v1.InventoryAdmin" not in services, "the admin service must not be on this port"
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        names = {method.name for method in service.methods}
        assert names == {
            "CheckAvailability",
            "CommitReservation",
            "ReleaseHold",
            "PlaceHold",
            "GetReservation",
        }, names


def commits(suite, server, stub):
    @suite.case("CheckAvailability returns available")
    def _():
        answer = stub.CheckAvailability(pb.CheckReq(event_id=EVENT, qty=2), timeout=SECONDS)
        assert answer.available and not answer.unavailable_seats

    @suite.case("a commit is confirmed, and its retry returns the same order_id")
    def _():
        call = commit_of(fresh(), qty=2, payment_intent_id="pi_1")
        first = stub.CommitReservation(call, timeout=SECONDS)
        assert first.status == "CONFIRMED", first
        assert first.order_id.startswith("ord_") and len(first.order_id) >= 4 + 24, first
        again = stub.CommitReservation(call, timeout=SECONDS)
        assert again == first, f"{again} after {first}"

    @suite.case("a retry on another connection returns the same order_id")
    def _():
        call = commit_of(fresh())
        first = stub.CommitReservation(call, timeout=SECONDS)
        for _ in range(8):
            # Without a local subchannel pool grpcio shares the connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(server.address, options=options) as other:
                again = pb_grpc.InventoryStub(other).CommitReservation(call, timeout=SECONDS)
            assert again == first, f"{again} after {first}"

    @suite.case("sixteen concurrent duplicates return one order_id and take the stock once")
    def _():
        event = fresh()
        server.command("event", "create", event, "--total", "100")
        call = commit_of(fresh(), event=event, qty=3)
        calls = [stub.CommitReservation.future(call, timeout=SECONDS) for _ in range(16)]
        orders = {call.result().order_id for call in calls}
        assert len(orders) == 1, orders
        assert stock(server, event) == (100, 97, 3)

    @suite.case("a small event sells out: ABORTED, INSUFFICIENT_INVENTORY")
    def _():
        event = fresh()
        server.command("event", "create", event, "--total", "3")
        stub.CommitReservation(commit_of(fresh(), event=event, qty=2), timeout=SECONDS)
        late = commit_of(fresh(), event=event, qty=2)
        error = expect_error(
            lambda: stub.CommitReservation(late, timeout=SECONDS), grpc.StatusCode.ABORTED
        )
        expect_reason(error, "INSUFFICIENT_INVENTORY", event_id=event)
        stub.CommitReservation(commit_of(fresh(), event=event, qty=1), timeout=SECONDS)
        answer = stub.CheckAvailability(pb.CheckReq(event_id=event, qty=1), timeout=SECONDS)
        assert not answer.available
        assert stock(server, event) == (3, 0, 3)


def stock(server, event):
    shown = json.loads(server.command("event", "show", event, "--json"))
    return tuple(int(shown[name]) for name in ("total", "remaining", "confirmed"))


def rejections(suite, stub):
    @suite.case("release after commit: FAILED_PRECONDITION, RESERVATION_COMMITTED")
    def _():
        reservation = fresh()
        stub.CommitReservation(commit_of(reservation), timeout=SECONDS)
        release = pb.ReleaseReq(reservation_id=reservation, event_id=EVENT, qty=1)
        error = expect_error(
            lambda: stub.ReleaseHold(release, timeout=SECONDS),
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        expect_reason(error, "RESERVATION_COMMITTED", reservation_id=reservation)

    @suite.case("commit after release: FAILED_PRECONDITION, RESERVATION_RELEASED")
    def _():
        reservation = fresh()
        release = pb.ReleaseReq(reservation_id=reservation, event_id=EVENT, qty=1)
        for _ in range(2):
            assert stub.ReleaseHold(release, timeout=SECONDS).status == "RELEASED"
        error = expect_error(
            lambda: stub.CommitReservation(commit_of(reservation), timeout=SECONDS),
            grpc.StatusCode.FAILED_PRECONDITION,
        )
        expect_reason(error, "RESERVATION_RELEASED", reservation_id=reservation)

    @suite.case("same reservation_id, other payload: ALREADY_EXISTS, IDEMPOTENCY_CONFLICT")
    def _():
        reservation = fresh()
        stub.CommitReservation(commit_of(reservation, qty=1), timeout=SECONDS)
        error = expect_error(
            lambda: stub.CommitReservation(commit_of(reservation, qty=2), timeout=SECONDS),
            grpc.StatusCode.ALREADY_EXISTS,
        )
        expect_reason(error, "IDEMPOTENCY_CONFLICT", reservation_id=reservation)

    @suite.case("unknown event: NOT_FOUND, EVENT_NOT_FOUND")
    def _():
        event = fresh()
        for call in (
            lambda: stub.CommitReservation(commit_of(fresh(), event=event), timeout=SECONDS),
            lambda: stub.CheckAvailability(pb.CheckReq(event_id=event, qty=1), timeout=SECONDS),
        ):
            error = expect_error(call, grpc.StatusCode.NOT_FOUND)
            expect_reason(error, "EVENT_NOT_FOUND", event_id=event)

    @suite.case("bad arguments: INVALID_ARGUMENT with the field name")
    def _():
        for field, bad in (
            ("qty", commit_of(fresh(), qty=0)),
            ("qty", commit_of(fresh(), qty=-5)),
            ("qty", commit_of(fresh(), qty=2_000_000_000)),
            ("reservation_id", commit_of("")),
            ("reservation_id", commit_of("x" * 129)),
            ("reservation_id", commit_of("a b")),
            ("event_id", commit_of(fresh(), event="")),
        ):
            error = expect_error(
                lambda bad=bad: stub.CommitReservation(bad, timeout=SECONDS),
                grpc.StatusCode.INVALID_ARGUMENT,
            )
            fields = [v.field for v in detail(error, error_details_pb2.BadRequest).field_violations]
            assert field in fields, f"{field} is not in {fields}"


def retries(suite, server):
    """A client whose retry policy names every status makes one call for a final rejection."""
    codes = ["ABORTED", "ALREADY_EXISTS", "FAILED_PRECONDITION", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND"]
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": codes,
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]

    def attempts(message, code):
        """Number of calls that the server counts for one call of the application."""
        before = commits_counted(server)
        with grpc.insecure_channel(server.address, options=options) as channel:
            commit = raw(channel, f"/{SERVICE}/CommitReservation")
            expect_error(lambda: commit(message, timeout=SECONDS), code)
        deadline = time.monotonic() + SECONDS
        while commits_counted(server) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return commits_counted(server) - before

    @suite.case("final rejections are not retried by a client that would retry them")
    def _():
        event, closed = fresh(), fresh()
        server.command("event", "create", event, "--total", "1")
        server.command("event", "create", closed, "--total", "1")
        server.command("event", "close", closed)
        sold = fresh()
        with grpc.insecure_channel(server.address) as channel:
            stub = pb_grpc.InventoryStub(channel)
            stub.CommitReservation(commit_of(sold, event=event), timeout=SECONDS)
        for code, call in (
            (grpc.StatusCode.ABORTED, commit_of(fresh(), event=event)),
            (grpc.StatusCode.ALREADY_EXISTS, commit_of(sold, event=event, qty=2)),
            (grpc.StatusCode.FAILED_PRECONDITION, commit_of(fresh(), event=closed)),
            (grpc.StatusCode.INVALID_ARGUMENT, commit_of(fresh(), event=event, qty=0)),
            (grpc.StatusCode.NOT_FOUND, commit_of(fresh(), event=fresh())),
        ):
            count = attempts(call.SerializeToString(), code)
            assert count == 1, f"{code}: {count} calls"
        # The policy is in force: other errors are retried.
        count = attempts(b"\xff\xff\xff", grpc.StatusCode.INTERNAL)
        assert count == 4, f"INTERNAL: {count} calls"


def commits_counted(server):
    with urllib.request.urlopen(f"http://{server.ports['metrics']}/metrics", timeout=SECONDS) as page:
        lines = page.read().decode().splitlines()
    count = re.compile(r'grpc_requests_total\{.*method="[^"]*CommitReservation".*\} (\d+)')
    return sum(int(float(found[1])) for line in lines if (found := count.match(line)))


def protocol(suite, server, channel, stub):
    @suite.case("gzip requests are accepted on every service")
    def _():
        # Compressible, so that grpcio does compress it.
        call = commit_of(fresh(), payment_intent_id="a" * 250)
        gzip = {"timeout": SECONDS, "compression": grpc.Compression.Gzip}
        first = stub.CommitReservation(call, **gzip)
        assert first.status == "CONFIRMED", first
        assert stub.CommitReservation(call, timeout=SECONDS) == first
        # A compressed channel compresses every call.
        with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as compressed:
            health = health_pb2_grpc.HealthStub(compressed)
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            assert health.Check(request, timeout=SECONDS).status == health_pb2.HealthCheckResponse.SERVING
            assert SERVICE in ProtoReflectionDescriptorDatabase(compressed).get_services()

    @suite.case("another compression: UNIMPLEMENTED, and the connection stays open")
    def _():
        call = commit_of(fresh(), payment_intent_id="a" * 250)
        expect_error(
            lambda: stub.CommitReservation(
                call, timeout=SECONDS, compression=grpc.Compression.Deflate
            ),
            grpc.StatusCode.UNIMPLEMENTED,
        )
        assert stub.CommitReservation(call, timeout=SECONDS).status == "CONFIRMED"

    @suite.case("a message that is small only while compressed: RESOURCE_EXHAUSTED")
    def _():
        expect_error(
            lambda: raw(channel, f"/{SERVICE}/CommitReservation")(
                b"\x0a" + b"\x80\x80\x08" + b"x" * 131_072,
                timeout=SECONDS,
                compression=grpc.Compression.Gzip,
            ),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )

    @suite.case("an unknown method and an unknown service: UNIMPLEMENTED")
    def _():
        for path in (f"/{SERVICE}/NoSuchMethod", "/no.such.Service/Method"):
            expect_error(
                lambda path=path: raw(channel, path)(b"", timeout=SECONDS),
                grpc.StatusCode.UNIMPLEMENTED,
            )

    @suite.case("an oversized message: RESOURCE_EXHAUSTED")
    def _():
        expect_error(
            lambda: raw(channel, f"/{SERVICE}/CommitReservation")(
                b"\x0a" + b"\x80\x80\x08" + b"x" * 131_072, timeout=SECONDS
            ),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )

    @suite.case("an undecodable message: an error, and the connection stays open")
    def _():
        try:
            raw(channel, f"/{SERVICE}/CommitReservation")(b"\xff\xff\xff", timeout=SECONDS)
            raise AssertionError("accepted")
        except grpc.RpcError as error:
            wanted = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT)
            assert error.code() in wanted, error.code()
        assert stub.CommitReservation(commit_of(fresh()), timeout=SECONDS).order_id


def raw(channel, path):
    """A method without serialisation."""
    return channel.unary_unary(
        path, request_serializer=lambda b: b, response_deserializer=lambda b: b
    )


def deadlines(suite, server, stub):
    @suite.case("short deadlines never leave a commit half done")
    def _():
        event = fresh()
        server.command("event", "create", event, "--total", "1000")
        calls = [commit_of(fresh(), event=event, qty=2) for _ in range(60)]
        in_time = {}
        for number, call in enumerate(calls):
            try:
                # From 0.2 ms to 12 ms.
                timeout = 0.0002 * (1 + number % 60)
                in_time[number] = stub.CommitReservation(call, timeout=timeout).order_id
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        if len(in_time) == len(calls):
            raise Skip("no call missed its deadline, so nothing was tested")
        orders = [stub.CommitReservation(call, timeout=SECONDS).order_id for call in calls]
        assert len(set(orders)) == len(calls)
        for number, order in in_time.items():
            assert orders[number] == order
        assert stock(server, event) == (1000, 880, 120)


def health(suite, server, channel):
    @suite.case("400 open watches of one channel refuse no check and no other watch")
    def _():
        serving = health_pb2.HealthCheckResponse.SERVING
        request = health_pb2.HealthCheckRequest()
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options=options) as crowded:
            stub = health_pb2_grpc.HealthStub(crowded)
            watches = [stub.Watch(request) for _ in range(400)]
            assert all(next(watch).status == serving for watch in watches)
            for health in (stub, health_pb2_grpc.HealthStub(channel)):
                assert health.Check(request, timeout=SECONDS).status == serving
                assert next(health.Watch(request, timeout=SECONDS)).status == serving
            services = set(ProtoReflectionDescriptorDatabase(crowded).get_services())
            assert SERVICE in services, services

    @suite.case("health: Check and Watch return SERVING, and report unknown services")
    def _():
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", SERVICE, OTHER_SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=SECONDS).status == serving, service
            watch = health.Watch(request, timeout=SECONDS)
            assert next(watch).status == serving, service
            watch.cancel()
        unknown = health_pb2.HealthCheckRequest(service="no.such.Service")
        expect_error(lambda: health.Check(unknown, timeout=SECONDS), grpc.StatusCode.NOT_FOUND)
        watch = health.Watch(unknown, timeout=SECONDS)
        try:
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            watch.cancel()
        except grpc.RpcError as error:
            # The health protocol specifies the message above; tonic-health sends this status.
            assert error.code() == grpc.StatusCode.NOT_FOUND, error


class KeepaliveChannel:
    """A channel without calls that pings every 10 s during the whole run."""

    def __init__(self, server):
        self.started = time.monotonic()
        self.states = []
        self.ready = threading.Event()
        self.channel = grpc.insecure_channel(
            server.address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
            ],
        )
        self.channel.subscribe(self._saw, try_to_connect=True)

    def _saw(self, state):
        self.states.append(state)
        if state == grpc.ChannelConnectivity.READY:
            self.ready.set()


def keepalive(idle):
    if idle is None:
        raise Skip("takes 45 s; run with --slow")
    assert idle.ready.wait(10), idle.states
    # A server that rejects these pings sends GOAWAY at the fourth one.
    time.sleep(max(0.0, idle.started + 45 - time.monotonic()))
    after = idle.states[idle.states.index(grpc.ChannelConnectivity.READY) + 1 :]
    assert not after, f"the connection changed state: {after}"
    stub = pb_grpc.InventoryStub(idle.channel)
    assert stub.CommitReservation(commit_of(fresh()), timeout=SECONDS).status == "CONFIRMED"
    idle.channel.close()
