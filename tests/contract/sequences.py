"""Call sequences of the Reservation API and its worker on reservation.v1."""

import grpc
from clients import SECONDS, ahead, seconds_until
from common.v1 import common_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from reservation.v1 import inventory_pb2 as pb
from fixture import TOTAL, Stock, fresh
from transitions import SHORT_HOLD_SECONDS, short_hold

KINDS = ("quantity", "seated")

# The frozen contract: message → field → number.
NUMBERS = {
    "CheckAvailabilityRequest": {"event_id": 1, "seat_ids": 2, "quantity": 3, "section": 4},
    "CheckAvailabilityResponse": {
        "available": 1,
        "available_seats": 2,
        "unavailable_seat_ids": 3,
        "remaining_in_section": 4,
        "error": 5,
    },
    "ReserveSeatRequest": {
        "reservation_id": 1,
        "event_id": 2,
        "seat_ids": 3,
        "quantity": 4,
        "user_id": 5,
        "hold_expires_at": 6,
        "idempotency_key": 7,
    },
    "ReserveSeatResponse": {
        "hold_id": 1,
        "reserved_seats": 2,
        "hold_expires_at": 3,
        "status": 4,
        "error": 5,
    },
    "CommitReservationRequest": {
        "reservation_id": 1,
        "event_id": 2,
        "seat_ids": 3,
        "quantity": 4,
        "payment_intent_id": 5,
        "user_id": 6,
        "idempotency_key": 7,
    },
    "CommitReservationResponse": {
        "order_id": 1,
        "sold_seats": 2,
        "status": 3,
        "committed_at": 4,
        "error": 5,
    },
    "ReleaseHoldRequest": {
        "reservation_id": 1,
        "event_id": 2,
        "seat_ids": 3,
        "quantity": 4,
        "reason": 5,
        "idempotency_key": 6,
    },
    "ReleaseHoldResponse": {"released_seats": 1, "status": 2, "released_at": 3, "error": 4},
    "GetInventoryStatusRequest": {"event_id": 1, "section": 2},
    "GetInventoryStatusResponse": {"event": 1, "sections": 2, "stats": 3, "error": 4},
    "SectionInventory": {
        "section_id": 1,
        "section_name": 2,
        "total_seats": 3,
        "available_seats": 4,
        "reserved_seats": 5,
        "sold_seats": 6,
        "blocked_seats": 7,
        "min_price": 8,
        "max_price": 9,
    },
    "InventoryStats": {
        "total_seats": 1,
        "available_seats": 2,
        "reserved_seats": 3,
        "sold_seats": 4,
        "blocked_seats": 5,
        "availability_percentage": 6,
        "last_updated": 7,
    },
}

COMMON_NUMBERS = {
    "Money": {"amount": 1, "currency": 2},
    "Seat": {"id": 1, "section": 2, "row": 3, "number": 4, "price": 5, "status": 6},
    "Event": {
        "id": 1,
        "name": 2,
        "description": 3,
        "venue": 4,
        "start_time": 5,
        "end_time": 6,
        "sale_start_time": 7,
        "sale_end_time": 8,
        "total_seats": 9,
        "remaining_seats": 10,
    },
    "Venue": {"id": 1, "name": 2, "address": 3, "total_capacity": 4},
    "Address": {"street": 1, "city": 2, "state": 3, "postal_code": 4, "country": 5},
    "Error": {"code": 1, "message": 2, "trace_id": 3, "details": 4},
    "ErrorDetail": {"field": 1, "reason": 2, "value": 3},
}

# Values in order of their numbers, from 0.
ENUMS = {
    "HoldStatus": ("UNSPECIFIED", "ACTIVE", "EXPIRED", "RELEASED", "COMMITTED"),
    "CommitStatus": (
        "UNSPECIFIED",
        "SUCCESS",
        "FAILED_PAYMENT",
        "FAILED_EXPIRED",
        "FAILED_CONFLICT",
    ),
    "ReleaseStatus": ("UNSPECIFIED", "SUCCESS", "ALREADY_RELEASED", "NOT_FOUND", "FAILED"),
}

