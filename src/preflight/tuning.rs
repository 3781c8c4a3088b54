//! Compares kernel settings with the table that `tuning/host.sh` applies. Differences are notes and never prevent a
//! start. Not here: the recommended values (`tuning/kernel.tsv`), and changing them.

use std::fs;
use std::path::Path;

use super::{CheckResult, PreflightCheck};

/// The same file that the script reads.
const TABLE: &str = include_str!("../../tuning/kernel.tsv");

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct HostSetting<'a> {
    name: &'a str,
    /// True: the file lists all choices, with the current one in brackets. False: the file has one value.
    is_choice: bool,
    /// Absolute path; `cpu*` means each CPU of a shard.
    path: &'a str,
    rule: &'a str,
    wanted: &'a str,
}

impl<'a> HostSetting<'a> {
    /// `None` for a comment.
    fn of(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split('\t');
        let [name, kind, path, rule, wanted] = std::array::from_fn(|_| fields.next().unwrap_or(""));
        Some(Self { name, is_choice: kind == "choice", path, rule, wanted })
    }

    fn fits(&self, value: &str) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        match self.rule {
            "min" => number(value) >= number(self.wanted),
            "max" => number(value).is_some_and(|value| Some(value) <= number(self.wanted)),
            "any" => self.wanted.split(' ').any(|word| word == value),
            _ => value == self.wanted,
        }
    }

    fn wish(&self) -> String {
        match self.rule {
            "min" => format!("at least {}", self.wanted),
            "max" => format!("at most {}", self.wanted),
            _ => self.wanted.replace(' ', " or "),
        }
    }

    /// The value at one path; `None` if the file does not exist or cannot be read.
    fn value(&self, root: &Path, path: &str) -> Option<String> {
        let text = fs::read_to_string(root.join(path.trim_start_matches('/'))).ok()?;
        let text = text.trim();
        if !self.is_choice {
            return Some(text.to_owned());
        }
        let (_, chosen) = text.split_once('[')?;
        Some(chosen.split_once(']')?.0.to_owned())
    }

    /// The first value, over the CPUs, that differs from the recommended one.
    fn differing(&self, root: &Path, shard_cpus: &[usize]) -> Option<String> {
        let off = |path: &str| {
            self.value(root, path).filter(|value| !value.is_empty() && !self.fits(value))
        };
        if !self.path.contains("cpu*") {
            return off(self.path);
        }
        shard_cpus.iter().find_map(|cpu| off(&self.path.replace("cpu*", &format!("cpu{cpu}"))))
    }
}

/// The host's settings that differ from the table. A container sees only some of them: settings that do not exist are
/// skipped.
pub(super) fn check(root: &Path, shard_cpus: &[usize]) -> PreflightCheck {
    let settings: Vec<HostSetting> = TABLE.lines().filter_map(HostSetting::of).collect();
    let off: Vec<String> = settings
        .iter()
        .filter_map(|setting| {
            let value = setting.differing(root, shard_cpus)?;
            Some(format!("{} is {value} (wanted {})", setting.name, setting.wish()))
        })
        .collect();
    if off.is_empty() {
        return PreflightCheck::ok(
            "host",
            "no kernel setting differs from tuning/host.sh".to_owned(),
        );
    }
    PreflightCheck {
        name: "host",
        verdict: CheckResult::Note,
        finding: off.join(", "),
        fixes: vec![
            "as root on the host: tuning/host.sh --check --why, then --apply --yes".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";

    #[test]
    fn every_line_of_the_table_is_one_that_can_be_judged() {
        let settings: Vec<HostSetting> = TABLE.lines().filter_map(HostSetting::of).collect();
        assert!(settings.len() >= 10, "{settings:?}");
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            assert_eq!(line.split('\t').count(), 7, "{line}");
        }
        for setting in settings {
            assert!(["min", "max", "is", "any"].contains(&setting.rule), "{setting:?}");
            assert!(setting.path.starts_with('/'), "{setting:?}");
            let first = setting.wanted.split(' ').next().unwrap();
            assert!(setting.fits(first), "{setting:?} does not fit itself");
            assert!(!setting.fits("nonsense"), "{setting:?}");
        }
    }

    #[test]
    fn differing_setting_is_named_with_the_required_value() {
        let root = tree(&[
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("proc/sys/net/core/busy_poll", "0\n"),
            (THP, "[always] madvise never\n"),
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n"),
        ]);
        let found = check(root.path(), &[2, 3]);
        assert_eq!(found.verdict, CheckResult::Note);
        assert_eq!(
            found.finding,
            "somaxconn is 128 (wanted at least 1024), swappiness is 60 (wanted at most 1), \
             thp is always (wanted madvise or never), governor is powersave (wanted performance)"
        );
        // The CPU has no shard.
        assert!(!check(root.path(), &[2]).finding.contains("governor"));
    }

    #[test]
    fn matching_and_missing_settings_are_fine() {
        let root =
            tree(&[("proc/sys/net/core/somaxconn", "4096\n"), (THP, "always [madvise] never\n")]);
        assert_eq!(check(root.path(), &[0]).verdict, CheckResult::Ok);
    }
}
