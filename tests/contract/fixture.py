"""Fixtures of the contract test: new quantity events and seated events, created through the admin port."""

import dataclasses
import itertools
import time
import uuid

import grpc
from clients import CHANNEL, SECONDS, InventoryClient, ReservationClient
from inventory.v1 import admin_pb2, admin_pb2_grpc

# Units or seats of every event.
TOTAL = 10

# Longer than the reclaimer needs for an expired hold.
WAIT_SECONDS_MAX = 20

_counter = itertools.count()
_run = uuid.uuid4().hex[:8]


def fresh(what="r"):
    """A new unique id."""
    return f"ct-{what}-{_run}-{next(_counter)}"


@dataclasses.dataclass(frozen=True)
class Stock:
    """The units or seats of one reservation."""

    event: str
    quantity: int = 0
    seats: tuple = ()

    @property
    def is_seated(self):
        return bool(self.seats)

    @property
    def size(self):
        return len(self.seats) or self.quantity


class Fixture:
    """A server, and one client per service with its own connection."""

    def __init__(self, server):
        self.server = server
        self.channels = [grpc.insecure_channel(server.address, CHANNEL) for _ in range(2)]
        self.a = InventoryClient(self.channels[0])
        self.b = ReservationClient(self.channels[1])
        self.admin_channel = grpc.insecure_channel(server.ports["admin"])
        self.admin = admin_pb2_grpc.InventoryAdminStub(self.admin_channel)
        for channel in (*self.channels, self.admin_channel):
            grpc.channel_ready_future(channel).result(timeout=30)

    def close(self):
        for channel in (*self.channels, self.admin_channel):
            channel.close()

    def event(self):
        """An event of TOTAL units."""
        event = fresh("evt")
        request = admin_pb2.CreateEventRequest(event_id=event, total=TOTAL)
        self.admin.CreateEvent(request, timeout=SECONDS)
        return event

    def seated_event(self):
        """A seated event: TOTAL seats in one row, S-1 to S-10; the first six in section FLOOR."""
        event = fresh("seated")
        request = admin_pb2.CreateEventRequest(event_id=event, seat_keys=2, name="The last night")
        self.admin.CreateEvent(request, timeout=SECONDS)
        seats = [
            admin_pb2.NewSeat(
                seat_id=f"S-{number}",
                section="FLOOR" if number <= 6 else "BALCONY",
                row="1",
                number=str(number),
                price=admin_pb2.Price(amount=9_900, currency="KRW"),
            )
            for number in range(1, TOTAL + 1)
        ]
        requests = iter([admin_pb2.ImportSeatsRequest(event_id=event, seats=seats)])
        written = self.admin.ImportSeats(requests, timeout=SECONDS).written
        assert written == TOTAL, written
        return event

    def stock(self, kind):
        """Stock of the first reservation of a new event."""
        if kind == "quantity":
            return Stock(self.event(), quantity=3)
        return Stock(self.seated_event(), seats=("S-1", "S-2", "S-3"))

    def part_of_rest(self, stock):
        """As many units or seats as `stock`, from the rest of the event."""
        if not stock.is_seated:
            return Stock(stock.event, quantity=stock.quantity)
        return Stock(stock.event, seats=self.rest(stock).seats[: stock.size])

    def rest(self, stock):
        """All units or seats of the event except `stock`."""
        if not stock.is_seated:
            return Stock(stock.event, quantity=TOTAL - stock.quantity)
        taken = set(stock.seats)
        seats = [f"S-{n}" for n in range(1, TOTAL + 1) if f"S-{n}" not in taken]
        return Stock(stock.event, seats=tuple(seats))

    def refund(self, reservation):
        request = admin_pb2.RefundReservationRequest(reservation_id=reservation)
        return self.admin.RefundReservation(request, timeout=SECONDS).reservation

    def recorded_payment(self, reservation):
        """The payment of a reservation as an operator sees it."""
        request = admin_pb2.GetReservationRequest(reservation_id=reservation)
        return self.admin.GetReservation(request, timeout=SECONDS).reservation.payment_intent_id

    def wait_reclaimed(self, reservation):
        """Waits until an expired hold is reclaimed. Only then can its units be sold again."""

        def is_written():
            shown = self.a.shown(reservation)
            assert shown.status in ("HELD", "EXPIRED"), shown
            return seconds(shown.updated_at) >= seconds(shown.hold_expires_at)

        eventually(is_written, f"{reservation} was not reclaimed")

    def counts(self, event):
        """Available, held and sold units or seats of GetInventoryStatus. The sections have the same sums."""
        answer = self.b.status(event)
        assert not answer.HasField("error"), answer
        stats = answer.stats
        counted = stats.available_seats + stats.reserved_seats + stats.sold_seats
        assert stats.total_seats == TOTAL == counted + stats.blocked_seats, stats
        assert answer.event.remaining_seats == stats.available_seats, answer
        assert abs(stats.availability_percentage - 100 * stats.available_seats / TOTAL) < 0.01, stats
        for field in ("available_seats", "reserved_seats", "sold_seats", "blocked_seats"):
            by_section = [getattr(section, field) for section in answer.sections]
            assert not by_section or sum(by_section) == getattr(stats, field), answer
        return stats.available_seats, stats.reserved_seats, stats.sold_seats

    def free(self, event):
        return self.counts(event)[0]

    def expect_counts(self, event, wanted):
        """Waits until so many units are available, held and sold."""
        eventually(
            lambda: self.counts(event) == wanted, lambda: f"{self.counts(event)}, not {wanted}"
        )

    def expect_free(self, event, wanted):
        """Waits until so many units are free; the status may be stale for a moment."""
        eventually(lambda: self.free(event) == wanted, lambda: f"{self.free(event)} free, not {wanted}")


def seconds(at):
    return at.seconds + at.nanos / 1e9


def eventually(condition, what):
    """Waits until the condition is true."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.05)
