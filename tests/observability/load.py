"""The load of the observability test: every method of both services, seats, expiring holds, an event that sells
out, conflicts, and calls with deadlines that are too short.

Counts calls by outcome. Responses are checked by other tests, not here."""

import collections
import itertools
import random
import threading
import time
import uuid

import grpc
from google.protobuf import timestamp_pb2
from inventory.v1 import admin_pb2, admin_pb2_grpc, inventory_pb2, inventory_pb2_grpc
from reservation.v1 import inventory_pb2 as b_pb2
from reservation.v1 import inventory_pb2_grpc as b_pb2_grpc

SECONDS = 5
HALL_SEATS = 400
SMALL_TOTAL = 300
QUIET_TOTAL = 1_000_000
BURST = 400
# One connection per channel; otherwise all channels share one connection and one shard.
OWN_CHANNEL = [("grpc.use_local_subchannel_pool", 1)]

_numbers = itertools.count()
_run = uuid.uuid4().hex[:6]


def fresh(what: str) -> str:
    return f"{what}-{_run}-{next(_numbers)}"


def in_seconds(seconds: float) -> timestamp_pb2.Timestamp:
    at = time.time() + seconds
    return timestamp_pb2.Timestamp(seconds=int(at), nanos=int(at % 1 * 1e9))


