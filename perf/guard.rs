//! What a request costs in instructions, from its bytes to the bytes of its answer: the part that
//! `perf/guard.sh` runs under callgrind. Does one kind of request so many times and says nothing.
//!
//! Must not live here: what may not be exceeded (`baseline.txt`), HTTP/2, a store, a clock.

#![allow(clippy::unwrap_used)]

use self::paper_shard::{Shard, check, commits};

#[path = "../tests/common/paper_shard.rs"]
mod paper_shard;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let kind = args.next();
    let times = args.next().and_then(|times| times.parse::<u64>().ok());
    let (Some(kind), Some(times)) = (kind, times) else {
        eprintln!("usage: perf_guard <direct|repeat|check> <TIMES>; see perf/guard.sh");
        std::process::exit(64);
    };
    let mut shard = Shard::new();
    match kind.as_str() {
        "direct" => {
            shard.commit_all(&commits(times));
            assert_eq!(shard.counters().members, times);
        }
        "repeat" => {
            let body = &commits(1)[0];
            shard.commit_one(body);
            shard.repeat(body, times);
        }
        "check" => shard.check(&check(), times),
        other => {
            eprintln!("unknown kind {other}: want direct, repeat or check");
            std::process::exit(64);
        }
    }
}
