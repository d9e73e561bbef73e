//! What was measured, in a table a person can read.

use crate::row::Row;

/// What one row came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// CPU per operation of the node, microseconds; or bytes for idle sockets.
    pub(crate) ours: f64,
    /// The same of the ceiling; none for idle sockets.
    pub(crate) theirs: Option<f64>,
    /// Every round's ratio (or bytes), sorted.
    pub(crate) values: Vec<f64>,
}

impl Measured {
    /// The median round.
    fn value(&self) -> f64 {
        self.values[self.values.len() / 2]
    }

    /// Whether the row keeps its gate.
    pub(crate) fn within_gate(&self) -> bool {
        self.row.budget().is_none_or(|(gate, _)| self.value() <= gate)
    }
}

/// All rows, one a line.
pub(crate) fn table(results: &[Measured]) -> String {
    let mut lines = vec![format!(
        "{:<44} {:>10} {:>10} {:>8} {:>17} {:>8} {:>8}  verdict",
        "work", "node", "ceiling", "value", "min..max", "gate", "goal"
    )];
    for result in results {
        let theirs = result.theirs.map_or_else(|| "-".to_owned(), |theirs| format!("{theirs:.2}us"));
        let is_ratio = result.theirs.is_some();
        let show = |value: f64| if is_ratio { format!("{value:.3}") } else { format!("{value:.0}") };
        let ours = if is_ratio { format!("{:.2}us", result.ours) } else { format!("{:.0}", result.ours) };
        let span = format!("{}..{}", show(result.values[0]), show(result.values[result.values.len() - 1]));
        let (gate, goal, verdict) = match result.row.budget() {
            None => ("-".to_owned(), "-".to_owned(), "reported"),
            Some((gate, goal)) => {
                let value = result.value();
                let verdict = if value <= goal {
                    "goal met"
                } else if value <= gate {
                    "gate met"
                } else {
                    "MISSED"
                };
                (show(gate), show(goal), verdict)
            }
        };
        lines.push(format!(
            "{:<44} {:>10} {:>10} {:>8} {:>17} {:>8} {:>8}  {verdict}",
            result.row.title(),
            ours,
            theirs,
            show(result.value()),
            span,
            gate,
            goal,
        ));
    }
    lines.join("\n")
}
