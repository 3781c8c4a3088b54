//! A memory cgroup for one server, where this machine allows it: version 1 or 2 of the interface, writable by this user.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One version of the interface: where its hierarchy is, and what its files are called.
struct MemoryInterface {
    root: &'static str,
    limit: &'static str,
    unlimited: &'static str,
    usage: &'static str,
    /// Has a line `oom_kill COUNT`.
    events: &'static str,
}

const INTERFACES: [MemoryInterface; 2] = [
    MemoryInterface {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        unlimited: "-1",
        usage: "memory.usage_in_bytes",
        events: "memory.oom_control",
    },
    MemoryInterface {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        unlimited: "max",
        usage: "memory.current",
        events: "memory.events",
    },
];

/// A cgroup; removed when dropped, after its processes have ended.
pub(crate) struct MemoryGroup {
    path: PathBuf,
    interface: MemoryInterface,
}

impl MemoryGroup {
    /// `None` if no such group can be made here.
    pub(crate) fn create(name: &str) -> Option<Self> {
        INTERFACES.into_iter().find_map(|interface| {
            let path = Path::new(interface.root).join(name);
            fs::create_dir(&path).ok()?;
            let group = Self { path, interface };
            // Without the memory controller the files are missing, and the directory is removed again.
            let is_usable = group.usage_bytes().is_ok() && group.lift_limit().is_ok();
            is_usable.then_some(group)
        })
    }

    /// Moves a process into the group. Memory that it has already is not counted.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    fn usage_bytes(&self) -> io::Result<u64> {
        let usage = fs::read_to_string(self.path.join(self.interface.usage))?;
        usage.trim().parse().map_err(io::Error::other)
    }

    /// Leaves `spare` bytes above what the group uses now.
    pub(crate) fn limit_to_usage(&self, spare: u64) -> io::Result<()> {
        // The kernel refuses a limit below the usage, which grows meanwhile.
        let mut result = Ok(());
        for _ in 0..20 {
            let limit = (self.usage_bytes()? + spare).to_string();
            result = fs::write(self.path.join(self.interface.limit), limit);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    pub(crate) fn lift_limit(&self) -> io::Result<()> {
        fs::write(self.path.join(self.interface.limit), self.interface.unlimited)
    }

    /// How many processes of the group were killed for memory.
    pub(crate) fn kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join(self.interface.events)).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        kills.unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