COMMON_ENUMS = {
    "SeatStatus": ("UNSPECIFIED", "AVAILABLE", "RESERVED", "SOLD", "BLOCKED"),
    "ErrorCode": (
        "UNSPECIFIED",
        "UNAUTHENTICATED",
        "FORBIDDEN",
        "UNAUTHORIZED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "RATE_LIMITED",
        "QUOTA_EXCEEDED",
        "IDEMPOTENCY_REQUIRED",
        "IDEMPOTENCY_CONFLICT",
        "RESERVATION_EXPIRED",
        "PAYMENT_NOT_APPROVED",
        "INVENTORY_CONFLICT",
        "INSUFFICIENT_INVENTORY",
        "INTERNAL",
        "UNAVAILABLE",
        "TIMEOUT",
        "UPSTREAM_TIMEOUT",
        "UPSTREAM_ERROR",
        "DATA_CORRUPTION",
        "CONCURRENT_MODIFICATION",
    ),
}


def play(suite, fixture):
    frozen(suite)
    for kind in KINDS:
        reservation_api(suite, fixture, kind)
        worker(suite, fixture, kind)
    in_band(suite, fixture)
    bad_arguments(suite, fixture)


def frozen(suite):
    @suite.case("packages, names and numbers match the compiled clients")
    def _():
        for module, package, numbers, enums in (
            (pb, "reservation.v1", NUMBERS, ENUMS),
            (common_pb2, "common.v1", COMMON_NUMBERS, COMMON_ENUMS),
        ):
            file = module.DESCRIPTOR
            assert file.package == package, file.package
            found = {
                name: {field.name: field.number for field in message.fields}
                for name, message in file.message_types_by_name.items()
            }
            assert found == numbers, found
            assert set(file.enum_types_by_name) == set(enums)
            for name, words in enums.items():
                values = file.enum_types_by_name[name].values_by_number
                prefix = "".join(f"_{c}" if c.isupper() else c for c in name).upper()[1:]
                found = {number: value.name for number, value in values.items()}
                wanted = {number: f"{prefix}_{word}" for number, word in enumerate(words)}
                assert found == wanted, found
        methods = pb.DESCRIPTOR.services_by_name["InventoryService"].methods_by_name
        assert set(methods) == {
            "CheckAvailability",
            "ReserveSeat",
            "CommitReservation",
            "ReleaseHold",
            "GetInventoryStatus",
        }


def create(fixture, event, quantity, expires=None):
    """Creates a hold like the client: a check, then a hold of the offered stock. Returns the reservation and its stock."""
    found = fixture.b.check(event, quantity=quantity)
    assert found.available and not found.HasField("error"), found
    offered = tuple(seat.id for seat in found.available_seats)
    if offered:
        assert len(offered) == quantity, offered
        available = common_pb2.SEAT_STATUS_AVAILABLE
        assert all(seat.status == available for seat in found.available_seats), found
        assert all(seat.section and seat.row and seat.number for seat in found.available_seats)
        stock = Stock(event, seats=offered)
    else:
        stock = Stock(event, quantity=quantity)
    reservation = fresh()
    answer = fixture.b.reserve(reservation, event, quantity, offered, expires=expires)
    assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
    assert answer.hold_id == reservation, answer
    assert [seat.id for seat in answer.reserved_seats] == list(offered), answer
    for seat in answer.reserved_seats:
        assert seat.status == common_pb2.SEAT_STATUS_RESERVED, seat
        assert (seat.price.amount, seat.price.currency) == (9_900, "KRW"), seat
    return reservation, stock


