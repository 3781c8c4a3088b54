//! The CPUs that this process may use.

use std::io;

/// The CPUs that the calling thread may run on, ascending: its affinity within its cpuset. Call before
/// any shard is pinned, on the main thread.
///
/// # Errors
/// If the kernel does not report the affinity, as on a machine with more than 1,024 CPUs.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let cores = core_affinity::get_core_ids().ok_or_else(io::Error::last_os_error)?;
    Ok(cores.into_iter().map(|core| core.id).collect())
}

/// Checks that the executor can read the CPU topology. An executor that is to be pinned and cannot read
/// the topology panics.
///
/// # Errors
/// Those of reading `/sys/devices/system`.
pub fn check_topology() -> io::Result<()> {
    glommio::CpuSet::online().map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The numbers of a kernel list such as `0-3,8`.
    fn parse_list(list: &str) -> Vec<usize> {
        let range = |part: &str| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            from.parse().unwrap()..=to.parse().unwrap()
        };
        list.split(',').flat_map(range).collect()
    }

    #[test]
    fn the_allowed_cpus_are_those_of_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let list = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(allowed_cpus().unwrap(), parse_list(list.unwrap().trim()));
    }
}
