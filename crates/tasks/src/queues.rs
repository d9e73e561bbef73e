//! The queues that a node serves, in their order, and what a call may take of each.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use phalanx_core::backend::LimitedQueue;
use phalanx_core::bound_reached;
use phalanx_core::config::{ServedQueue, TaskSettings};

/// Most queues that `*` stands for.
const MAX_STARRED: usize = 1000;

/// The queues that a node serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeQueues {
    /// By the settings' order.
    names: Arc<[Arc<str>]>,
    /// The places that the queues of each entry have among them, and its weight.
    entries: Vec<(Range<usize>, Option<u32>)>,
    /// Most jobs of a queue that the node runs at once.
    limits: HashMap<Arc<str>, usize>,
}

impl NodeQueues {
    /// The queues by the settings, where `*` stands for all others that tasks name or the store has, by name. Beyond the
    /// bound, those of tasks come before stored ones: queues that others fill cannot displace them. Stored names that no
    /// queue can have are left out, as their jobs could not be fetched.
    pub(crate) fn new(settings: &[ServedQueue], of_tasks: &[&str], stored: &[String]) -> Self {
        let others = others(settings, of_tasks, stored);
        let (mut names, mut entries, mut limits) = (Vec::new(), Vec::new(), HashMap::new());
        for entry in settings {
            let first = names.len();
            if entry.name == TaskSettings::ALL_QUEUES {
                names.extend(others.iter().map(|queue| Arc::<str>::from(*queue)));
            } else {
                names.push(entry.name.as_str().into());
            }
            entries.push((first..names.len(), entry.weight));
            if let Some(limit) = entry.concurrency {
                limits.extend(names[first..].iter().map(|queue| (queue.clone(), limit)));
            }
        }
        Self { names: names.into(), entries, limits }
    }

    /// All of them, in the order of the settings.
    pub(crate) fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    pub(crate) fn contains(&self, queue: &str) -> bool {
        self.names.iter().any(|name| **name == *queue)
    }

    /// Those of some queues with limits that are not among them.
    pub(crate) fn left_out<'a>(&self, queues: &'a [LimitedQueue]) -> Vec<&'a str> {
        let limited = queues.iter().filter(|limited| !limited.limits.is_none());
        limited.map(|limited| &*limited.queue).filter(|queue| !self.contains(queue)).collect()
    }

    /// Whether a queue has a limit.
    pub(crate) fn has_limits(&self) -> bool {
        !self.limits.is_empty()
    }

    /// The order of the queues for one call. Neighbours with a weight take turns: each is the first of them as often as its
    /// weight says, and each next one likewise among those that are left. `draw` returns a random number below its argument.
    pub(crate) fn order(&self, mut draw: impl FnMut(u32) -> u32) -> Arc<[Arc<str>]> {
        if self.entries.iter().all(|(_, weight)| weight.is_none()) {
            return self.names.clone();
        }
        let mut order: Vec<Arc<str>> = Vec::with_capacity(self.names.len());
        for group in self.entries.chunk_by(|(_, one), (_, other)| one.is_some() && other.is_some()) {
            let mut left: Vec<&(Range<usize>, Option<u32>)> = group.iter().collect();
            while left.len() > 1 {
                let weights = left.iter().map(|(_, weight)| weight.unwrap_or(1));
                let mut drawn = draw(weights.clone().sum());
                let chosen = weights.into_iter().position(|weight| match drawn.checked_sub(weight) {
                    Some(rest) => {
                        drawn = rest;
                        false
                    }
                    None => true,
                });
                let (places, _) = left.remove(chosen.unwrap_or(0));
                order.extend(self.names[places.clone()].iter().cloned());
            }
            order.extend(left.into_iter().flat_map(|(places, _)| self.names[places.clone()].iter().cloned()));
        }
        order.into()
    }

    /// The queues of a call and the most jobs that it may take of each, where some have limits. `taken` has how many slots
    /// each queue has, with those that calls under way may fill, and without those that this call's settlements free. A
    /// queue at its limit is left out: what waits there is no reason to look again.
    pub(crate) fn within_limits(
        &self,
        order: &[Arc<str>],
        taken: &HashMap<Arc<str>, usize>,
    ) -> (Vec<Arc<str>>, Vec<usize>) {
        let left = order.iter().filter_map(|queue| {
            let left = match self.limits.get(queue) {
                Some(limit) => limit.saturating_sub(taken.get(queue).copied().unwrap_or(0)),
                None => usize::MAX,
            };
            (left > 0).then(|| (queue.clone(), left))
        });
        left.unzip()
    }
}

