//! The functions that some scripts share. Redis defines those of a script anew in each call, which costs a call as much as a small
//! command for each that it does not use, so a script has only those that it names.

/// Constants, then functions, each below an empty line and without one in it. A function calls only those before it.
#[derive(Clone, Copy)]
pub(crate) struct SharedFunctions(&'static str);

impl SharedFunctions {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// A script behind the constants, and the functions that it names and does not define.
    pub(crate) fn before(self, script: &str) -> String {
        let functions = self.linked(script, |name| !script.contains(&definition(name)));
        let constants = self.0.split("\n\n").take_while(|part| !part.contains("local function ")).collect::<Vec<_>>();
        [&*constants.join("\n\n"), "\n\n", &functions, script].concat()
    }

    /// The functions of these names, and those that they name.
    pub(crate) fn of_names(self, names: &[&str]) -> String {
        self.linked(&names.iter().map(|name| call(name)).collect::<String>(), |_| true)
    }

    /// From the last to the first, so that those are known that a function names.
    fn linked(self, text: &str, is_missing: impl Fn(&str) -> bool) -> String {
        let mut linked = String::new();
        for (name, function) in self.in_reverse() {
            let call = call(name);
            if (text.contains(&call) || linked.contains(&call)) && is_missing(name) {
                linked = [function, "\n\n", &linked].concat();
            }
        }
        linked
    }

    /// Each function with its name, from the last to the first.
    fn in_reverse(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.rsplit("\n\n").filter_map(|function| {
            let (_, definition) = function.split_once("local function ")?;
            Some((definition.split_once('(')?.0, function.trim_end()))
        })
    }
}

fn call(name: &str) -> String {
    format!("{name}(")
}

fn definition(name: &str) -> String {
    format!("local function {name}(")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: SharedFunctions = SharedFunctions::new(
        "-- Shared.\nlocal ONE = 1\n\n-- A.\nlocal function a()\n    return ONE\nend\n\nlocal function b()\n    return a()\nend\n\nlocal function c()\nend\n",
    );

    #[test]
    fn every_function_of_a_file_is_found_and_ends_before_the_next_begins() {
        for text in [include_str!("lua/tasks/shared.lua"), include_str!("lua/sessions/shared.lua")] {
            let shared = SharedFunctions::new(text);
            assert_eq!(shared.in_reverse().count(), text.matches("local function ").count());
            assert!(shared.in_reverse().all(|(_, function)| function.ends_with("\nend")), "{text}");
        }
    }

    #[test]
    fn a_script_has_the_constants_and_the_functions_that_it_names_in_their_order_and_no_others() {
        let a = "-- A.\nlocal function a()\n    return ONE\nend\n\n";
        let b = "local function b()\n    return a()\nend\n\n";
        let constants = "-- Shared.\nlocal ONE = 1\n\n";
        assert_eq!(SHARED.before("return b()"), [constants, a, b, "return b()"].concat());
        assert_eq!(SHARED.before("return 1"), [constants, "return 1"].concat());
        assert_eq!(SHARED.of_names(&["b"]), [a, b].concat());
    }

    #[test]
    fn a_function_that_a_script_defines_within_a_block_stands_there_alone() {
        let block = SHARED.of_names(&["a"]);
        let script = SHARED.before(&format!("if true then\n{block}a()\nend"));
        assert_eq!(script.matches(&definition("a")).count(), 1);
    }
}
