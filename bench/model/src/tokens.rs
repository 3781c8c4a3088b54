//! Tokens of transactions and the requests sent under them, for ten minutes.
//!
//! Bounded: a token is kept as a hash of 16 bytes; beyond [`limits::TOKENS_MAX`] the oldest is evicted early,
//! which the report counts. Only applied transactions are kept: a cancelled one may be sent again and is then
//! decided anew.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use crate::ModelTime;
use crate::key::seeded_hasher;
use crate::limits;

/// A token and the fingerprint of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestToken {
    id: u128,
    body: u64,
}

impl RequestToken {
    pub(crate) fn new(text: &str, body: u64) -> Self {
        let part = |purpose| u128::from(seeded_hasher(purpose).hash_one(text));
        Self { id: part(2) << 64 | part(3), body }
    }
}

#[derive(Clone, Copy, Debug)]
enum TokenState {
    InProgress,
    Applied,
}

/// Status of a token when a transaction arrives with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenStatus {
    New,
    InProgress,
    Applied,
    Mismatch,
}

#[derive(Debug, Default)]
pub(crate) struct TokenStore {
    known: HashMap<u128, (u64, TokenState)>,
    /// Tokens of applied transactions by expiry.
    expiries: VecDeque<(ModelTime, u128)>,
    pub(crate) evicted_early: u64,
}

impl TokenStore {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Starts the transaction of a new token.
    pub(crate) fn begin(&mut self, token: RequestToken, now: ModelTime) -> TokenStatus {
        while let Some((_, id)) = self.expiries.pop_front_if(|(end, _)| *end <= now) {
            self.known.remove(&id);
        }
        match self.known.get(&token.id) {
            Some((body, _)) if *body != token.body => TokenStatus::Mismatch,
            Some((_, TokenState::InProgress)) => TokenStatus::InProgress,
            Some((_, TokenState::Applied)) => TokenStatus::Applied,
            None => {
                self.known.insert(token.id, (token.body, TokenState::InProgress));
                TokenStatus::New
            }
        }
    }

    pub(crate) fn applied(&mut self, token: RequestToken, now: ModelTime) {
        self.known.insert(token.id, (token.body, TokenState::Applied));
        self.expiries.push_back((now + limits::TOKEN_LIFE, token.id));
        if self.expiries.len() > limits::TOKENS_MAX
            && let Some((_, id)) = self.expiries.pop_front()
        {
            self.known.remove(&id);
            self.evicted_early += 1;
        }
    }

    pub(crate) fn cancelled(&mut self, token: RequestToken) {
        self.known.remove(&token.id);
    }
}