/// The queues that `*` stands for.
fn others<'a>(settings: &[ServedQueue], of_tasks: &[&'a str], stored: &'a [String]) -> BTreeSet<&'a str> {
    let is_other = |queue: &&str| !settings.iter().any(|named| named.name == **queue);
    let mut others: BTreeSet<&str> = of_tasks.iter().copied().filter(is_other).collect();
    let stored: BTreeSet<&str> =
        stored.iter().map(String::as_str).filter(|queue| TaskSettings::is_queue(queue)).collect();
    for queue in stored.into_iter().filter(is_other) {
        if others.len() >= MAX_STARRED && !others.contains(queue) {
            bound_reached("task_queues");
            break;
        }
        others.insert(queue);
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(settings: &[&str], of_tasks: &[&str], stored: &[&str]) -> NodeQueues {
        let settings: Vec<ServedQueue> = settings.iter().map(|entry| ServedQueue::parse(entry).unwrap()).collect();
        let stored: Vec<String> = stored.iter().map(|queue| (*queue).to_owned()).collect();
        NodeQueues::new(&settings, of_tasks, &stored)
    }

    fn texts(queues: &[Arc<str>]) -> Vec<&str> {
        queues.iter().map(|queue| &**queue).collect()
    }

    #[test]
    fn a_star_stands_for_all_queues_that_are_not_named() {
        for (settings, expected) in [
            (&["*"][..], &["default", "high", "low", "z"][..]),
            (&["high weight=2", "*", "low concurrency=1"], &["high", "default", "z", "low"]),
            (&["low", "high"], &["low", "high"]),
            (&["none"], &["none"]),
        ] {
            let served = serve(settings, &["default", "low"], &["low", "z", "high"]);
            assert_eq!(texts(served.names()), expected, "{settings:?}");
        }
    }

    #[test]
    fn queues_with_limits_of_the_cluster_that_are_left_out_are_named() {
        let limits = phalanx_core::backend::QueueLimits { running: Some(1), rate: None };
        let limited = ["low", "report"].map(|queue| LimitedQueue::new(queue, limits));
        for (settings, expected) in [(&["low"][..], &["report"][..]), (&["high"], &["low", "report"]), (&["*"], &[])] {
            assert_eq!(serve(settings, &["low", "report"], &[]).left_out(&limited), expected, "{settings:?}");
        }
    }

    #[test]
    fn a_star_has_a_bound() {
        let stored: Vec<String> = (0..MAX_STARRED + 5).map(|n| format!("q{n}")).collect();
        let star = [ServedQueue::parse("*").unwrap()];
        assert_eq!(NodeQueues::new(&star, &[], &stored).names().len(), MAX_STARRED);
        let served = NodeQueues::new(&star, &["zoo"], &stored);
        let last = served.names().last().map(|queue| &**queue);
        assert_eq!((served.names().len(), last), (MAX_STARRED, Some("zoo")), "a task's comes first");
    }

    #[test]
    fn stored_names_that_no_queue_can_have_are_left_out() {
        let served = serve(&["*"], &["default"], &["a b", "", "new\nline", "ü", "good", &"x".repeat(101)]);
        assert_eq!(texts(served.names()), ["default", "good"]);
    }

    #[test]
    fn neighbours_with_weights_take_turns_and_others_have_their_places() {
        // The draws of a call, and the order that follows.
        for (settings, draws, order) in [
            (&["a", "b", "*"][..], &[][..], "a b x y"),
            (&["a weight=3", "b weight=1"], &[(4, 0)], "a b"),
            (&["a weight=3", "b weight=1"], &[(4, 2)], "a b"),
            (&["a weight=3", "b weight=1"], &[(4, 3)], "b a"),
            (&["top", "a weight=3", "b weight=1", "last"], &[(4, 3)], "top b a last"),
            (&["a weight=1", "b weight=2", "c weight=3"], &[(6, 5), (3, 1)], "c b a"),
            (&["a weight=1", "b weight=2", "c weight=3"], &[(6, 1), (4, 0)], "b a c"),
            // Groups that are apart do not mix; a star keeps its queues together.
            (&["a weight=1", "b weight=1", "m", "c weight=1", "d weight=1"], &[(2, 1), (2, 1)], "b a m d c"),
            (&["a weight=1", "* weight=1"], &[(2, 1)], "x y a"),
            (&["a weight=9"], &[], "a"),
        ] {
            let mut left = draws.iter();
            let served = serve(settings, &["x", "y"], &[]);
            let drawn = served.order(|below| {
                let (expected, drawn) = left.next().expect("a draw");
                assert_eq!(below, *expected, "{settings:?}");
                *drawn
            });
            assert_eq!(texts(&drawn).join(" "), order, "{settings:?} {draws:?}");
            assert_eq!(left.next(), None);
        }
    }

    #[test]
    fn a_queue_at_its_limit_is_left_out_of_a_call() {
        let served = serve(&["a concurrency=2", "b", "* concurrency=1"], &["x", "y"], &[]);
        assert!(served.has_limits() && !serve(&["a weight=2", "b"], &[], &[]).has_limits());
        const ALL: usize = usize::MAX;
        for (taken, queues, limits) in [
            (&[][..], "a b x y", &[2, ALL, 1, 1][..]),
            (&[("a", 1), ("b", 50)], "a b x y", &[1, ALL, 1, 1]),
            (&[("a", 2), ("x", 1)], "b y", &[ALL, 1]),
            (&[("a", 5)], "b x y", &[ALL, 1, 1]),
        ] {
            let taken = taken.iter().map(|(queue, count)| (Arc::from(*queue), *count)).collect();
            let (names, most) = served.within_limits(served.names(), &taken);
            assert_eq!((texts(&names).join(" ").as_str(), &most[..]), (queues, limits), "{taken:?}");
        }
    }
}
