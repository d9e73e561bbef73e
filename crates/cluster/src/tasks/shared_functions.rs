//! The functions that scripts of tasks share. Redis defines those of a script anew in each call, which costs a no-op job as much as
//! a command where many do not use them, so a script has only those that it names.

const ALL: &str = include_str!("../lua/tasks/shared.lua");

/// A script behind the shared functions that it names and does not define.
pub(super) fn before(script: &str) -> String {
    with(script, |name| !script.contains(&definition(name)))
}

/// The shared functions of these names, and those that they name.
pub(super) fn of_names(names: &[&str]) -> String {
    let calls: String = names.iter().map(|name| format!("{name}(")).collect();
    let text = with(&calls, |_| true);
    text[..text.len() - calls.len()].to_owned()
}

/// A function calls only those before it, so what is named is known from the last to the first.
fn with(text: &str, is_missing: impl Fn(&str) -> bool) -> String {
    let mut linked = text.to_owned();
    for (name, function) in from_the_last() {
        if linked.contains(&format!("{name}(")) && is_missing(name) {
            linked = [function, "\n\n", &linked].concat();
        }
    }
    linked
}

/// Each function with its name. An empty line stands between two, and none in one.
fn from_the_last() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.rsplit("\n\n").filter_map(|function| {
        let (_, definition) = function.split_once("local function ")?;
        Some((definition.split_once('(')?.0, function.trim_end()))
    })
}

fn definition(name: &str) -> String {
    format!("local function {name}(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_and_ends_before_the_next_begins() {
        assert_eq!(from_the_last().count(), ALL.matches("local function ").count());
        assert!(from_the_last().all(|(_, function)| function.ends_with("\nend")), "{ALL}");
    }

    #[test]
    fn a_script_has_the_functions_that_it_names_in_their_order_and_no_others() {
        let script = before("return release(KEYS[1], delay())");
        let names: Vec<_> =
            from_the_last().map(|(name, _)| name).filter(|name| script.contains(&definition(name))).collect();
        assert_eq!(names, ["release", "delay"]);
        assert!(script.find("delay") < script.find("release"), "{script}");
        assert_eq!(before("return 1"), "return 1");
        assert!(script.ends_with("\n\nreturn release(KEYS[1], delay())"));
    }

    #[test]
    fn a_function_that_a_script_defines_within_a_block_stands_there_alone() {
        let block = of_names(&["delay"]);
        let script = before(&format!("if true then\n{block}delay()\nend"));
        assert_eq!(script.matches(&definition("delay")).count(), 1);
        assert!(script.starts_with("if true then\n"));
    }
}
