//! Results of rows and their table.

use crate::row::Row;

/// The result of one row.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// The node's CPU time or duration per operation in microseconds; bytes for idle sockets.
    pub(crate) ours: f64,
    /// The same for the ceiling; none for idle sockets.
    pub(crate) theirs: Option<f64>,
    /// The value that the gate bounds: the ratio of both, or the node's own value if there is no ceiling.
    pub(crate) value: f64,
    /// The minimum and maximum over single rounds.
    pub(crate) span: (f64, f64),
}

impl Measured {
    /// The result of rounds whose median counts; `sides` has the values of node and ceiling, if there are two.
    pub(crate) fn median(row: Row, sides: Option<(f64, f64)>, mut values: Vec<f64>) -> Self {
        let value = middle(&mut values);
        let (ours, theirs) = sides.map_or((value, None), |(ours, theirs)| (ours, Some(theirs)));
        Self { row, ours, theirs, value, span: (values[0], values[values.len() - 1]) }
    }

    /// Whether the value is within the row's gate.
    pub(crate) fn within_gate(&self) -> bool {
        self.row.budget().is_none_or(|(gate, _)| self.value <= gate)
    }
}

/// Sorts the values and returns the median.
pub(crate) fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Formats all rows, one a line.
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