def reservation_api(suite, fixture, kind):
    def event():
        return fixture.event() if kind == "quantity" else fixture.seated_event()

    @suite.case(f"client, {kind}: create, confirm")
    def _():
        event_id = event()
        reservation, stock = create(fixture, event_id, 3)
        word, order = fixture.b.commit(reservation, stock)
        assert word == "CONFIRMED", word
        assert fixture.b.commit(reservation, stock) == ("CONFIRMED", order)
        fixture.expect_free(event_id, TOTAL - 3)

    @suite.case(f"client, {kind}: create and confirm from 1 to 10")
    def _():
        for quantity in range(1, 11):
            event_id = event()
            reservation, stock = create(fixture, event_id, quantity)
            assert fixture.b.commit(reservation, stock)[0] == "CONFIRMED"
            fixture.expect_free(event_id, TOTAL - quantity)

    @suite.case(f"client, {kind}: create, cancel")
    def _():
        event_id = event()
        reservation, stock = create(fixture, event_id, 3)
        assert fixture.b.release(reservation, stock, reason="CANCELLED") == "RELEASED"
        fixture.expect_free(event_id, TOTAL)

    @suite.case(f"client, {kind}: create, confirm, cancel is refused in the response")
    def _():
        event_id = event()
        reservation, stock = create(fixture, event_id, 3)
        assert fixture.b.commit(reservation, stock)[0] == "CONFIRMED"
        word = fixture.b.release(reservation, stock, reason="CANCELLED")
        assert word == "RESERVATION_COMMITTED", word
        fixture.expect_free(event_id, TOTAL - 3)

    @suite.case(f"client, {kind}: create, expire, late confirm")
    def _():
        event_id = event()
        reservation, stock = create(fixture, event_id, 3, expires=ahead(SHORT_HOLD_SECONDS))
        fixture.expect_free(event_id, TOTAL)
        shown = fixture.a.shown(reservation)
        assert shown.status == "EXPIRED", shown
        assert fixture.b.hold(reservation, stock)[0] == "HOLD_EXPIRED"
        assert fixture.b.commit(reservation, stock)[0] == "CONFIRMED"
        fixture.expect_free(event_id, TOTAL - 3)

    @suite.case(f"client, {kind}: create, expire, sold to another reservation, late confirm fails")
    def _():
        event_id = event()
        reservation, stock = create(fixture, event_id, 10, expires=ahead(SHORT_HOLD_SECONDS))
        fixture.expect_free(event_id, TOTAL)
        other, theirs = create(fixture, event_id, 10)
        assert fixture.b.commit(other, theirs)[0] == "CONFIRMED"
        assert fixture.b.commit(reservation, stock) == ("HOLD_EXPIRED", None)
        fixture.expect_free(event_id, 0)

    @suite.case(f"client, {kind}: concurrent identical creates make one hold")
    def _():
        event_id = event()
        found = fixture.b.check(event_id, quantity=2)
        offered = [seat.id for seat in found.available_seats]
        request = pb.ReserveSeatRequest(
            reservation_id=fresh(),
            event_id=event_id,
            seat_ids=offered,
            quantity=2,
            hold_expires_at=ahead(60),
        )
        calls = [fixture.b.stub.ReserveSeat.future(request, timeout=SECONDS) for _ in range(16)]
        answers = [call.result() for call in calls]
        assert all(answer == answers[0] for answer in answers), answers
        assert answers[0].status == pb.HOLD_STATUS_ACTIVE, answers[0]
        fixture.expect_free(event_id, TOTAL - 2)


def worker(suite, fixture, kind):
    """The worker sends an event and a reservation, and checks gRPC errors only."""

    def released(answer):
        return pb.ReleaseStatus.Name(answer.status).removeprefix("RELEASE_STATUS_")

    @suite.case(f"worker, {kind}: five releases with quantity 0 and no reason return stock once")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        assert fixture.b.hold(reservation, stock)[0] == "HELD"
        words = [released(fixture.b.release_hold(reservation, stock.event)) for _ in range(5)]
        assert words == ["SUCCESS"] + ["ALREADY_RELEASED"] * 4, words
        fixture.expect_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: five concurrent deliveries of one message return stock once")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        assert fixture.b.hold(reservation, stock)[0] == "HELD"
        request = pb.ReleaseHoldRequest(
            reservation_id=reservation, event_id=stock.event, reason="EXPIRED"
        )
        calls = [fixture.b.stub.ReleaseHold.future(request, timeout=SECONDS) for _ in range(5)]
        words = sorted(released(call.result()) for call in calls)
        assert set(words) <= {"SUCCESS", "ALREADY_RELEASED"} and "SUCCESS" in words, words
        fixture.expect_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a release before its hold refuses the later hold and commit")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        words = [released(fixture.b.release_hold(reservation, stock.event)) for _ in range(2)]
        assert words == ["NOT_FOUND", "ALREADY_RELEASED"], words
        assert fixture.b.hold(reservation, stock)[0] == "RESERVATION_RELEASED"
        assert fixture.b.commit(reservation, stock)[0] == "RESERVATION_RELEASED"
        fixture.expect_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a release after the confirm changes nothing")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        assert fixture.b.hold(reservation, stock)[0] == "HELD"
        assert fixture.b.commit(reservation, stock)[0] == "CONFIRMED"
        for reason in ("EXPIRED", "FAILED_PAYMENT", ""):
            answer = fixture.b.release_hold(reservation, stock.event, reason=reason)
            assert released(answer) == "FAILED", answer
        fixture.expect_free(stock.event, TOTAL - stock.size)

    @suite.case(f"worker, {kind}: an expiry message after the reclaim")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        short_hold(fixture.b, reservation, stock)
        fixture.wait_reclaimed(reservation)
        answer = fixture.b.release_hold(reservation, stock.event, reason="EXPIRED")
        assert released(answer) == "ALREADY_RELEASED", answer
        fixture.expect_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a confirm without seats and quantity confirms the held stock")
    def _():
        stock = fixture.stock(kind)
        reservation = fresh()
        assert fixture.b.hold(reservation, stock)[0] == "HELD"
        answer = fixture.b.confirm(reservation, stock.event)
        assert answer.status == pb.COMMIT_STATUS_SUCCESS, answer
        assert [seat.id for seat in answer.sold_seats] == list(stock.seats), answer
        nothing = fixture.b.confirm(fresh(), stock.event)
        assert nothing.status == pb.COMMIT_STATUS_FAILED_CONFLICT, nothing
        assert nothing.error.code == common_pb2.ERROR_CODE_NOT_FOUND, nothing
        fixture.expect_free(stock.event, TOTAL - stock.size)


