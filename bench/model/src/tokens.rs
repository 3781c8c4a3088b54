//! Tokens of transactions: what was asked for under them, for ten minutes.
//!
//! Bounded: a token is kept as 16 bytes of hash, and past [`limits::TOKENS_MAX`] the oldest is
//! forgotten early, which the report counts. Only transactions that were applied are remembered; one
//! that was cancelled may be sent again and is then judged anew.

use std::collections::{HashMap, VecDeque};

use crate::Micros;
use crate::key::fingerprint;
use crate::limits;

/// A token and what was asked for under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    id: u128,
    body: u64,
}

impl Token {
    pub(crate) fn new(text: &str, body: u64) -> Self {
        let part = |mark| u128::from(fingerprint(mark, &[text.as_bytes()]));
        Self {
            id: part(0xfe) << 64 | part(0xff),
            body,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    InProgress,
    Applied,
}

/// What a token says of a transaction that comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    InProgress,
    Applied,
    Mismatch,
}

#[derive(Debug, Default)]
pub(crate) struct Tokens {
    known: HashMap<u128, (u64, State)>,
    /// Applied ones, by when they are forgotten.
    ends: VecDeque<(Micros, u128)>,
    pub(crate) forgotten_early: u64,
}

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// A new one is in progress from here on.
    pub(crate) fn begin(&mut self, token: Token, now: Micros) -> Verdict {
        while let Some((_, id)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.known.remove(&id);
        }
        match self.known.get(&token.id) {
            Some((body, _)) if *body != token.body => Verdict::Mismatch,
            Some((_, State::InProgress)) => Verdict::InProgress,
            Some((_, State::Applied)) => Verdict::Applied,
            None => {
                self.known.insert(token.id, (token.body, State::InProgress));
                Verdict::New
            }
        }
    }

    pub(crate) fn applied(&mut self, token: Token, now: Micros) {
        self.known.insert(token.id, (token.body, State::Applied));
        self.ends.push_back((now + limits::TOKEN_LIFE, token.id));
        if self.ends.len() > limits::TOKENS_MAX
            && let Some((_, id)) = self.ends.pop_front()
        {
            self.known.remove(&id);
            self.forgotten_early += 1;
        }
    }

    pub(crate) fn cancelled(&mut self, token: Token) {
        self.known.remove(&token.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_new_then_in_progress_then_applied_for_ten_minutes() {
        let mut tokens = Tokens::default();
        let (token, other) = (Token::new("t", 1), Token::new("t", 2));
        assert_eq!(tokens.begin(token, 0), Verdict::New);
        assert_eq!(tokens.begin(token, 1), Verdict::InProgress);
        assert_eq!(tokens.begin(other, 1), Verdict::Mismatch);
        tokens.applied(token, 5);
        assert_eq!(
            tokens.begin(token, limits::TOKEN_LIFE + 4),
            Verdict::Applied
        );
        assert_eq!(
            tokens.begin(other, limits::TOKEN_LIFE + 4),
            Verdict::Mismatch
        );
        assert_eq!(tokens.begin(other, limits::TOKEN_LIFE + 5), Verdict::New);
    }

    #[test]
    fn a_cancelled_one_is_judged_anew() {
        let mut tokens = Tokens::default();
        let token = Token::new("t", 1);
        assert_eq!(tokens.begin(token, 0), Verdict::New);
        tokens.cancelled(token);
        assert_eq!(tokens.begin(token, 0), Verdict::New);
        assert_eq!(tokens.len(), 1);
    }
}
