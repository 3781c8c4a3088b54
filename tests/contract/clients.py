"""Clients of inventory.v1 and reservation.v1, with the expected wire form of each outcome.

Outcomes are words that both services share, so that one table of transitions covers both: HELD, CONFIRMED,
RELEASED, ALREADY_RELEASED, NOT_FOUND, or the reason of a rejection. A client returns such a word only after it
has checked the status, the code and the details of the response.
"""

import datetime
import time

import grpc
from common.v1 import common_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from inventory.v1 import inventory_pb2 as a_pb
from inventory.v1 import inventory_pb2_grpc as a_grpc
from reservation.v1 import inventory_pb2 as b_pb
from reservation.v1 import inventory_pb2_grpc as b_grpc

# Timeout for a busy machine; the real client waits 250 ms.
SECONDS = 10

# Channel options of the Reservation API.
CHANNEL = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
]

# inventory.v1: a rejection is a gRPC status.
STATUS_OF = {
    "INSUFFICIENT_INVENTORY": grpc.StatusCode.ABORTED,
    "SEAT_UNAVAILABLE": grpc.StatusCode.ABORTED,
    "EVENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "SEAT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "RESERVATION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "IDEMPOTENCY_CONFLICT": grpc.StatusCode.ALREADY_EXISTS,
    "RESERVATION_RELEASED": grpc.StatusCode.FAILED_PRECONDITION,
    "RESERVATION_COMMITTED": grpc.StatusCode.FAILED_PRECONDITION,
    "HOLD_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "EVENT_CLOSED": grpc.StatusCode.FAILED_PRECONDITION,
}

# reservation.v1: a rejection is in the response: its code, the hold status and the commit status.
CODE_OF = {
    "INSUFFICIENT_INVENTORY": ("INSUFFICIENT_INVENTORY", "UNSPECIFIED", "FAILED_CONFLICT"),
    "SEAT_UNAVAILABLE": ("INVENTORY_CONFLICT", "UNSPECIFIED", "FAILED_CONFLICT"),
    "EVENT_NOT_FOUND": ("NOT_FOUND", "UNSPECIFIED", "FAILED_CONFLICT"),
    "SEAT_NOT_FOUND": ("NOT_FOUND", "UNSPECIFIED", "FAILED_CONFLICT"),
    "RESERVATION_NOT_FOUND": ("NOT_FOUND", "UNSPECIFIED", "FAILED_CONFLICT"),
    "IDEMPOTENCY_CONFLICT": ("IDEMPOTENCY_CONFLICT", "UNSPECIFIED", "FAILED_CONFLICT"),
    "RESERVATION_RELEASED": ("FAILED_PRECONDITION", "RELEASED", "FAILED_CONFLICT"),
    "RESERVATION_COMMITTED": ("FAILED_PRECONDITION", "COMMITTED", "FAILED_CONFLICT"),
    "HOLD_EXPIRED": ("RESERVATION_EXPIRED", "EXPIRED", "FAILED_EXPIRED"),
    "EVENT_CLOSED": ("FAILED_PRECONDITION", "UNSPECIFIED", "FAILED_CONFLICT"),
}


def ahead(seconds):
    """The time `seconds` from now."""
    at = Timestamp()
    at.FromDatetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds))
    return at


def seconds_until(at):
    return at.seconds + at.nanos / 1e9 - time.time()


