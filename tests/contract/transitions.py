"""The table of reservation transitions: every transition once per service, for quantity events and seated events.

A case is a generator. The part before `yield` runs at once; the part after it runs when all short holds of all
cases have expired, so that the test waits only once.
"""

import time

from clients import ahead, seconds_until
from fixture import TOTAL, Stock, eventually, fresh

# Length of a hold that a case lets expire.
SHORT_HOLD_SECONDS = 1.5

CASES = []


def transition(name):
    """Decorator that adds a row to the table."""

    def register(case):
        CASES.append((name, case))
        return case

    return register


def play(suite, fixture):
    started = []
    for name, case in CASES:
        for contract in (fixture.b, fixture.a):
            for kind in ("quantity", "seated"):
                full = f"{contract.name}, {kind}: {name}"
                if suite.only in full:
                    started.append((full, CaseRun(case, fixture, contract, kind)))
    for _, run in started:
        run.until_yield()
    for full, run in started:
        suite.case(full)(run.to_the_end)


class CaseRun:
    """A started case. A failure before `yield` is reported when the case is finished."""

    def __init__(self, case, fixture, contract, kind):
        self.begin = lambda: case(fixture, contract, fixture.stock(kind))
        self.problem = None
        self.ended = False

    def until_yield(self):
        try:
            self.steps = self.begin()
            self.over_at = next(self.steps, None)
            self.ended = self.over_at is None
        except Exception as problem:
            self.problem = problem

    def to_the_end(self):
        if self.problem is not None:
            raise self.problem
        if self.ended:
            return
        while time.time() <= self.over_at:
            time.sleep(0.01)
        for _ in self.steps:
            raise AssertionError("a case may yield only once")


def short_hold(contract, reservation, stock):
    """Places a short hold; returns the time at which it has expired."""
    word, until = contract.hold(reservation, stock, expires=ahead(SHORT_HOLD_SECONDS))
    assert word == "HELD", word
    # Allowance for clock granularity.
    return time.time() + seconds_until(until) + 0.02


def confirmed(contract, reservation, stock):
    word, order = contract.commit(reservation, stock)
    assert word == "CONFIRMED", word
    return order


def held(contract, reservation, stock):
    word, until = contract.hold(reservation, stock)
    assert word == "HELD", word
    return until


# ---- hold -----------------------------------------------------------------------------------------


@transition("hold of a new reservation: HELD")
def _(fixture, contract, stock):
    until = held(contract, fresh(), stock)
    assert 50 < seconds_until(until) <= 60, until
    fixture.expect_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("hold of more than the remaining stock: refused as a whole")
def _(fixture, contract, stock):
    held(contract, fresh(), fixture.rest(stock))
    if stock.is_seated:
        # One of the seats is taken.
        wanted, reason = Stock(stock.event, seats=("S-1", "S-4")), "SEAT_UNAVAILABLE"
    else:
        wanted, reason = Stock(stock.event, quantity=4), "INSUFFICIENT_INVENTORY"
    word, _ = contract.hold(fresh(), wanted)
    assert word == reason, word
    fixture.expect_free(stock.event, 3)
    held(contract, fresh(), stock)
    yield from ()


@transition("hold of a held reservation: same expiry, also if the request has a later one")
def _(fixture, contract, stock):
    reservation = fresh()
    until = held(contract, reservation, stock)
    word, again = contract.hold(reservation, stock, expires=ahead(600))
    assert (word, again) == ("HELD", until), (word, again)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("hold of a confirmed reservation: refused")