def in_band(suite, fixture):
    @suite.case("seats: hold and check name a taken seat, and hold no other seat")
    def _():
        event = fixture.seated_event()
        assert fixture.b.hold(fresh(), Stock(event, seats=("S-2",)))[0] == "HELD"
        refused = fixture.b.reserve(fresh(), event, 3, ("S-1", "S-2", "S-3"))
        assert refused.error.code == common_pb2.ERROR_CODE_INVENTORY_CONFLICT, refused
        assert [detail.value for detail in refused.error.details] == ["S-2"], refused
        found = fixture.b.check(event, seats=("S-1", "S-2", "Z-9"))
        assert not found.available and list(found.unavailable_seat_ids) == ["S-2", "Z-9"], found
        assert [seat.id for seat in found.available_seats] == ["S-1"], found
        assert fixture.b.hold(fresh(), Stock(event, seats=("S-1", "S-3")))[0] == "HELD"

    @suite.case("seats: an unknown seat is not available, not held and not created")
    def _():
        event = fixture.seated_event()
        for seats in (("Z-9",), ("S-1", "Z-9")):
            stock = Stock(event, seats=seats)
            assert fixture.b.hold(fresh(), stock)[0] == "SEAT_NOT_FOUND"
            assert fixture.b.commit(fresh(), stock)[0] == "SEAT_NOT_FOUND"
        fixture.expect_free(event, TOTAL)

    @suite.case("seats: a section limits the offered seats and the status")
    def _():
        event = fixture.seated_event()
        found = fixture.b.check(event, quantity=4, section="BALCONY")
        assert found.available and found.remaining_in_section == 4, found
        assert {seat.section for seat in found.available_seats} == {"BALCONY"}, found
        found = fixture.b.check(event, quantity=5, section="BALCONY")
        assert not found.available and not found.available_seats, found
        answer = fixture.b.status(event, section="FLOOR")
        assert [section.section_id for section in answer.sections] == ["FLOOR"], answer
        assert (answer.stats.total_seats, answer.event.total_seats) == (6, TOTAL), answer
        assert answer.sections[0].min_price.amount == 9_900, answer

    @suite.case("seats: a hold by quantity chooses adjacent seats")
    def _():
        event = fixture.seated_event()
        answer = fixture.b.reserve(fresh(), event, 3)
        assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
        numbers = sorted(int(seat.number) for seat in answer.reserved_seats)
        assert numbers == list(range(numbers[0], numbers[0] + 3)), numbers
        fixture.expect_free(event, TOTAL - 3)

    @suite.case("seats: seat_ids win over a different quantity")
    def _():
        event = fixture.seated_event()
        answer = fixture.b.reserve(fresh(), event, 5, ("S-1", "S-2"))
        assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
        assert len(answer.reserved_seats) == 2, answer
        fixture.expect_free(event, TOTAL - 2)

    @suite.case("status: a seated event has its name, its sections and its availability")
    def _():
        event = fixture.seated_event()
        fixture.expect_free(event, TOTAL)
        answer = fixture.b.status(event)
        assert answer.event.name == "The last night", answer.event
        assert (answer.event.total_seats, answer.event.remaining_seats) == (TOTAL, TOTAL), answer
        sections = {section.section_name: section.total_seats for section in answer.sections}
        assert sections == {"FLOOR": 6, "BALCONY": 4}, sections
        assert abs(answer.stats.availability_percentage - 100) < 0.01, answer.stats
        assert abs(seconds_until(answer.stats.last_updated)) < 60, answer.stats

    @suite.case("every response reports an unknown event in its error")
    def _():
        nowhere = Stock(fresh("nowhere"), quantity=1)
        found = fixture.b.check(nowhere.event, quantity=1)
        answer = fixture.b.status(nowhere.event)
        released = fixture.b.release_hold(fresh(), nowhere.event)
        for answer in (found, answer, released):
            assert answer.error.code == common_pb2.ERROR_CODE_NOT_FOUND, answer
        assert fixture.b.hold(fresh(), nowhere)[0] == "EVENT_NOT_FOUND"
        assert fixture.b.commit(fresh(), nowhere)[0] == "EVENT_NOT_FOUND"

    @suite.case("a hold is shortened to the maximum length and gets the default length without an expiry")
    def _():
        event = fixture.event()
        _, until = fixture.b.hold(fresh(), Stock(event, quantity=1), expires=ahead(100_000))
        assert 14 * 60 < seconds_until(until) <= 15 * 60, until
        request = pb.ReserveSeatRequest(reservation_id=fresh(), event_id=event, quantity=1)
        answer = fixture.b.call("ReserveSeat", request)
        assert 50 < seconds_until(answer.hold_expires_at) <= 60, answer

    @suite.case("no call failed with a gRPC error")
    def _():
        assert not fixture.b.errors, fixture.b.errors


