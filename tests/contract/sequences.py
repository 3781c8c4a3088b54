"""What the Reservation API and its worker really do, call by call, on contract B."""

import grpc
from clients import SECONDS, ahead, seconds_until
from common.v1 import common_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from reservation.v1 import inventory_pb2 as pb
from stage import TOTAL, Stock, fresh
from transitions import MOMENT_SECONDS, moment

KINDS = ("quantity", "seated")

# The frozen contract: message → field → number. A client compiled against it reads nothing else.
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

# Each in the order of its numbers, from 0.
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


def play(suite, stage):
    frozen(suite)
    for kind in KINDS:
        reservation_api(suite, stage, kind)
        worker(suite, stage, kind)
    in_band(suite, stage)
    bad_arguments(suite, stage)


def frozen(suite):
    @suite.case("the contract's packages, names and numbers are as the clients were compiled")
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
                told = {number: value.name for number, value in values.items()}
                wanted = {number: f"{prefix}_{word}" for number, word in enumerate(words)}
                assert told == wanted, told
        methods = pb.DESCRIPTOR.services_by_name["InventoryService"].methods_by_name
        assert set(methods) == {
            "CheckAvailability",
            "ReserveSeat",
            "CommitReservation",
            "ReleaseHold",
            "GetInventoryStatus",
        }


def create(stage, event, quantity, expires=None):
    """As the client creates: what can be had, then exactly that. The reservation and its stock."""
    found = stage.b.check(event, quantity=quantity)
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
    answer = stage.b.reserve(reservation, event, quantity, offered, expires=expires)
    assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
    assert answer.hold_id == reservation, answer
    assert [seat.id for seat in answer.reserved_seats] == list(offered), answer
    for seat in answer.reserved_seats:
        assert seat.status == common_pb2.SEAT_STATUS_RESERVED, seat
        assert (seat.price.amount, seat.price.currency) == (9_900, "KRW"), seat
    return reservation, stock


def reservation_api(suite, stage, kind):
    def event():
        return stage.event() if kind == "quantity" else stage.hall()

    @suite.case(f"client, {kind}: create, confirm")
    def _():
        on_sale = event()
        reservation, stock = create(stage, on_sale, 3)
        word, order = stage.b.commit(reservation, stock)
        assert word == "CONFIRMED", word
        assert stage.b.commit(reservation, stock) == ("CONFIRMED", order)
        stage.wants_free(on_sale, TOTAL - 3)

    @suite.case(f"client, {kind}: create and confirm from 1 to 10")
    def _():
        for quantity in range(1, 11):
            on_sale = event()
            reservation, stock = create(stage, on_sale, quantity)
            assert stage.b.commit(reservation, stock)[0] == "CONFIRMED"
            stage.wants_free(on_sale, TOTAL - quantity)

    @suite.case(f"client, {kind}: create, cancel")
    def _():
        on_sale = event()
        reservation, stock = create(stage, on_sale, 3)
        assert stage.b.release(reservation, stock, reason="CANCELLED") == "RELEASED"
        stage.wants_free(on_sale, TOTAL)

    @suite.case(f"client, {kind}: create, confirm, cancel is refused inside the response")
    def _():
        on_sale = event()
        reservation, stock = create(stage, on_sale, 3)
        assert stage.b.commit(reservation, stock)[0] == "CONFIRMED"
        word = stage.b.release(reservation, stock, reason="CANCELLED")
        assert word == "RESERVATION_COMMITTED", word
        stage.wants_free(on_sale, TOTAL - 3)

    @suite.case(f"client, {kind}: create, wait, expired, late confirm")
    def _():
        on_sale = event()
        reservation, stock = create(stage, on_sale, 3, expires=ahead(MOMENT_SECONDS))
        stage.wants_free(on_sale, TOTAL)
        shown = stage.a.shown(reservation)
        assert shown.status == "EXPIRED", shown
        assert stage.b.hold(reservation, stock)[0] == "HOLD_EXPIRED"
        assert stage.b.commit(reservation, stock)[0] == "CONFIRMED"
        stage.wants_free(on_sale, TOTAL - 3)

    @suite.case(f"client, {kind}: create, wait, expired, sold to another, late confirm fails")
    def _():
        on_sale = event()
        reservation, stock = create(stage, on_sale, 10, expires=ahead(MOMENT_SECONDS))
        stage.wants_free(on_sale, TOTAL)
        other, theirs = create(stage, on_sale, 10)
        assert stage.b.commit(other, theirs)[0] == "CONFIRMED"
        assert stage.b.commit(reservation, stock) == ("HOLD_EXPIRED", None)
        stage.wants_free(on_sale, 0)

    @suite.case(f"client, {kind}: the same create twice at once is one hold")
    def _():
        on_sale = event()
        found = stage.b.check(on_sale, quantity=2)
        offered = [seat.id for seat in found.available_seats]
        request = pb.ReserveSeatRequest(
            reservation_id=fresh(),
            event_id=on_sale,
            seat_ids=offered,
            quantity=2,
            hold_expires_at=ahead(60),
        )
        calls = [stage.b.stub.ReserveSeat.future(request, timeout=SECONDS) for _ in range(16)]
        answers = [call.result() for call in calls]
        assert all(answer == answers[0] for answer in answers), answers
        assert answers[0].status == pb.HOLD_STATUS_ACTIVE, answers[0]
        stage.wants_free(on_sale, TOTAL - 2)


