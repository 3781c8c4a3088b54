//! stub
use super::ids::*;
use super::question::*;
use super::seats::*;
use super::time::*;
use rand::Rng;
#[derive(Debug)]
pub struct SeatMap {
    seats: Vec<Seat>,
}
impl SeatMap {
    pub fn new(seats: Vec<Seat>, _b: Micros) -> Self {
        Self { seats }
    }
    pub fn refresh(&mut self, seats: Vec<Seat>, _b: Micros) {
        self.seats = seats;
    }
    pub fn learn(&mut self, seat: &SeatId, state: Option<SeatState>, _at: Micros) {
        if let (Some(s), Some(st)) = (self.seats.iter_mut().find(|s| s.id == *seat), state) {
            s.state = st;
        }
    }
    pub fn known_taken(&self, _s: &SeatId, _me: &ReservationId, _n: Now) -> bool {
        false
    }
    pub fn pick(
        &mut self,
        qty: u32,
        _section: Option<&str>,
        _now: Now,
        avoid: &dyn Fn(&SeatId) -> bool,
        _rng: &mut impl Rng,
    ) -> Option<Vec<SeatId>> {
        let v: Vec<SeatId> = self
            .seats
            .iter()
            .filter(|s| s.state == SeatState::Available && !avoid(&s.id))
            .take(qty as usize)
            .map(|s| s.id.clone())
            .collect();
        (v.len() == qty as usize).then_some(v)
    }
    pub fn remaining(&mut self, _s: Option<&str>, _n: UnixMillis) -> u64 {
        0
    }
    pub fn status(&mut self, _s: Option<&str>, _n: UnixMillis) -> (Counts, Vec<SectionStatus>) {
        Default::default()
    }
    pub fn section_of(&self, _s: &SeatId) -> Option<&str> {
        None
    }
    pub fn seat(&self, s: &SeatId) -> Option<Seat> {
        self.seats.iter().find(|x| x.id == *s).cloned()
    }
}
