//! What was measured, in a table a person can read.

use crate::row::Row;

/// What one row came to.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// CPU or time per operation of the node, microseconds; or bytes for idle sockets.
    pub(crate) ours: f64,
    /// The same of the ceiling; none for idle sockets.
    pub(crate) theirs: Option<f64>,
    /// What the gate is for: the ratio of both, or what the node takes where there is no ceiling.
    pub(crate) value: f64,
    /// The least and the most of a single round.
    pub(crate) span: (f64, f64),
}

impl Measured {
    /// Of rounds that each gave a value, the median of which counts; with what both sides took, if there are two.
    pub(crate) fn median(row: Row, sides: Option<(f64, f64)>, mut values: Vec<f64>) -> Self {
        let value = middle(&mut values);
        let (ours, theirs) = sides.map_or((value, None), |(ours, theirs)| (ours, Some(theirs)));
        Self { row, ours, theirs, value, span: (values[0], values[values.len() - 1]) }
    }

    /// Whether the row keeps its gate.
    pub(crate) fn within_gate(&self) -> bool {
        self.row.budget().is_none_or(|(gate, _)| self.value <= gate)
    }
}

/// Sorts, and says what stands in the middle.
pub(crate) fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
        let span = format!("{}..{}", show(result.span.0), show(result.span.1));
        let (gate, goal, verdict) = match result.row.budget() {
            None => ("-".to_owned(), "-".to_owned(), "reported"),
            Some((gate, goal)) => {
                let verdict = if result.value <= goal {
                    "goal met"
                } else if result.value <= gate {
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
            show(result.value),
            span,
            gate,
            goal,
        ));
    }
    lines.join("\n")
}