class Events:
    """The events of the load."""

    def __init__(self, admin_address: str, hot: int, narrow: int):
        self.hot, self.small = f"evt_arena_{_run}", f"evt_club_{_run}"
        self.narrow, self.hall = f"evt_narrow_{_run}", f"evt_hall_{_run}"
        # For cases that check single calls; not used by the load.
        self.quiet = f"evt_quiet_{_run}"
        with grpc.insecure_channel(admin_address) as channel:
            admin = admin_pb2_grpc.InventoryAdminStub(channel)
            for event, total, stripes in (
                (self.hot, hot, 4),
                (self.small, SMALL_TOTAL, 1),
                # One stripe, so that a queue builds up.
                (self.narrow, narrow, 1),
                (self.quiet, QUIET_TOTAL, 1),
            ):
                create = admin_pb2.CreateEventRequest(event_id=event, total=total, stripes=stripes)
                admin.CreateEvent(create, timeout=SECONDS)
            create = admin_pb2.CreateEventRequest(event_id=self.hall, seat_keys=4)
            admin.CreateEvent(create, timeout=SECONDS)
            seats = [
                admin_pb2.NewSeat(seat_id=f"S-{n}", section="FLOOR", row=str(n // 20), number=str(n % 20))
                for n in range(HALL_SEATS)
            ]
            imports = iter([admin_pb2.ImportSeatsRequest(event_id=self.hall, seats=seats)])
            admin.ImportSeats(imports, timeout=SECONDS)


class Load:
    """Client threads; a context manager. `pause`: seconds between two actions of a thread; `rush_in`: start and
    end of the overload in seconds."""

    def __init__(
        self, address: str, events: Events, pause: float = 0.0, rush_in: tuple[float, float] = (0, 1e9)
    ):
        self.address, self.events, self.pause, self.rush_in = address, events, pause, rush_in
        self.stopping = threading.Event()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.broken: list[BaseException] = []
        plays = [self.tickets, self.tickets, self.holds, self.seats, self.seats, self.questions, self.rush]
        self.threads = [threading.Thread(target=self._play, args=[play], daemon=True) for play in plays]

    def __enter__(self):
        self.begun = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=30)

    def _play(self, play) -> None:
        with grpc.insecure_channel(self.address, OWN_CHANNEL) as channel:
            a = inventory_pb2_grpc.InventoryStub(channel)
            b = b_pb2_grpc.InventoryServiceStub(channel)
            while not self.stopping.is_set():
                try:
                    play(a, b)
                except BaseException as why:
                    self.broken.append(why)
                    return
                self.stopping.wait(self.pause)

    def call(self, method, request, timeout: float = SECONDS):
        """Makes one call; returns None if it fails."""
        try:
            answer = method(request, timeout=timeout)
        except grpc.RpcError as refused:
            self.outcomes[refused.code().name] += 1
            return None
        self.outcomes["OK"] += 1
        return answer

    def tickets(self, a, _b) -> None:
        """Direct commits, some of them retries, some with another quantity or payment."""
        event = self.events.hot if random.random() < 0.7 else self.events.small
        commit = inventory_pb2.CommitReq(
            reservation_id=fresh("t"), event_id=event, qty=random.randint(1, 4), payment_intent_id="pay-1"
        )
        self.call(a.CommitReservation, commit)
        luck = random.random()
        if luck < 0.1:
            self.call(a.CommitReservation, commit)
        elif luck < 0.15:
            commit.qty += 1
            self.call(a.CommitReservation, commit)
        elif luck < 0.2:
            self.call(a.GetReservation, inventory_pb2.GetReservationReq(reservation_id=commit.reservation_id))
        elif luck < 0.22:
            commit.payment_intent_id = "pay-2"
            self.call(a.CommitReservation, commit)
        elif luck < 0.25:
            # Refused: the reservation is confirmed.
            self.call(
                a.ReleaseHold,
                inventory_pb2.ReleaseReq(
                    reservation_id=commit.reservation_id, event_id=event, qty=commit.qty
                ),
            )

    def holds(self, a, _b) -> None:
        """Holds of inventory.v1: committed, released, or expired after one second."""
        hold = inventory_pb2.PlaceHoldReq(
            reservation_id=fresh("h"), event_id=self.events.hot, qty=2, hold_expires_at=in_seconds(1)
        )
        if self.call(a.PlaceHold, hold) is None:
            return
        luck = random.random()
        if luck < 0.4:
            commit = inventory_pb2.CommitReq(
                reservation_id=hold.reservation_id, event_id=hold.event_id, qty=2
            )
            self.call(a.CommitReservation, commit)
        elif luck < 0.6:
            release = inventory_pb2.ReleaseReq(
                reservation_id=hold.reservation_id, event_id=hold.event_id, qty=2
            )
            self.call(a.ReleaseHold, release)

    def seats(self, _a, b) -> None:
        """Seats of reservation.v1, by id and chosen by the server; most are released, so that seats stay available."""
        reserve = b_pb2.ReserveSeatRequest(
            reservation_id=fresh("s"), event_id=self.events.hall, hold_expires_at=in_seconds(1.5)
        )
        if random.random() < 0.5:
            # The front rows, so that clients compete for seats.
            first = int(random.expovariate(1 / 10)) % (HALL_SEATS - 2)
            reserve.seat_ids.extend([f"S-{first}", f"S-{first + 1}"])
        else:
            reserve.quantity = 2
        answer = self.call(b.ReserveSeat, reserve)
        if answer is None or answer.HasField("error"):
            return
        luck = random.random()
        if luck < 0.05:
            commit = b_pb2.CommitReservationRequest(
                reservation_id=reserve.reservation_id, event_id=reserve.event_id
            )
            self.call(b.CommitReservation, commit)
        elif luck < 0.8:
            release = b_pb2.ReleaseHoldRequest(
                reservation_id=reserve.reservation_id, event_id=reserve.event_id, reason="CANCELLED"
            )
            self.call(b.ReleaseHold, release)

    def questions(self, a, b) -> None:
        """Checks of both services, and the status of every kind of event."""
        for event in (self.events.hot, self.events.small, self.events.hall):
            self.call(a.CheckAvailability, inventory_pb2.CheckReq(event_id=event, qty=2))
            self.call(b.CheckAvailability, b_pb2.CheckAvailabilityRequest(event_id=event, quantity=2))
            self.call(b.GetInventoryStatus, b_pb2.GetInventoryStatusRequest(event_id=event))
        self.call(a.CheckAvailability, inventory_pb2.CheckReq(event_id="evt_nowhere", qty=2))
        if random.random() < 0.2:
            self.call(a.CheckAvailability, inventory_pb2.CheckReq(event_id=self.events.hot, qty=-1))

    def rush(self, a, _b) -> None:
        """A burst on one stripe with short deadlines; some calls are rejected."""
        if not self.rush_in[0] <= time.monotonic() - self.begun < self.rush_in[1]:
            self.stopping.wait(0.2)
            return
        calls = [
            a.CommitReservation.future(
                inventory_pb2.CommitReq(reservation_id=fresh("r"), event_id=self.events.narrow, qty=1),
                timeout=random.choice([0.03, 0.3]),
            )
            for _ in range(BURST)
        ]
        for call in calls:
            code = call.code()
            self.outcomes[code.name] += 1
        self.stopping.wait(0.5)