def worker(suite, stage, kind):
    """The worker knows an event and a reservation, and looks at gRPC errors only."""

    def released(answer):
        return pb.ReleaseStatus.Name(answer.status).removeprefix("RELEASE_STATUS_")

    @suite.case(f"worker, {kind}: five releases, quantity 0 and no reason, give back once")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        assert stage.b.hold(reservation, stock)[0] == "HELD"
        words = [released(stage.b.give_up(reservation, stock.event)) for _ in range(5)]
        assert words == ["SUCCESS"] + ["ALREADY_RELEASED"] * 4, words
        stage.wants_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: the same message delivered five times at once gives back once")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        assert stage.b.hold(reservation, stock)[0] == "HELD"
        request = pb.ReleaseHoldRequest(
            reservation_id=reservation, event_id=stock.event, reason="EXPIRED"
        )
        calls = [stage.b.stub.ReleaseHold.future(request, timeout=SECONDS) for _ in range(5)]
        words = sorted(released(call.result()) for call in calls)
        assert set(words) <= {"SUCCESS", "ALREADY_RELEASED"} and "SUCCESS" in words, words
        stage.wants_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a release that overtakes its hold, and everything after it")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        words = [released(stage.b.give_up(reservation, stock.event)) for _ in range(2)]
        assert words == ["NOT_FOUND", "ALREADY_RELEASED"], words
        assert stage.b.hold(reservation, stock)[0] == "RESERVATION_RELEASED"
        assert stage.b.commit(reservation, stock)[0] == "RESERVATION_RELEASED"
        stage.wants_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a release that arrives after the confirm changes nothing")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        assert stage.b.hold(reservation, stock)[0] == "HELD"
        assert stage.b.commit(reservation, stock)[0] == "CONFIRMED"
        for reason in ("EXPIRED", "FAILED_PAYMENT", ""):
            answer = stage.b.give_up(reservation, stock.event, reason=reason)
            assert released(answer) == "FAILED", answer
        stage.wants_free(stock.event, TOTAL - stock.size)

    @suite.case(f"worker, {kind}: the expiry message that comes after the expiry")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        moment(stage.b, reservation, stock)
        stage.given_back(reservation)
        answer = stage.b.give_up(reservation, stock.event, reason="EXPIRED")
        assert released(answer) == "ALREADY_RELEASED", answer
        stage.wants_free(stock.event, TOTAL)

    @suite.case(f"worker, {kind}: a confirm that names nothing is about what is held")
    def _():
        stock = stage.stock(kind)
        reservation = fresh()
        assert stage.b.hold(reservation, stock)[0] == "HELD"
        answer = stage.b.confirm(reservation, stock.event)
        assert answer.status == pb.COMMIT_STATUS_SUCCESS, answer
        assert [seat.id for seat in answer.sold_seats] == list(stock.seats), answer
        nothing = stage.b.confirm(fresh(), stock.event)
        assert nothing.status == pb.COMMIT_STATUS_FAILED_CONFLICT, nothing
        assert nothing.error.code == common_pb2.ERROR_CODE_NOT_FOUND, nothing
        stage.wants_free(stock.event, TOTAL - stock.size)


