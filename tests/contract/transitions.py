"""The table of what a reservation means: every transition once on each contract, for quantities and
for seats.

A case is a generator. What it does before its `yield` is played at once; what follows is played when
every short hold that was placed meanwhile is over. So the waiting is done once for all of them.
"""

import time

from clients import ahead, seconds_until
from stage import TOTAL, Stock, eventually, fresh

# How long a hold lasts that a case wants to outlive.
MOMENT_SECONDS = 1.5

CASES = []


def transition(name):
    """Decorator: a row of the table."""

    def register(case):
        CASES.append((name, case))
        return case

    return register


def play(suite, stage):
    started = []
    for name, case in CASES:
        for contract in (stage.b, stage.a):
            for kind in ("quantity", "seated"):
                full = f"{contract.name}, {kind}: {name}"
                if suite.only in full:
                    started.append((full, Run(case, stage, contract, kind)))
    for _, run in started:
        run.until_yield()
    for full, run in started:
        suite.case(full)(run.to_the_end)


class Run:
    """A case under way. What goes wrong before its `yield` is told when it is its turn."""

    def __init__(self, case, stage, contract, kind):
        self.begin = lambda: case(stage, contract, stage.stock(kind))
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
            raise AssertionError("a case waits once")


def moment(contract, reservation, stock):
    """Holds for a moment; when that is over."""
    word, until = contract.hold(reservation, stock, expires=ahead(MOMENT_SECONDS))
    assert word == "HELD", word
    # A little later, so that no clock's granularity counts.
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


@transition("hold of nothing yet: HELD, and the stock is the reservation's")
def _(stage, contract, stock):
    until = held(contract, fresh(), stock)
    assert 50 < seconds_until(until) <= 60, until
    stage.wants_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("hold of more than there is: refused whole, and nothing is taken")
def _(stage, contract, stock):
    held(contract, fresh(), stage.rest(stock))
    if stock.is_seated:
        # One of them is another's.
        wanted, reason = Stock(stock.event, seats=("S-1", "S-4")), "SEAT_UNAVAILABLE"
    else:
        wanted, reason = Stock(stock.event, quantity=4), "INSUFFICIENT_INVENTORY"
    word, _ = contract.hold(fresh(), wanted)
    assert word == reason, word
    stage.wants_free(stock.event, 3)
    held(contract, fresh(), stock)
    yield from ()


@transition("hold again of what is held: the same end, however much later is asked for")
def _(stage, contract, stock):
    reservation = fresh()
    until = held(contract, reservation, stock)
    word, again = contract.hold(reservation, stock, expires=ahead(600))
    assert (word, again) == ("HELD", until), (word, again)
    stage.wants_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("hold of what is confirmed: refused")
