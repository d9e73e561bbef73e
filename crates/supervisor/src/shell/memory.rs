//! Memory: of a process, and how often the kernel has killed for it.

/// The file in the cgroup of this process that counts what the kernel did about its memory.
#[derive(Debug)]
pub(super) struct MemoryEvents {
    path: Option<String>,
    oom_kills: u64,
}

impl MemoryEvents {
    pub(super) fn of_process() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let path = group.map(|group| format!("/sys/fs/cgroup{}/memory.events", group.trim_end_matches('/')));
        let mut events = Self { path, oom_kills: 0 };
        events.take_rise();
        events
    }

    /// Whether the kernel has killed a process of the cgroup since the last call.
    pub(super) fn take_rise(&mut self) -> bool {
        let text = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let kills = oom_kills(&text).unwrap_or(self.oom_kills);
        std::mem::replace(&mut self.oom_kills, kills) < kills
    }
}

fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

/// The resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kills_of_a_cgroup_are_read() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_kills(""), None);
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