def _(fixture, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_COMMITTED", word
    yield from ()


@transition("hold of a released reservation: refused")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    fixture.expect_free(stock.event, TOTAL)
    yield from ()


@transition("hold of an expired reservation: refused before and after the reclaim")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "HOLD_EXPIRED", word
    fixture.wait_reclaimed(reservation)
    fixture.expect_free(stock.event, TOTAL)
    word, _ = contract.hold(reservation, stock)
    assert word == "HOLD_EXPIRED", word


# ---- commit ---------------------------------------------------------------------------------------


@transition("commit without a hold: acquired and confirmed in one step")
def _(fixture, contract, stock):
    confirmed(contract, fresh(), stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("commit of a hold: confirmed, stock changes once")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    confirmed(contract, reservation, stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    shown = fixture.a.shown(reservation)
    assert (shown.status, shown.qty) == ("CONFIRMED", stock.size), shown
    yield from ()


@transition("commit of an expired hold before its reclaim: confirmed")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    confirmed(contract, reservation, stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)


@transition("commit of a reclaimed hold: reacquired and confirmed")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    fixture.wait_reclaimed(reservation)
    fixture.expect_free(stock.event, TOTAL)
    confirmed(contract, reservation, stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)


@transition("commit of an expired hold whose stock is sold: HOLD_EXPIRED")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    # Other reservations may need a retry until the hold is reclaimed.
    for wanted in (stock, fixture.rest(stock)):
        other = fresh()
        eventually(lambda: contract.commit(other, wanted)[0] == "CONFIRMED", "stock did not become available")
    word, order = contract.commit(reservation, stock)
    assert (word, order) == ("HOLD_EXPIRED", None), word
    fixture.expect_free(stock.event, 0)


@transition("commit of a confirmed reservation: same order")
def _(fixture, contract, stock):
    reservation = fresh()
    order = confirmed(contract, reservation, stock)
    assert confirmed(contract, reservation, stock) == order
    # Also through the other service.
    other = fixture.a if contract is fixture.b else fixture.b
    assert confirmed(other, reservation, stock) == order
    fixture.expect_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("commit of a released reservation: refused")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    for _ in range(2):
        word, _ = contract.commit(reservation, stock)
        assert word == "RESERVATION_RELEASED", word
    fixture.expect_free(stock.event, TOTAL)
    yield from ()


@transition("commit and hold of a refunded reservation: refused")
def _(fixture, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    fixture.refund(reservation)
    for _ in range(2):
        word, _ = contract.commit(reservation, stock)
        assert word == "RESERVATION_RELEASED", word
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    fixture.expect_free(stock.event, TOTAL)
    yield from ()


# ---- release --------------------------------------------------------------------------------------


@transition("release of a hold: stock returned")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    word = contract.release(reservation, stock)
    assert word == contract.released["now"], word
    fixture.expect_free(stock.event, TOTAL)
    yield from ()


@transition("release of a released reservation: success, no stock returned")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    confirmed(contract, fresh(), stock)
    for _ in range(3):
        word = contract.release(reservation, stock)
        assert word == contract.released["before"], word
    fixture.expect_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("release of a reclaimed hold: success, no stock returned")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    fixture.wait_reclaimed(reservation)
    for _ in range(2):
        word = contract.release(reservation, stock)
        assert word == contract.released["before"], word
    fixture.expect_free(stock.event, TOTAL)


@transition("release of an expired hold before its reclaim: success")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    word = contract.release(reservation, stock)
    assert word in (contract.released["now"], contract.released["before"]), word
    fixture.expect_free(stock.event, TOTAL)


@transition("release of an unknown reservation: success, a later hold or commit is refused")
def _(fixture, contract, stock):
    reservation = fresh()
    word = contract.release(reservation, stock)
    assert word == contract.released["nothing"], word
    word = contract.release(reservation, stock)
    assert word == contract.released["before"], word
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    word, _ = contract.commit(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    fixture.expect_free(stock.event, TOTAL)
    yield from ()


@transition("release of a confirmed reservation: refused")
def _(fixture, contract, stock):
    for through_a_hold in (True, False):
        reservation = fresh()
        stock = stock if through_a_hold else fixture.part_of_rest(stock)
        if through_a_hold:
            held(contract, reservation, stock)
        order = confirmed(contract, reservation, stock)
        for _ in range(2):
            word = contract.release(reservation, stock)
            assert word == "RESERVATION_COMMITTED", word
        assert confirmed(contract, reservation, stock) == order
    fixture.expect_free(stock.event, TOTAL - 2 * stock.size)
    yield from ()


# ---- refund ---------------------------------------------------------------------------------------


@transition("refund of a confirmed reservation: stock returned exactly once")
def _(fixture, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    for _ in range(2):
        fixture.refund(reservation)
        assert fixture.a.shown(reservation).status == "REFUNDED"
    fixture.expect_free(stock.event, TOTAL)
    confirmed(contract, fresh(), stock)
    fixture.refund(reservation)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    word = contract.release(reservation, stock)
    assert word == contract.released["before"], word
    yield from ()


# ---- the payment ----------------------------------------------------------------------------------


@transition("commit with a payment after one without: recorded, same order")
def _(fixture, contract, stock):
    reservation = fresh()
    word, order = contract.commit(reservation, stock, payment="")
    assert word == "CONFIRMED" and fixture.recorded_payment(reservation) == "", word
    confirmed_at = fixture.a.shown(reservation).updated_at
    assert contract.commit(reservation, stock, payment="pi_late") == ("CONFIRMED", order)
    assert fixture.recorded_payment(reservation) == "pi_late"
    # A payment is no transition, and no payment means the recorded one.
    shown = fixture.a.shown(reservation)
    assert (shown.status, shown.order_id) == ("CONFIRMED", order), shown
    assert shown.updated_at == confirmed_at, shown
    for payment in ("pi_late", ""):
        assert contract.commit(reservation, stock, payment=payment) == ("CONFIRMED", order)
    other = contract.commit(reservation, stock, payment="pi_other")
    assert other == ("IDEMPOTENCY_CONFLICT", order), other
    assert fixture.recorded_payment(reservation) == "pi_late"
    fixture.expect_counts(stock.event, (TOTAL - stock.size, 0, stock.size))
    yield from ()


@transition("commit with another payment than the recorded one: refused by both services")
def _(fixture, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    word, order = contract.commit(reservation, stock, payment="pi_first")
    assert word == "CONFIRMED", word
    for service in (fixture.a, fixture.b):
        for _ in range(2):
            other = service.commit(reservation, stock, payment="pi_second")
            assert other == ("IDEMPOTENCY_CONFLICT", order), other
        assert service.commit(reservation, stock, payment="pi_first") == ("CONFIRMED", order)
    assert fixture.recorded_payment(reservation) == "pi_first"
    fixture.refund(reservation)
    # The refund is the reason, whatever the payment.
    for payment in ("pi_first", "pi_second"):
        word, _ = contract.commit(reservation, stock, payment=payment)
        assert word == "RESERVATION_RELEASED", word
    assert fixture.recorded_payment(reservation) == "pi_first"
    fixture.expect_counts(stock.event, (TOTAL, 0, 0))
    yield from ()


# ---- held and confirmed ---------------------------------------------------------------------------


@transition("status distinguishes held from confirmed at every step")
def _(fixture, contract, stock):
    size, event = stock.size, stock.event
    first, second = fresh(), fresh()
    fixture.expect_counts(event, (TOTAL, 0, 0))
    held(contract, first, stock)
    fixture.expect_counts(event, (TOTAL - size, size, 0))
    assert fixture.a.shown(first).status == "HELD"
    confirmed(contract, first, stock)
    fixture.expect_counts(event, (TOTAL - size, 0, size))
    assert fixture.a.shown(first).status == "CONFIRMED"
    # A repeat counts nothing twice.
    confirmed(contract, first, stock)
    other = fixture.part_of_rest(stock)
    held(contract, second, other)
    fixture.expect_counts(event, (TOTAL - 2 * size, size, size))
    assert contract.release(second, other) == contract.released["now"]
    fixture.expect_counts(event, (TOTAL - size, 0, size))
    assert fixture.a.shown(second).status == "RELEASED"
    # Without a hold.
    confirmed(contract, fresh(), other)
    fixture.expect_counts(event, (TOTAL - 2 * size, 0, 2 * size))
    fixture.refund(first)
    fixture.expect_counts(event, (TOTAL - size, 0, size))
    yield from ()


@transition("status of a hold that expires, and is confirmed late: available, then sold")
def _(fixture, contract, stock):
    reservation = fresh()
    yield short_hold(contract, reservation, stock)
    fixture.expect_counts(stock.event, (TOTAL, 0, 0))
    confirmed(contract, reservation, stock)
    fixture.expect_counts(stock.event, (TOTAL - stock.size, 0, stock.size))


# ---- the payload ----------------------------------------------------------------------------------


@transition("any call with another event or payload: IDEMPOTENCY_CONFLICT")
def _(fixture, contract, stock):
    elsewhere = fixture.stock("seated" if stock.is_seated else "quantity")
    others = [elsewhere, fixture.part_of_rest(stock)]
    if not stock.is_seated:
        others[1] = Stock(stock.event, quantity=stock.quantity + 1)
    in_states = (
        lambda r: held(contract, r, stock),
        lambda r: contract.release(r, stock),
        lambda r: confirmed(contract, r, stock),
    )
    for make in in_states:
        reservation = fresh()
        make(reservation)
        for other in others:
            words = [
                contract.hold(reservation, other)[0],
                contract.commit(reservation, other)[0],
                contract.release(reservation, other),
            ]
            assert words == ["IDEMPOTENCY_CONFLICT"] * 3, words
        if make is in_states[0]:
            contract.release(reservation, stock)
    fixture.expect_free(stock.event, TOTAL - stock.size)
    fixture.expect_free(elsewhere.event, TOTAL)
    yield from ()