def bad_arguments(suite, fixture):
    @suite.case("bad arguments are gRPC errors with the field name of the service")
    def _():
        event = fixture.event()
        good = {"reservation_id": fresh(), "event_id": event, "quantity": 1}
        hold, commit, release = (
            pb.ReserveSeatRequest,
            pb.CommitReservationRequest,
            pb.ReleaseHoldRequest,
        )
        for method, kind, change, field in (
            ("ReserveSeat", hold, {"quantity": 0}, "quantity"),
            ("ReserveSeat", hold, {"quantity": -5}, "quantity"),
            ("ReserveSeat", hold, {"quantity": 11}, "quantity"),
            ("ReserveSeat", hold, {"reservation_id": ""}, "reservation_id"),
            ("ReserveSeat", hold, {"event_id": "a b"}, "event_id"),
            ("ReserveSeat", hold, {"seat_ids": ["S-1", "S-1"]}, "seat_ids"),
            ("ReserveSeat", hold, {"hold_expires_at": ahead(-1)}, "hold_expires_at"),
            ("ReserveSeat", hold, {"user_id": "x" * 257}, "user_id"),
            ("CommitReservation", commit, {"quantity": -1}, "quantity"),
            ("CommitReservation", commit, {"payment_intent_id": "x" * 257}, "payment_intent_id"),
            ("ReleaseHold", release, {"quantity": -1}, "quantity"),
            ("ReleaseHold", release, {"reason": "x" * 257}, "reason"),
        ):
            call = getattr(fixture.b.stub, method)
            try:
                answer = call(kind(**{**good, **change}), timeout=SECONDS)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, f"{change}: {error}"
                fields = violated(error)
                assert field in fields, f"{change}: {fields}"
            else:
                raise AssertionError(f"{change} was accepted: {answer}")
        fixture.expect_free(event, TOTAL)


def violated(error):
    status = rpc_status.from_call(error)
    bad = error_details_pb2.BadRequest()
    packed = next(d for d in status.details if d.Is(bad.DESCRIPTOR))
    packed.Unpack(bad)
    return [violation.field for violation in bad.field_violations]


def rejects_late(suite, fixture):
    """Cases for a server with LATE_COMMIT=reject."""
    for kind in KINDS:

        @suite.case(f"LATE_COMMIT=reject, {kind}: a late confirm fails, a confirm in time succeeds")
        def _(kind=kind):
            stock = fixture.stock(kind)
            reservation = fresh()
            short_hold(fixture.b, reservation, stock)
            fixture.wait_reclaimed(reservation)
            for contract in (fixture.b, fixture.a):
                assert contract.commit(reservation, stock) == ("HOLD_EXPIRED", None)
            timely = fresh()
            assert fixture.b.hold(timely, stock)[0] == "HELD"
            assert fixture.b.commit(timely, stock)[0] == "CONFIRMED"
            fixture.expect_free(stock.event, TOTAL - stock.size)
