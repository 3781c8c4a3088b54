//! Replays the corpus of a fuzz target, so that a case which the fuzzer has found stays found, on a stable compiler and within
//! seconds. The fuzzer itself: `tests/fuzz`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time for one input, far above what any takes in a debug build on a busy machine: a parser whose time is not
/// proportional to its input exceeds it.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs `target` on each file of `tests/fuzz/corpus/NAME`.
///
/// # Panics
/// If there is no file, or an input makes the target panic or takes longer than ten seconds; the message before names the
/// file.
pub fn replay(name: &str, target: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{corpus:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{corpus:?} has no inputs");
    for path in paths {
        let input = fs::read(&path).unwrap();
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let took = begun.elapsed();
        if let Err(panic) = outcome {
            eprintln!("{name}: the panic above is caused by the input {}", path.display());
            resume_unwind(panic);
        }
        assert!(took < INPUT_TIME_MAX, "{name}: {} took {took:?}", path.display());
    }
}
