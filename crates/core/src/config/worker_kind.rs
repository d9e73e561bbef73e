//! The kinds of workers of `start cluster`.

use serde::{Deserialize, Serialize};

use super::role::NodeRole;

/// Workers with the same roles: an entry of `[[cluster.processes]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WorkerKind {
    /// Its name, a part of the ids of its workers: 1 to 32 characters of `a-z 0-9 -`.
    pub name: String,
    /// Their roles.
    pub roles: Vec<NodeRole>,
    /// How many there are.
    #[serde(default = "one")]
    pub workers: u32,
}

fn one() -> u32 {
    1
}

impl WorkerKind {
    /// Makes an entry with one worker.
    pub fn new(name: impl Into<String>, roles: impl IntoIterator<Item = NodeRole>) -> Self {
        Self { name: name.into(), roles: roles.into_iter().collect(), workers: one() }
    }

    /// Returns the sentence that says why these entries cannot be those of one parent.
    pub(super) fn mistake(kinds: &[Self]) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        for (index, kind) in kinds.iter().enumerate() {
            let name = &kind.name;
            if !(1..=32).contains(&name.len()) || !name.bytes().all(allowed) {
                return Some(format!("cluster.processes: the name {name:?} must be 1 to 32 characters of a-z 0-9 -"));
            }
            if kinds[..index].iter().any(|other| other.name == *name) {
                return Some(format!("cluster.processes: two entries have the name {name:?}"));
            }
            if kind.roles.is_empty() || kind.workers == 0 {
                return Some(format!("cluster.processes: {name:?} needs a role and a worker"));
            }
        }
        let has_web = kinds.iter().any(|kind| kind.roles.contains(&NodeRole::Web));
        (!kinds.is_empty() && !has_web)
            .then(|| "cluster.processes: no entry has the role web, whose workers --workers and TTIN count".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entries_of_a_parent_are_checked() {
        let kind = |name: &str, roles: &[NodeRole]| WorkerKind::new(name, roles.iter().copied());
        let (web, jobs) = (kind("web", &[NodeRole::Web]), kind("jobs", &[NodeRole::Worker, NodeRole::Scheduler]));
        assert_eq!(WorkerKind::mistake(&[]), None);
        assert_eq!(WorkerKind::mistake(&[jobs.clone(), web.clone()]), None);
        let none = WorkerKind { workers: 0, ..web.clone() };
        for (kinds, named) in [
            (vec![jobs.clone(), kind("more", &[NodeRole::Worker])], "no entry has the role web"),
            (vec![web.clone(), kind("web", &[NodeRole::Worker])], "two entries have the name \"web\""),
            (vec![kind("a b", &[NodeRole::Web])], "1 to 32 characters"),
            (vec![web.clone(), kind("x", &[])], "\"x\" needs a role"),
            (vec![none], "needs a role and a worker"),
        ] {
            let mistake = WorkerKind::mistake(&kinds).unwrap();
            assert!(mistake.contains(named), "{mistake}");
        }
    }
}