def in_band(suite, stage):
    @suite.case("seats: a taken one is named by a hold and by a check, and takes nothing with it")
    def _():
        hall = stage.hall()
        assert stage.b.hold(fresh(), Stock(hall, seats=("S-2",)))[0] == "HELD"
        refused = stage.b.reserve(fresh(), hall, 3, ("S-1", "S-2", "S-3"))
        assert refused.error.code == common_pb2.ERROR_CODE_INVENTORY_CONFLICT, refused
        assert [detail.value for detail in refused.error.details] == ["S-2"], refused
        found = stage.b.check(hall, seats=("S-1", "S-2", "Z-9"))
        assert not found.available and list(found.unavailable_seat_ids) == ["S-2", "Z-9"], found
        assert [seat.id for seat in found.available_seats] == ["S-1"], found
        assert stage.b.hold(fresh(), Stock(hall, seats=("S-1", "S-3")))[0] == "HELD"

    @suite.case("seats: an unknown one is never available, never held and never made")
    def _():
        hall = stage.hall()
        for seats in (("Z-9",), ("S-1", "Z-9")):
            stock = Stock(hall, seats=seats)
            assert stage.b.hold(fresh(), stock)[0] == "SEAT_NOT_FOUND"
            assert stage.b.commit(fresh(), stock)[0] == "SEAT_NOT_FOUND"
        stage.wants_free(hall, TOTAL)

    @suite.case("seats: a section narrows what is offered and what is told")
    def _():
        hall = stage.hall()
        found = stage.b.check(hall, quantity=4, section="BALCONY")
        assert found.available and found.remaining_in_section == 4, found
        assert {seat.section for seat in found.available_seats} == {"BALCONY"}, found
        found = stage.b.check(hall, quantity=5, section="BALCONY")
        assert not found.available and not found.available_seats, found
        told = stage.b.status(hall, section="FLOOR")
        assert [section.section_id for section in told.sections] == ["FLOOR"], told
        assert (told.stats.total_seats, told.event.total_seats) == (6, TOTAL), told
        assert told.sections[0].min_price.amount == 9_900, told

    @suite.case("seats: a hold by quantity chooses neighbours")
    def _():
        hall = stage.hall()
        answer = stage.b.reserve(fresh(), hall, 3)
        assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
        numbers = sorted(int(seat.number) for seat in answer.reserved_seats)
        assert numbers == list(range(numbers[0], numbers[0] + 3)), numbers
        stage.wants_free(hall, TOTAL - 3)

    @suite.case("seats: they win over a quantity that says something else")
    def _():
        hall = stage.hall()
        answer = stage.b.reserve(fresh(), hall, 5, ("S-1", "S-2"))
        assert answer.status == pb.HOLD_STATUS_ACTIVE, answer
        assert len(answer.reserved_seats) == 2, answer
        stage.wants_free(hall, TOTAL - 2)

    @suite.case("status: a seated event has its name, its sections and a share that is free")
    def _():
        hall = stage.hall()
        stage.wants_free(hall, TOTAL)
        told = stage.b.status(hall)
        assert told.event.name == "The last night", told.event
        assert (told.event.total_seats, told.event.remaining_seats) == (TOTAL, TOTAL), told
        sections = {section.section_name: section.total_seats for section in told.sections}
        assert sections == {"FLOOR": 6, "BALCONY": 4}, sections
        assert abs(told.stats.availability_percentage - 100) < 0.01, told.stats
        assert abs(seconds_until(told.stats.last_updated)) < 60, told.stats

    @suite.case("an unknown event is told inside every response")
    def _():
        nowhere = Stock(fresh("nowhere"), quantity=1)
        found = stage.b.check(nowhere.event, quantity=1)
        told = stage.b.status(nowhere.event)
        released = stage.b.give_up(fresh(), nowhere.event)
        for answer in (found, told, released):
            assert answer.error.code == common_pb2.ERROR_CODE_NOT_FOUND, answer
        assert stage.b.hold(fresh(), nowhere)[0] == "EVENT_NOT_FOUND"
        assert stage.b.commit(fresh(), nowhere)[0] == "EVENT_NOT_FOUND"

    @suite.case("a hold by quantity longer than allowed is cut, one without an end gets the usual")
    def _():
        event = stage.event()
        _, until = stage.b.hold(fresh(), Stock(event, quantity=1), expires=ahead(100_000))
        assert 14 * 60 < seconds_until(until) <= 15 * 60, until
        request = pb.ReserveSeatRequest(reservation_id=fresh(), event_id=event, quantity=1)
        answer = stage.b.call("ReserveSeat", request)
        assert 50 < seconds_until(answer.hold_expires_at) <= 60, answer

    @suite.case("the client's circuit breaker has counted nothing")
    def _():
        assert not stage.b.errors, stage.b.errors


def bad_arguments(suite, stage):
    @suite.case("bad arguments are gRPC errors that name the field as the contract spells it")
    def _():
        event = stage.event()
        good = {"reservation_id": fresh(), "event_id": event, "quantity": 1}
        hold, sell, give_up = (
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
            ("CommitReservation", sell, {"quantity": -1}, "quantity"),
            ("CommitReservation", sell, {"payment_intent_id": "x" * 257}, "payment_intent_id"),
            ("ReleaseHold", give_up, {"quantity": -1}, "quantity"),
            ("ReleaseHold", give_up, {"reason": "x" * 257}, "reason"),
        ):
            call = getattr(stage.b.stub, method)
            try:
                answer = call(kind(**{**good, **change}), timeout=SECONDS)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, f"{change}: {error}"
                fields = violated(error)
                assert field in fields, f"{change}: {fields}"
            else:
                raise AssertionError(f"{change} was answered {answer}")
        stage.wants_free(event, TOTAL)


def violated(error):
    status = rpc_status.from_call(error)
    bad = error_details_pb2.BadRequest()
    packed = next(d for d in status.details if d.Is(bad.DESCRIPTOR))
    packed.Unpack(bad)
    return [violation.field for violation in bad.field_violations]


def rejects_late(suite, stage):
    """On a server whose operator wants late commits refused."""
    for kind in KINDS:

        @suite.case(f"LATE_COMMIT=reject, {kind}: a late confirm fails, a timely one does not")
        def _(kind=kind):
            stock = stage.stock(kind)
            reservation = fresh()
            moment(stage.b, reservation, stock)
            stage.given_back(reservation)
            for contract in (stage.b, stage.a):
                assert contract.commit(reservation, stock) == ("HOLD_EXPIRED", None)
            timely = fresh()
            assert stage.b.hold(timely, stock)[0] == "HELD"
            assert stage.b.commit(timely, stock)[0] == "CONFIRMED"
            stage.wants_free(stock.event, TOTAL - stock.size)