class ReservationClient:
    """Client of reservation.v1.InventoryService."""

    name = "reservation.v1"

    def __init__(self, channel):
        self.stub = b_grpc.InventoryServiceStub(channel)
        # gRPC errors, which the circuit breaker of the client counts.
        self.errors = []

    def call(self, method, request):
        try:
            return getattr(self.stub, method)(request, timeout=SECONDS)
        except grpc.RpcError as error:
            self.errors.append(f"{method}: {error.code()} {error.details()}")
            raise

    def check(self, event, quantity=0, seats=(), section=""):
        request = b_pb.CheckAvailabilityRequest(
            event_id=event, quantity=quantity, seat_ids=seats, section=section
        )
        return self.call("CheckAvailability", request)

    def reserve(self, reservation, event, quantity=0, seats=(), expires=None):
        """The request of the real client: seats and their number, no idempotency_key."""
        return self.call(
            "ReserveSeat",
            b_pb.ReserveSeatRequest(
                reservation_id=reservation,
                event_id=event,
                seat_ids=seats,
                quantity=quantity,
                user_id="user-1",
                hold_expires_at=expires if expires is not None else ahead(60),
            ),
        )

    def confirm(self, reservation, event, quantity=0, seats=(), payment="pi_1"):
        return self.call(
            "CommitReservation",
            b_pb.CommitReservationRequest(
                reservation_id=reservation,
                event_id=event,
                seat_ids=seats,
                quantity=quantity,
                payment_intent_id=payment,
                user_id="user-1",
            ),
        )

    def release_hold(self, reservation, event, quantity=0, seats=(), reason=""):
        return self.call(
            "ReleaseHold",
            b_pb.ReleaseHoldRequest(
                reservation_id=reservation,
                event_id=event,
                seat_ids=seats,
                quantity=quantity,
                reason=reason,
            ),
        )

    def status(self, event, section=""):
        request = b_pb.GetInventoryStatusRequest(event_id=event, section=section)
        return self.call("GetInventoryStatus", request)

    # ---- Outcomes as words of the table ----------------------------------------------------------

    def hold(self, reservation, stock, expires=None):
        """The outcome, and the expiry if held."""
        answer = self.reserve(reservation, stock.event, stock.size, stock.seats, expires=expires)
        status = b_pb.HoldStatus.Name(answer.status).removeprefix("HOLD_STATUS_")
        if status == "ACTIVE":
            assert not answer.HasField("error"), answer
            assert answer.hold_id == reservation, answer
            assert [seat.id for seat in answer.reserved_seats] == list(stock.seats), answer
            reserved = common_pb2.SEAT_STATUS_RESERVED
            assert all(seat.status == reserved for seat in answer.reserved_seats), answer
            assert answer.hold_expires_at.seconds, answer
            return "HELD", answer.hold_expires_at
        reason = self.refused(answer.error)
        assert status == CODE_OF[reason][1], f"{status} for {reason}"
        return reason, None

    def commit(self, reservation, stock, payment="pi_1"):
        """The outcome, and the order id if confirmed, also with another payment."""
        answer = self.confirm(reservation, stock.event, stock.size, stock.seats, payment)
        status = b_pb.CommitStatus.Name(answer.status).removeprefix("COMMIT_STATUS_")
        if status == "SUCCESS":
            assert not answer.HasField("error"), answer
            assert answer.order_id and answer.committed_at.seconds, answer
            sold = common_pb2.SEAT_STATUS_SOLD
            assert all(seat.status == sold for seat in answer.sold_seats), answer
            assert stock.is_seated == bool(answer.sold_seats), answer
            return "CONFIRMED", answer.order_id
        assert not answer.sold_seats, answer
        reason = self.refused(answer.error)
        assert status == CODE_OF[reason][2], f"{status} for {reason}"
        is_other_payment = answer.error.details[0].field == "payment_intent_id"
        assert bool(answer.order_id) == is_other_payment, answer
        return reason, answer.order_id or None

    def release(self, reservation, stock, reason="CANCELLED"):
        answer = self.release_hold(
            reservation, stock.event, stock.quantity, stock.seats, reason=reason
        )
        status = b_pb.ReleaseStatus.Name(answer.status).removeprefix("RELEASE_STATUS_")
        if status == "FAILED":
            assert not answer.released_seats, answer
            return self.refused(answer.error)
        assert not answer.HasField("error"), answer
        if status == "SUCCESS":
            assert answer.released_at.seconds, answer
            available = common_pb2.SEAT_STATUS_AVAILABLE
            assert all(seat.status == available for seat in answer.released_seats), answer
            assert stock.is_seated == bool(answer.released_seats), answer
            return "RELEASED"
        assert not answer.released_seats, answer
        return status

    @staticmethod
    def refused(error):
        """The reason of an error; checks that its code matches."""
        assert error.message and error.details, error
        reasons = {detail.reason for detail in error.details}
        assert len(reasons) == 1, error
        reason = reasons.pop()
        code = common_pb2.ErrorCode.Name(error.code).removeprefix("ERROR_CODE_")
        assert code == CODE_OF[reason][0], f"{code} for {reason}"
        return reason

    # Outcome of a successful release by what it found.
    released = {"now": "RELEASED", "before": "ALREADY_RELEASED", "nothing": "NOT_FOUND"}


