//! The check of the JSON that a client publishes, beside a scan that only counts brackets.
//!
//! Both run in this process, in turn, and the fastest round of each counts: other processes can only slow one down.

use std::hint::black_box;
use std::time::Duration;

use phalanx_core::protocol::check_json;
use tokio::time::Instant;

/// The time of a round; the shortest of many such rounds is that of an undisturbed machine.
const ROUND: Duration = Duration::from_millis(4);

/// The time per text of one kind, in nanoseconds.
pub(crate) struct Timed {
    name: &'static str,
    check: f64,
    brackets: f64,
}

/// Measures texts of several kinds.
pub(crate) fn all(rounds: usize) -> Vec<Timed> {
    let repeated = |part: &str| format!("[{}0]", part.repeat(65_000 / part.len()));
    let texts = [
        (
            "object, 100 B",
            format!(r#"{{"user":"ada","text":"{}","at":1795932129540,"tags":["a","b"]}}"#, "x".repeat(38)),
        ),
        ("text, 65 KB", format!("\"{}\"", "lorem ipsum dolor ".repeat(65_000 / 18))),
        ("numbers, 65 KB", repeated("1795932.25,")),
        ("exponents, 65 KB", repeated("1.5e10,")),
        ("objects, 65 KB", repeated(r#"{"id":"ada","x":1},"#)),
    ];
    texts.into_iter().map(|(name, text)| measure(name, &text, rounds)).collect()
}

/// The figures as lines of a table.
pub(crate) fn table(all: &[Timed]) -> String {
    let line = |timed: &Timed| format!("{:<18}{:>10.0} ns{:>10.0} ns\n", timed.name, timed.check, timed.brackets);
    format!("{:<18}{:>13}{:>13}\n{}", "text", "check", "brackets", all.iter().map(line).collect::<String>())
}

fn measure(name: &'static str, text: &str, rounds: usize) -> Timed {
    let (mut check, mut brackets) = (f64::MAX, f64::MAX);
    for _ in 0..rounds {
        check = check.min(round(|| check_json(black_box(text)).is_ok()));
        brackets = brackets.min(round(|| depth_of(black_box(text)) > 0));
    }
    Timed { name, check, brackets }
}

fn round(mut run: impl FnMut() -> bool) -> f64 {
    let (start, mut runs) = (Instant::now(), 0_u32);
    loop {
        for _ in 0..8 {
            black_box(run());
        }
        runs += 8;
        let elapsed = start.elapsed();
        if elapsed >= ROUND {
            return elapsed.as_nanos() as f64 / f64::from(runs);
        }
    }
}

/// Returns the nesting depth of a JSON text: the least that a check of a message must do.
fn depth_of(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