def _(stage, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_COMMITTED", word
    yield from ()


@transition("hold of what is released: refused")
def _(stage, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    stage.wants_free(stock.event, TOTAL)
    yield from ()


@transition("hold of what has expired: refused, at once and when it is given back")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    word, _ = contract.hold(reservation, stock)
    assert word == "HOLD_EXPIRED", word
    stage.given_back(reservation)
    stage.wants_free(stock.event, TOTAL)
    word, _ = contract.hold(reservation, stock)
    assert word == "HOLD_EXPIRED", word


# ---- commit ---------------------------------------------------------------------------------------


@transition("commit without a hold: taken and confirmed in one step")
def _(stage, contract, stock):
    confirmed(contract, fresh(), stock)
    stage.wants_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("commit of a hold: confirmed, and the stock moved once")
def _(stage, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    confirmed(contract, reservation, stock)
    stage.wants_free(stock.event, TOTAL - stock.size)
    shown = stage.a.shown(reservation)
    assert (shown.status, shown.qty) == ("CONFIRMED", stock.size), shown
    yield from ()


@transition("commit of a hold just past its end: confirmed, for the buyer has paid")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    confirmed(contract, reservation, stock)
    stage.wants_free(stock.event, TOTAL - stock.size)


@transition("commit of a hold that was given back: taken again and confirmed")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    stage.given_back(reservation)
    stage.wants_free(stock.event, TOTAL)
    confirmed(contract, reservation, stock)
    stage.wants_free(stock.event, TOTAL - stock.size)


@transition("commit of a hold whose stock is another's by now: expired")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    # Until it is cleared away other buyers may have to come twice.
    for wanted in (stock, stage.rest(stock)):
        other = fresh()
        eventually(lambda: contract.commit(other, wanted)[0] == "CONFIRMED", "never free")
    word, order = contract.commit(reservation, stock)
    assert (word, order) == ("HOLD_EXPIRED", None), word
    stage.wants_free(stock.event, 0)


@transition("commit again of what is confirmed: the same order")
def _(stage, contract, stock):
    reservation = fresh()
    order = confirmed(contract, reservation, stock)
    assert confirmed(contract, reservation, stock) == order
    # On the other contract as well.
    other = stage.a if contract is stage.b else stage.b
    assert confirmed(other, reservation, stock) == order
    stage.wants_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("commit of what is released: refused for good")
def _(stage, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    for _ in range(2):
        word, _ = contract.commit(reservation, stock)
        assert word == "RESERVATION_RELEASED", word
    stage.wants_free(stock.event, TOTAL)
    yield from ()


@transition("commit and hold of what is refunded: refused for good")
def _(stage, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    stage.refund(reservation)
    for _ in range(2):
        word, _ = contract.commit(reservation, stock)
        assert word == "RESERVATION_RELEASED", word
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    stage.wants_free(stock.event, TOTAL)
    yield from ()


# ---- release --------------------------------------------------------------------------------------


@transition("release of a hold: given back")
def _(stage, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    stage.wants_free(stock.event, TOTAL - stock.size)
    word = contract.release(reservation, stock)
    assert word == contract.released["now"], word
    stage.wants_free(stock.event, TOTAL)
    yield from ()


@transition("release again of what is released: success, and nothing more is given back")
def _(stage, contract, stock):
    reservation = fresh()
    held(contract, reservation, stock)
    contract.release(reservation, stock)
    confirmed(contract, fresh(), stock)
    for _ in range(3):
        word = contract.release(reservation, stock)
        assert word == contract.released["before"], word
    stage.wants_free(stock.event, TOTAL - stock.size)
    yield from ()


@transition("release of what has expired and was given back: success, once")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    stage.given_back(reservation)
    for _ in range(2):
        word = contract.release(reservation, stock)
        assert word == contract.released["before"], word
    stage.wants_free(stock.event, TOTAL)


@transition("release of a hold just past its end: success, whoever gives it back")
def _(stage, contract, stock):
    reservation = fresh()
    yield moment(contract, reservation, stock)
    word = contract.release(reservation, stock)
    assert word in (contract.released["now"], contract.released["before"]), word
    stage.wants_free(stock.event, TOTAL)


@transition("release of what never was: success, and a late hold or commit takes nothing")
def _(stage, contract, stock):
    reservation = fresh()
    word = contract.release(reservation, stock)
    assert word == contract.released["nothing"], word
    word = contract.release(reservation, stock)
    assert word == contract.released["before"], word
    word, _ = contract.hold(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    word, _ = contract.commit(reservation, stock)
    assert word == "RESERVATION_RELEASED", word
    stage.wants_free(stock.event, TOTAL)
    yield from ()


@transition("release of what is confirmed: refused, and nothing is unsold")
def _(stage, contract, stock):
    for through_a_hold in (True, False):
        reservation = fresh()
        stock = stock if through_a_hold else stage.part_of_rest(stock)
        if through_a_hold:
            held(contract, reservation, stock)
        order = confirmed(contract, reservation, stock)
        for _ in range(2):
            word = contract.release(reservation, stock)
            assert word == "RESERVATION_COMMITTED", word
        assert confirmed(contract, reservation, stock) == order
    stage.wants_free(stock.event, TOTAL - 2 * stock.size)
    yield from ()


# ---- refund ---------------------------------------------------------------------------------------


@transition("refund of what is confirmed: the stock is back exactly once")
def _(stage, contract, stock):
    reservation = fresh()
    confirmed(contract, reservation, stock)
    for _ in range(2):
        stage.refund(reservation)
        assert stage.a.shown(reservation).status == "REFUNDED"
    stage.wants_free(stock.event, TOTAL)
    confirmed(contract, fresh(), stock)
    stage.refund(reservation)
    stage.wants_free(stock.event, TOTAL - stock.size)
    word = contract.release(reservation, stock)
    assert word == contract.released["before"], word
    yield from ()


# ---- the payload ----------------------------------------------------------------------------------


@transition("any call on a reservation of another event or payload: a conflict")
def _(stage, contract, stock):
    elsewhere = stage.stock("seated" if stock.is_seated else "quantity")
    others = [elsewhere, stage.part_of_rest(stock)]
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
    stage.wants_free(stock.event, TOTAL - stock.size)
    stage.wants_free(elsewhere.event, TOTAL)
    yield from ()
