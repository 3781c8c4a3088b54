//! The part of the hall that this process prefers, so that processes that sell one event choose different seats.
//!
//! Rows are divided among the members by rendezvous hashing with bounded loads: every row goes to the member with the
//! highest weight that has less than its share of the section and of the hall. Processes with the same members and the
//! same seats divide a hall alike, and few rows move when a member joins or leaves. Rows that are longer than any
//! numbered row are divided in blocks.
//!
//! A hint: the part decides where the search begins, never whether there are seats.

use std::ops::Range;
use std::rc::Rc;

use super::SeatMap;
use super::bit_set::BitSet;
use crate::ids::fnv1a;
use crate::limits;
use crate::membership::Members;
use crate::rendezvous::{mixed, weight};
use crate::time::Micros;

/// Some of the seats, and what searches know of them.
pub(super) struct SeatPart {
    pub(super) seats: BitSet,
    /// As [`SeatMap::longest`], for runs within the part.
    pub(super) longest: Vec<u32>,
    /// Seats of each row, free or not.
    in_row: Vec<u32>,
    /// All seats, and those that are free.
    total: usize,
    free: usize,
}

impl SeatPart {
    fn new(seats: usize, rows: usize) -> Self {
        Self {
            seats: BitSet::with_room(seats),
            longest: vec![0; rows],
            in_row: vec![0; rows],
            total: 0,
            free: 0,
        }
    }

    fn add(&mut self, row: usize, block: Range<usize>, free: &BitSet) {
        self.in_row[row] += block.len() as u32;
        self.total += block.len();
        for place in block {
            self.seats.set(place);
            self.free += usize::from(free.get(place));
        }
    }

    fn bound_longest(&mut self, row: usize, longest: u32) {
        self.longest[row] = longest.min(self.in_row[row]);
    }

    /// Whether most of it is sold.
    fn is_low(&self) -> bool {
        self.free <= self.total / limits::SEAT_PART_LOW_SHARE
    }
}

/// The parts of the hall from which this process chooses first.
pub(super) struct Parts {
    /// Preferred by this process.
    pub(super) own: SeatPart,
    /// Preferred by other processes, with this one next in line.
    pub(super) next: SeatPart,
    /// Preferred by other processes, with a third one next in line.
    pub(super) rest: SeatPart,
    /// Other processes have chosen the same seats.
    pub(super) is_contested: bool,
}

impl Parts {
    /// Whether so few own seats are free that other processes may begin to choose them too. Then this process chooses
    /// from the front and the next in line from the back, so that they meet late.
    pub(super) fn is_own_low(&self) -> bool {
        self.own.is_low()
    }

    fn all(&mut self) -> [&mut SeatPart; 3] {
        [&mut self.own, &mut self.next, &mut self.rest]
    }

    /// The seat was set free, and the longest run of its row is at most `longest`.
    pub(super) fn set_free(&mut self, place: usize, row: usize, longest: u32) {
        for part in self.all() {
            part.bound_longest(row, longest);
            part.free += usize::from(part.seats.get(place));
        }
    }

    /// The seat was taken, and `free` are left in its row.
    pub(super) fn set_taken(&mut self, place: usize, row: usize, free: u32) {
        for part in self.all() {
            part.longest[row] = part.longest[row].min(free);
            part.free -= usize::from(part.seats.get(place));
        }
    }
}

/// By whose view the hall is divided.
#[derive(Default)]
pub(super) struct Division {
    members: Option<Rc<Members>>,
    /// Members to divide by when the map was read at or after this time. Until then the states of seats that were
    /// another member's are too old to begin there.
    next: Option<(Rc<Members>, Micros)>,
}

impl SeatMap {
    /// Divides the hall by these members, at once or after the next read.
    pub(crate) fn set_members(&mut self, members: &Rc<Members>, now: Micros) {
        let is_same = |known: &Rc<Members>| Rc::ptr_eq(known, members) || known == members;
        let division = &mut self.division;
        match &division.members {
            None => {
                division.members = Some(Rc::clone(members));
                self.divide();
            }
            Some(known) if is_same(known) => division.next = None,
            Some(_) if division.next.as_ref().is_some_and(|(next, _)| is_same(next)) => {}
            Some(_) => division.next = Some((Rc::clone(members), now)),
        }
    }

    /// Whether a read is needed to divide the hall by the latest members.
    pub(crate) fn awaits_division(&self) -> bool {
        self.division.next.is_some()
    }

    /// Whether there are other members.
    pub(crate) fn is_divided(&self) -> bool {
        self.parts.is_some()
    }

