//! The queues that a node serves, in their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use phalanx_core::bound_reached;
use phalanx_core::config::TaskSettings;

/// Most queues that `*` stands for.
const MAX_STARRED: usize = 1000;

/// The queues by the settings, where `*` stands for all others that tasks name or the store has, by name.
pub(crate) fn serve(settings: &[String], of_tasks: &[&str], stored: &[String]) -> Arc<[Arc<str>]> {
    let mut others: BTreeSet<&str> = of_tasks.iter().copied().chain(stored.iter().map(String::as_str)).collect();
    others.retain(|queue| !settings.iter().any(|named| named == queue));
    if others.len() > MAX_STARRED {
        bound_reached("task_queues");
    }
    let mut queues: Vec<Arc<str>> = Vec::new();
    for queue in settings {
        if queue == TaskSettings::ALL_QUEUES {
            queues.extend(others.iter().take(MAX_STARRED).map(|queue| Arc::from(*queue)));
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
    }
}
