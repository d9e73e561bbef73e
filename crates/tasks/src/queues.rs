//! The queues that a node serves, in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::bound_reached;
use phalanx_core::config::TaskSettings;

/// Most queues that `*` stands for.
const MAX_STARRED: usize = 1000;

/// The queues by the settings, where `*` stands for all others that tasks name or the store has, by name. Beyond the bound,
/// those of tasks come before stored ones: queues that others fill cannot displace them. Stored names that no queue can
/// have are left out, as their jobs could not be fetched.
pub(crate) fn serve(settings: &[String], of_tasks: &[&str], stored: &[String]) -> Arc<[Arc<str>]> {
    let is_other = |queue: &&str| !settings.iter().any(|named| named == queue);
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
    let mut queues: Vec<Arc<str>> = Vec::new();
    for queue in settings {
        if queue == TaskSettings::ALL_QUEUES {
            queues.extend(others.iter().map(|queue| Arc::from(*queue)));
        } else {
            queues.push(queue.as_str().into());
        }
    }
    queues.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_all_queues_that_are_not_named() {
        let stored: Vec<String> = ["low", "z", "high"].map(str::to_owned).to_vec();
        for (settings, expected) in [
            (vec!["*"], vec!["default", "high", "low", "z"]),
            (vec!["high", "*", "low"], vec!["high", "default", "z", "low"]),
            (vec!["low", "high"], vec!["low", "high"]),
            (vec!["none"], vec!["none"]),
        ] {
            let settings: Vec<String> = settings.into_iter().map(str::to_owned).collect();
            let served = serve(&settings, &["default", "low"], &stored);
            assert_eq!(served.iter().map(|queue| &**queue).collect::<Vec<_>>(), expected, "{settings:?}");
        }
    }

    #[test]
    fn a_star_has_a_bound() {
        let stored: Vec<String> = (0..MAX_STARRED + 5).map(|n| format!("q{n}")).collect();
        assert_eq!(serve(&["*".to_owned()], &[], &stored).len(), MAX_STARRED);
        let served = serve(&["*".to_owned()], &["zoo"], &stored);
        assert_eq!(
            (served.len(), served.last().map(|queue| &**queue)),
            (MAX_STARRED, Some("zoo")),
            "a task's comes first"
        );
    }

    #[test]
    fn stored_names_that_no_queue_can_have_are_left_out() {
        let stored = ["a b", "", "new\nline", "ü", "good", &"x".repeat(101)].map(str::to_owned).to_vec();
        assert_eq!(*serve(&["*".to_owned()], &["default"], &stored), ["default".into(), "good".into()]);
    }
}