    /// Whether most of the seats that this process prefers are sold, so that others may be chosen soon, and these by
    /// other processes.
    pub(crate) fn is_part_low(&self) -> bool {
        self.parts.as_ref().is_some_and(Parts::is_own_low)
    }

    /// Whether other processes have lately chosen the same seats: then this process chooses its own from the front, and they
    /// choose from the back.
    pub(crate) fn set_contested(&mut self, is_contested: bool) {
        if let Some(parts) = &mut self.parts {
            parts.is_contested = is_contested;
        }
    }

    /// Whether this process prefers the seat; true if it sells alone.
    pub(super) fn is_own(&self, place: usize) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.own.seats.get(place))
    }

    /// A read that began at `began` is complete.
    pub(super) fn divide_after_read(&mut self, began: Micros) {
        if let Some((members, _)) = self.division.next.take_if(|(_, since)| *since <= began) {
            self.division.members = Some(members);
            self.divide();
        }
    }

    /// Computes the part from the layout and the members.
    pub(super) fn divide(&mut self) {
        self.parts = None;
        let Some(members) = self.division.members.clone().filter(|members| members.count() > 1)
        else {
            return;
        };
        let part = || SeatPart::new(self.slots.len(), self.rows.len());
        let mut parts = Parts { own: part(), next: part(), rest: part(), is_contested: false };
        let mut loads = Loads::new(&members, self.slots.len());
        for section in 0..self.sections.len() {
            let rows = self.sections[section].rows.clone();
            let rows = rows.start as usize..rows.end as usize;
            let seats = rows.clone().map(|row| self.rows[row].seats().len());
            loads.begin_section(seats);
            for row in rows {
                for block in blocks(self.rows[row].seats()) {
                    let key = self.block_key(section, row, block.start);
                    let (owner, next) = loads.owners(key, block.len());
                    let part = match members.own_position() {
                        own if own == owner => &mut parts.own,
                        own if own == next => &mut parts.next,
                        _ => &mut parts.rest,
                    };
                    part.add(row, block, &self.free);
                }
                for part in parts.all() {
                    part.bound_longest(row, self.longest[row]);
                }
            }
        }
        self.parts = Some(parts);
    }

    /// By names, so that processes that have not seen the same seats agree on the others.
    fn block_key(&self, section: usize, row: usize, start: usize) -> u64 {
        let section = fnv1a(self.name(self.sections[section].name));
        let number = fnv1a(self.name(self.rows[row].name));
        let block = (start - self.rows[row].start as usize) / limits::SEAT_RUN_LONG;
        mixed(u64::from(section) << 32 | u64::from(number)) ^ block as u64
    }
}

/// The blocks of a row that are divided.
fn blocks(seats: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let step = limits::SEAT_RUN_LONG;
    seats.clone().step_by(step).map(move |start| start..seats.end.min(start + step))
}

/// Seats that each member has been given.
struct Loads<'a> {
    members: &'a Members,
    hall: Vec<usize>,
    hall_max: usize,
    section: Vec<usize>,
    section_max: usize,
}

impl<'a> Loads<'a> {
    fn new(members: &'a Members, seats: usize) -> Self {
        let count = members.count();
        Self {
            members,
            hall: vec![0; count],
            hall_max: seats.div_ceil(count),
            section: vec![0; count],
            section_max: 0,
        }
    }

    fn begin_section(&mut self, seats: impl Iterator<Item = usize>) {
        self.section.fill(0);
        self.section_max = seats.sum::<usize>().div_ceil(self.members.count());
    }

    /// The member that gets a block of `len` seats, and the next in line. A member below its share may exceed it by a
    /// part of a block.
    fn owners(&mut self, key: u64, len: usize) -> (usize, usize) {
        let members = self.members;
        let weight = |member: usize| weight(members.all()[member].id, key);
        let in_hall = |member: &usize| self.hall[*member] < self.hall_max;
        let in_section = |member: &usize| self.section[*member] < self.section_max;
        let all = 0..self.hall.len();
        let owner = all.clone().filter(in_hall).filter(in_section).max_by_key(|one| weight(*one));
        let owner = owner.or_else(|| all.clone().filter(in_hall).max_by_key(|one| weight(*one)));
        // Not reached: the shares add up to the whole hall.
        let owner = owner.or_else(|| all.min_by_key(|one| self.hall[*one])).unwrap_or_default();
        self.hall[owner] += len;
        self.section[owner] += len;
        let others = (0..self.hall.len()).filter(|one| *one != owner);
        (owner, others.max_by_key(|one| weight(*one)).unwrap_or(owner))
    }
}
