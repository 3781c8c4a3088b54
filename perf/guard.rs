//! Instructions per request, from the bytes of the request to the bytes of the answer: the program that
//! `perf/guard.sh` runs under callgrind. Executes one kind of request a given number of times, without output.
//!
//! HTTP/2, a store and a clock must not be part of it; the bounds are in `baseline.txt`.

#![allow(clippy::unwrap_used)]

mod fake_shard;

use self::fake_shard::{FakeShard, check, commits};

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let kind = args.next();
    let times = args.next().and_then(|times| times.parse::<u64>().ok());
    let (Some(kind), Some(times)) = (kind, times) else {
        eprintln!("usage: perf_guard <direct|repeat|check> <TIMES>; see perf/guard.sh");
        std::process::exit(64);
    };
    let mut shard = FakeShard::new();
    match kind.as_str() {
        "direct" => {
            shard.commit_all(&commits(times));
            assert_eq!(shard.counters().entries, times);
        }
        "repeat" => {
            let body = &commits(1)[0];
            shard.commit_one(body);
            shard.repeat(body, times);
        }
        "check" => shard.check(&check(), times),
        other => {
            eprintln!("unknown kind {other}: must be direct, repeat or check");
            std::process::exit(64);
        }
    }
}
