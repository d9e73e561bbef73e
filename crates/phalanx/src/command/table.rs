//! Tables for people, which scripts can split at two spaces or more.

use std::fmt::Write;

/// Aligns the columns of these rows, the last one as it is. An empty cell is `-`, so that each row has as many.
pub(crate) fn align<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.replace(char::is_control, " ") };
    let rows: Vec<[String; COLUMNS]> = rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    if let Some(last) = widths.last_mut() {
        *last = 0;
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_cell_breaks_its_row() {
        let rows = [["ID", "ERROR"], ["äb", ""], ["c", "two\nlines\u{1b}[0m"]].map(|row| row.map(str::to_owned));
        assert_eq!(align(&rows), "ID  ERROR\näb  -\nc   two lines [0m\n");
    }
}