class InventoryClient:
    """Client of inventory.v1.Inventory."""

    name = "inventory.v1"

    def __init__(self, channel):
        self.stub = a_grpc.InventoryStub(channel)
        # The order that the last rejection names.
        self.order_of_refusal = None

    def call(self, method, request):
        """The response, or the reason of a rejection; checks that its status matches."""
        try:
            return getattr(self.stub, method)(request, timeout=SECONDS), None
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            assert status is not None, f"no details: {error}"
            info = error_details_pb2.ErrorInfo()
            packed = next(d for d in status.details if d.Is(info.DESCRIPTOR))
            packed.Unpack(info)
            assert info.reason in STATUS_OF, f"{info.reason}: {error.details()}"
            assert error.code() == STATUS_OF[info.reason], f"{error.code()} for {info.reason}"
            assert info.metadata["reservation_id"] == request.reservation_id, info
            is_other_payment = info.metadata.get("field") == "payment_intent_id"
            self.order_of_refusal = info.metadata.get("order_id")
            assert bool(self.order_of_refusal) == is_other_payment, info
            return None, info.reason

    @staticmethod
    def seats(stock):
        return [a_pb.SeatRef(seat_id=seat) for seat in stock.seats]

    def hold(self, reservation, stock, expires=None):
        answer, reason = self.call(
            "PlaceHold",
            a_pb.PlaceHoldReq(
                reservation_id=reservation,
                event_id=stock.event,
                qty=stock.quantity,
                seat_ids=self.seats(stock),
                hold_expires_at=expires if expires is not None else ahead(60),
            ),
        )
        if reason:
            return reason, None
        assert answer.status == "HELD", answer
        assert [seat.seat_id for seat in answer.seat_ids] == list(stock.seats), answer
        return "HELD", answer.hold_expires_at

    def commit(self, reservation, stock, payment="pi_1"):
        answer, reason = self.call(
            "CommitReservation",
            a_pb.CommitReq(
                reservation_id=reservation,
                event_id=stock.event,
                qty=stock.quantity,
                seat_ids=self.seats(stock),
                payment_intent_id=payment,
            ),
        )
        if reason:
            return reason, self.order_of_refusal
        assert answer.status == "CONFIRMED" and answer.order_id, answer
        return "CONFIRMED", answer.order_id

    def release(self, reservation, stock):
        answer, reason = self.call(
            "ReleaseHold",
            a_pb.ReleaseReq(
                reservation_id=reservation,
                event_id=stock.event,
                qty=stock.quantity,
                seat_ids=self.seats(stock),
            ),
        )
        if reason:
            return reason
        assert answer.status == "RELEASED", answer
        return "RELEASED"

    def shown(self, reservation):
        """The response of GetReservation, or the reason of a rejection."""
        request = a_pb.GetReservationReq(reservation_id=reservation)
        answer, reason = self.call("GetReservation", request)
        return answer or reason

    released = {"now": "RELEASED", "before": "RELEASED", "nothing": "RELEASED"}
