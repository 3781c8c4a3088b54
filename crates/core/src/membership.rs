//! The server processes that sell from one store, as far as one process knows.
//!
//! Membership is a hint. It decides which stripes and seats a process prefers, never whether a write is valid or what
//! a caller is told: processes that disagree about the members conflict more often, and nothing else happens.

/// Identifier of one life of a process: drawn at its start, so that a restarted process is a new member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// A process that sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ProcessId,
    /// Number of its shards, at least 1.
    pub shards: u16,
}

/// All members, this process among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// By id, without duplicates; never empty.
    members: Vec<Member>,
    /// Position of this process.
    own: usize,
}

impl Members {
    /// This process alone.
    pub fn single(own: Member) -> Self {
        Self { members: vec![own], own: 0 }
    }

    /// This process and others. Of several entries with one id the first counts; an entry with the id of this process
    /// is ignored.
    pub fn new(own: Member, others: impl IntoIterator<Item = Member>) -> Self {
        // The sort is stable, so this process comes first among entries with its id.
        let mut members: Vec<Member> = std::iter::once(own).chain(others).collect();
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let position = members.iter().position(|member| member.id == own.id).unwrap_or(0);
        Self { members, own: position }
    }

    /// By id.
    pub fn all(&self) -> &[Member] {
        &self.members
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Position of this process among the members, from 0.
    pub fn own_position(&self) -> usize {
        self.own
    }

    pub fn own(&self) -> Option<Member> {
        self.members.get(self.own).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, shards: u16) -> Member {
        Member { id: ProcessId(id), shards }
    }

    #[test]
    fn members_are_ordered_by_id_and_this_process_is_always_among_them() {
        let members = Members::new(member(5, 2), [member(9, 1), member(5, 7), member(1, 4)]);
        assert_eq!(members.all(), [member(1, 4), member(5, 2), member(9, 1)]);
        assert_eq!((members.own_position(), members.own()), (1, Some(member(5, 2))));
        assert_eq!(Members::single(member(3, 1)).count(), 1);
    }
}
