//! `ARCHITECTURE.md` is true: its paths, names, floors and walks are checked against the sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::floors::FLOORS;
use crate::imports::{sources, without_comments, without_tests};

const PAGE: &str = include_str!("../../ARCHITECTURE.md");

/// Steps of all walks that enter the file of an earlier step again: its file holds both ends of a way.
const RETURNS: usize = 1;

/// The code of the crates, without comments and tests, by the path from the repository's root.
struct Code(BTreeMap<String, String>);

impl Code {
    fn of_crates() -> Self {
        let mut code = Self(BTreeMap::new());
        for name in crates() {
            for file in sources(&root().join("crates").join(&name).join("src")) {
                code.add(&format!("crates/{name}/src/{}", file.file), &file.text);
            }
        }
        code
    }

    fn add(&mut self, path: &str, text: &str) {
        self.0.insert(path.to_owned(), without_tests(&without_comments(text)));
    }

    fn file(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// In how many files there is a function of that name.
    fn definitions(&self, function: &str) -> usize {
        self.0.values().filter(|code| defines_fn(code, function)).count()
    }
}

/// A function as the page names it: `Type::function`, `function`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FnName {
    owner: Option<String>,
    function: String,
}

impl FnName {
    fn parse(span: &str) -> Self {
        match span.rsplit_once("::") {
            Some((owner, function)) => Self { owner: Some(owner.to_owned()), function: function.to_owned() },
            None => Self { owner: None, function: span.to_owned() },
        }
    }

    /// Whether this code has it: a free function, or a function in a block of its type or trait.
    fn is_defined_in(&self, code: &str) -> bool {
        match &self.owner {
            None => code.lines().any(|line| !line.starts_with(' ') && defines_fn(line, &self.function)),
            Some(owner) => {
                blocks(code).iter().any(|(header, body)| has_word(header, owner) && defines_fn(body, &self.function))
            }
        }
    }

    /// Whether `caller` calls it. Where several files have a function of that name, `caller` must also show which one it
    /// means: of a type by naming the type or a value called like it, a free one by its module in the call or in a `use`.
    fn is_called_in(&self, caller: &str, file: &str, code: &Code) -> bool {
        let is_unique = code.definitions(&self.function) == 1;
        let has_own = defines_fn(caller, &self.function);
        let module = module_of(file);
        let is_shown = |qualifier: Option<&str>| match &self.owner {
            Some(owner) => [owner, &snake_case(owner), &module].into_iter().any(|name| has_word(caller, name)),
            None => qualifier.map_or_else(|| imports(caller, &module, &self.function), |name| name == module),
        };
        positions_of(&self.function, caller).any(|at| {
            let Some(call) = Call::at(caller, at, &self.function) else { return false };
            // Its own function of that name is called alone or on itself.
            let is_own = has_own && matches!(call.qualifier, None | Some("self" | "Self"));
            !is_own && (is_unique || is_shown(call.qualifier))
        })
    }
}

/// A call in the text of a function.
struct Call<'a> {
    /// The word before it: of `a.b::f()` it is `b`, of `f()` there is none, of `a().f()` it is empty.
    qualifier: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// The call of the word at that position, if it is called and not defined there.
    fn at(code: &'a str, at: usize, word: &str) -> Option<Self> {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        if before.ends_with("fn ") || !["(", "::<", ")("].iter().any(|call| after.starts_with(call)) {
            return None;
        }
        let receiver = before.strip_suffix('.').or_else(|| before.strip_suffix("::")).map(str::trim_end);
        let last_word = |text: &'a str| text.rsplit(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next();
        Some(Self { qualifier: receiver.and_then(last_word) })
    }
}

/// Whether one `use` of this code names both.
fn imports(code: &str, module: &str, name: &str) -> bool {
    let uses = code.split(';').filter(|item| item.trim_start().starts_with("use "));
    uses.into_iter().any(|item| has_word(item, module) && has_word(item, name))
}

impl fmt::Display for FnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner}::{}", self.function),
            None => f.write_str(&self.function),
        }
    }
}

/// An item of a walk.
#[derive(Debug, Default)]
struct Step {
    file: String,
    names: Vec<FnName>,
    /// `from step K`.
    from: Option<usize>,
    /// `by f of step K`.
    by: Option<(FnName, usize)>,
    /// `over T`.
    over: Option<String>,
    /// `through the trait X`.
    through: Option<String>,
    /// All other code in the text of the item.
    others: Vec<String>,
}

impl Step {
    fn parse(item: &str) -> Result<Self, String> {
        let wrong = |reason: &str| format!("{item:?}: {reason}");
        let mut spans = item.split('`');
        let before = spans.next().unwrap_or_default();
        let mut step = Self { file: spans.next().unwrap_or_default().to_owned(), ..Self::default() };
        if !before.is_empty() || !step.file.starts_with("crates/") {
            return Err(wrong("a step starts with its file"));
        }
        let (mut in_names, mut spans) = (true, spans.peekable());
        while let Some(text) = spans.next() {
            if let Some((_, number)) = text.split_once("from step ") {
                step.from = Some(leading_number(number).ok_or_else(|| wrong("a step has a number"))?);
            }
            in_names &= text == " (" || text == ", ";
            let Some(span) = spans.next().map(str::to_owned) else { break };
            let after = spans.peek().copied().unwrap_or_default();
            if in_names {
                step.names.push(FnName::parse(&span));
            } else if text.ends_with("through the trait ") {
                step.through = Some(span);
            } else if text.ends_with("over ") {
                step.over = Some(span);
            } else if let Some(number) = after.strip_prefix(" of step ").and_then(leading_number)
                && text.ends_with("by ")
            {
                step.by = Some((FnName::parse(&span), number));
            } else {
                step.others.push(span);
            }
        }
        match (step.names.is_empty(), step.from.is_some() && step.by.is_some()) {
            (true, _) => Err(wrong("a step names a function in parentheses after its file")),
            (_, true) => Err(wrong("a step comes from one other step")),
            (false, false) => Ok(step),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn crates() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("crates")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The positions at which a text has this as a whole word.
fn positions_of<'a>(word: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_of_word = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    let matches = text.match_indices(word).map(|(at, _)| at).filter(|_| !word.is_empty());
    matches.filter(move |at| {
        let (before, after) = (&text[..*at], &text[at + word.len()..]);
        !is_of_word(before.chars().next_back()) && !is_of_word(after.chars().next())
    })
}

fn has_word(text: &str, wanted: &str) -> bool {
    positions_of(wanted, text).next().is_some()
}

fn defines_fn(code: &str, name: &str) -> bool {
    positions_of(name, code).any(|at| code[..at].ends_with("fn "))
}

/// The blocks of types and traits at the margin, each with its header and its body.
fn blocks(code: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let kind = line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
        if !["impl ", "impl<", "trait "].iter().any(|start| kind.starts_with(start)) || line.ends_with('}') {
            continue;
        }
        let mut header = line.to_owned();
        while !header.ends_with('{') {
            let Some(more) = lines.next() else { break };
            header.push_str(more);
        }
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
        found.push((header, body.join("\n")));
    }
    found
}

fn leading_number(text: &str) -> Option<usize> {
    text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn snake_case(name: &str) -> String {
    let letter = |(at, letter): (usize, char)| {
        let gap = if at > 0 && letter.is_uppercase() { "_" } else { "" };
        format!("{gap}{}", letter.to_lowercase())
    };
    name.char_indices().map(letter).collect()
}

/// The name of the module that a file is.
fn module_of(file: &str) -> String {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/src/lib");
    stem.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The text from a heading to the next one of its rank or a higher one.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let rank = heading.split(' ').next().unwrap_or_default().len();
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("the page has no {heading:?}"));
    let text = &page[start + heading.len() + 2..];
    let ends = (1..=rank).filter_map(|rank| text.find(&format!("\n{} ", "#".repeat(rank))));
    &text[..ends.min().map_or(text.len(), |end| end + 1)]
}

/// The lines of the first figure of a section.
fn figure<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = section(page, heading).lines().skip_while(|line| !line.starts_with("```"));
    lines.skip(1).take_while(|line| !line.starts_with("```")).collect()
}

/// All code in the running text of a page; figures are left out.
fn spans(page: &str) -> Vec<String> {
    let text: Vec<&str> = page.split("```").step_by(2).collect();
    text.iter().flat_map(|text| text.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn is_path(span: &str) -> bool {
    let letters = span.chars().all(|letter| letter.is_alphanumeric() || "_-./".contains(letter));
    let ending = [".rs", ".toml", ".md", ".lua", ".json"].iter().any(|ending| span.ends_with(ending));
    letters && !span.starts_with('/') && (span.contains('/') || ending)
}

/// The paths that do not exist.
fn missing_paths(page: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    spans(page).into_iter().filter(|span| is_path(span) && !exists(span)).collect()
}

/// The functions of types or modules, and the types, that no file has.
fn unknown_names(page: &str, code: &Code) -> Vec<String> {
    let mut found = spans(page);
    found.retain(|span| {
        let is_code = span.chars().all(|letter| letter.is_alphanumeric() || "_:".contains(letter));
        let is_type = span.starts_with(char::is_uppercase) && span.contains(char::is_lowercase);
        let name = FnName::parse(span);
        match name.owner.as_deref() {
            _ if !is_code => false,
            Some(owner) => !code.0.iter().any(|(file, code)| {
                let free = FnName { owner: None, ..name.clone() };
                name.is_defined_in(code) || (module_of(file) == owner && free.is_defined_in(code))
            }),
            None => is_type && !code.0.values().any(|code| has_word(code, span)),
        }
    });
    found
}

/// The modules of each floor in the figure, lowest floor first.
fn floors_of(figure: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut floors: Vec<(String, Vec<String>)> = Vec::new();
    for line in figure {
        let mut words = line.split_whitespace().map(str::to_owned);
        if !line.starts_with(' ') {
            floors.extend(words.next().map(|name| (name, Vec::new())));
        }
        if let Some((_, modules)) = floors.last_mut() {
            modules.extend(words);
        }
    }
    floors.iter_mut().for_each(|(_, modules)| modules.sort());
    floors.reverse();
    floors
}

/// The items of a walk, each on one line and without its number.
fn items(walk: &str) -> Result<Vec<String>, String> {
    let mut items: Vec<String> = Vec::new();
    let lines = walk.lines().skip_while(|line| !line.starts_with("1. ")).take_while(|line| !line.is_empty());
    for line in lines {
        let next = (items.len() + 1).to_string();
        match (items.last_mut(), line.split_once(". ")) {
            (Some(last), _) if line.starts_with("  ") => *last = format!("{last} {}", line.trim()),
            (_, Some((number, item))) if number == next => items.push(item.to_owned()),
            _ => return Err(format!("{line:?} is not step {next}")),
        }
    }
    Ok(items)
}

/// The steps of a walk, or one line for each that cannot be read.
fn steps(walk: &str) -> Result<Vec<Step>, Vec<String>> {
    let items = items(walk).map_err(|error| vec![error])?;
    let (read, wrong): (Vec<_>, Vec<_>) = items.iter().map(|item| Step::parse(item)).partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    if wrong.is_empty() { Ok(read.into_iter().flatten().collect()) } else { Err(wrong) }
}

/// One line for each error of a walk: a file twice, a name that its file does not have, a step that nothing leads to.
fn errors_of(walk: &str, code: &Code) -> Vec<String> {
    let steps = match steps(walk) {
        Ok(steps) => steps,
        Err(errors) => return errors,
    };
    let mut errors = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let number = index + 1;
        if let Some(earlier) = steps[..index].iter().position(|earlier| earlier.file == step.file) {
            errors.push(format!("step {number}: {} is step {} already", step.file, earlier + 1));
        }
        let own = code.file(&step.file);
        for name in step.names.iter().filter(|name| !name.is_defined_in(own)) {
            errors.push(format!("step {number}: {} has no {name}", step.file));
        }
        // `Type::function` in the text may be of another file: `unknown_names` looks for it.
        for other in step.others.iter().filter(|other| !other.contains("::") && !is_in_crates(other, own, code)) {
            errors.push(format!("step {number}: {} has no {other}", step.file));
        }
        if index > 0
            && let Err(error) = connect(&steps, index, code)
        {
            errors.push(format!("step {number}: {error}"));
        }
    }
    errors
}

/// Whether a word in the text of a step is of its own file, or a type of any.
fn is_in_crates(word: &str, own: &str, code: &Code) -> bool {
    let is_type = word.starts_with(char::is_uppercase);
    has_word(own, word) || (is_type && code.0.values().any(|code| has_word(code, word)))
}

/// Checks that a step follows from the step before it, or from the one that it names.
fn connect(steps: &[Step], index: usize, code: &Code) -> Result<(), String> {
    let (step, before) = (&steps[index], &steps[index - 1]);
    // A step names an earlier one than the one before it, which it follows anyway.
    let earlier = |number: usize| match number {
        1.. if number < index => Ok(&steps[number - 1]),
        _ => Err(format!("step {number} is not before the previous step")),
    };
    let both_name = |one: &Step, other: &Step, word: &str| {
        let names = |step: &Step| has_word(code.file(&step.file), word);
        if names(one) && names(other) {
            return Ok(());
        }
        Err(format!("{} or {} does not name {word}", one.file, other.file))
    };
    let calls =
        |caller: &Step, name: &FnName, callee: &Step| name.is_called_in(code.file(&caller.file), &callee.file, code);
    let mut over = step.over.as_deref();
    let source = match (&step.by, step.from) {
        (Some((name, number)), _) => {
            let again = earlier(*number)?;
            if !name.is_defined_in(code.file(&again.file)) {
                return Err(format!("{} has no {name}", again.file));
            }
            // The value, if there is one, leads to the file that is entered again, and a call from there to this step.
            match over.take() {
                Some(word) => both_name(before, again, word)?,
                None if calls(before, name, again) => {}
                None => return Err(format!("{} does not call {name}", before.file)),
            }
            again
        }
        (None, Some(number)) => earlier(number)?,
        (None, None) => before,
    };
    if let Some(seam) = &step.through {
        both_name(source, step, seam)?;
        let owners = || step.names.iter().filter_map(|name| name.owner.as_ref());
        let is_impl = |header: &str| {
            let implemented = header.split_once(" for ");
            implemented.is_some_and(|(name, of)| has_word(name, seam) && owners().any(|owner| has_word(of, owner)))
        };
        if !blocks(code.file(&step.file)).iter().any(|(header, _)| is_impl(header)) {
            return Err(format!("{} does not implement {seam}", step.file));
        }
        return Ok(());
    }
    if let Some(word) = over {
        return both_name(source, step, word);
    }
    if step.names.iter().any(|name| calls(source, name, step)) {
        return Ok(());
    }
    let names: Vec<String> = step.names.iter().map(ToString::to_string).collect();
    Err(format!("{} does not call {}", source.file, names.join(", ")))
}

/// The walks of the page by their headings.
fn walks(page: &str) -> Vec<(&str, &str)> {
    let text = section(page, "## Walks");
    let headings = text.lines().filter(|line| line.starts_with("### "));
    headings.map(|heading| (heading, section(text, heading))).collect()
}

#[test]
fn every_path_of_the_page_exists() {
    let missing = missing_paths(PAGE, |path| root().join(path).exists());
    assert!(missing.is_empty(), "{missing:?}");
    assert!(spans(PAGE).iter().filter(|span| is_path(span)).count() > 40);
}

#[test]
fn every_function_and_type_of_the_page_is_in_the_crates() {
    let unknown = unknown_names(PAGE, &Code::of_crates());
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_figure_of_crates_has_every_crate() {
    let lines = figure(PAGE, "## Crates, and which way they point");
    let listed = lines.iter().filter_map(|line| line.strip_prefix("crates/")?.split(' ').next());
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), crates());
}

#[test]
fn the_figure_of_floors_has_the_modules_that_the_test_of_floors_has() {
    let expected = FLOORS.map(|(name, modules)| {
        let mut modules: Vec<String> = modules.iter().map(|module| (*module).to_owned()).collect();
        modules.sort();
        (name.to_owned(), modules)
    });
    assert_eq!(floors_of(&figure(PAGE, "## Floors of core")), expected);
}

#[test]
fn every_step_of_a_walk_follows_from_the_one_before() {
    let code = Code::of_crates();
    let walks = walks(PAGE);
    assert_eq!(walks.len(), 5);
    let errors: Vec<String> = walks
        .iter()
        .flat_map(|(heading, walk)| errors_of(walk, &code).into_iter().map(move |error| format!("{heading}: {error}")))
        .collect();
    assert!(errors.is_empty(), "{} errors:\n{}", errors.len(), errors.join("\n"));
    let returns = walks.iter().flat_map(|(_, walk)| steps(walk).unwrap()).filter(|step| step.by.is_some()).count();
    assert_eq!(returns, RETURNS, "adjust the number if a walk goes straight now");
}

#[test]
fn a_path_that_is_not_there_is_found() {
    let page = "`crates/a.rs` is, `crates/b.rs` and `c.toml` are not; `/readyz` and `Bus::publish` are no paths.\n\
                ```text\n`figures/count.rs` not\n```\n`d/e` is not.";
    assert_eq!(missing_paths(page, |path| path == "crates/a.rs"), ["crates/b.rs", "c.toml", "d/e"]);
}

#[test]
fn a_name_that_no_file_has_is_found() {
    let mut code = Code(BTreeMap::new());
    code.add("crates/core/src/rooms/mod.rs", "impl Rooms {\n    pub fn say(&self) {}\n}\nfn check() {}\n// fn gone()");
    let page = "`Rooms::say` `rooms::check` `Rooms` `Rooms::check` `rooms::say` `Rooms::gone` `Hall` `OK` `say`";
    assert_eq!(unknown_names(page, &code), ["Rooms::check", "rooms::say", "Rooms::gone", "Hall"]);
}

#[test]
fn the_figure_of_floors_is_read_from_the_ground_up() {
    let page = "\n## F\ntext\n```text\nhigh   c\nlow    b\n       a\n```\n## G\n```text\nx y\n```\n";
    let floor = |name: &str, modules: &[&str]| (name.to_owned(), modules.iter().map(ToString::to_string).collect());
    assert_eq!(floors_of(&figure(page, "## F")), [floor("low", &["a", "b"]), floor("high", &["c"])]);
}

/// Three files of a small house, with a name that two of them have.
fn planted() -> Code {
    let mut code = Code(BTreeMap::new());
    code.add(
        "crates/a.rs",
        "use b::Bell;\npub fn enter(bell: &Bell) {\n    bell.ring();\n    route();\n    b::knock();\n}\n\
         fn route() {}\n// leave()\nfn go(seam: &dyn Seam) {\n    house::leave::<u8>();\n}\n",
    );
    code.add(
        "crates/b.rs",
        "impl Bell {\n    fn ring(&self) -> Sound {}\n}\nfn other(house: &House) {\n    enter();\n}\nfn knock() {}",
    );
    code.add(
        "crates/c.rs",
        "impl Seam for Door {\n    fn open(&self, sound: Sound) {}\n}\nimpl Gate {\n    fn ring(&self) {}\n}\n\
         fn leave() {}\nfn route() {}\nfn knock() {}\n#[cfg(test)]\nmod tests {\n    fn hidden() {}\n}\n",
    );
    code
}

#[track_caller]
fn check(walk: &str, expected: &[&str]) {
    let errors = errors_of(walk, &planted());
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, part) in errors.iter().zip(expected) {
        assert!(error.contains(part), "{error:?} is not {part:?}");
    }
}

#[test]
fn a_walk_whose_steps_follow_has_no_errors() {
    check("1. `crates/a.rs` (`enter`) x.\n2. `crates/b.rs` (`Bell::ring`) y\n   `other` `Door`.\n", &[]);
    let to_b = "1. `crates/a.rs` (`enter`, `go`) x.\n2. `crates/b.rs` (`Bell::ring`) y.\n";
    check(&format!("{to_b}3. `crates/c.rs` (`Door::open`), over `Sound`, z.\n"), &[]);
    check(&format!("{to_b}3. `crates/c.rs` (`leave`), from step 1, z.\n"), &[]);
    check(&format!("{to_b}3. `crates/c.rs` (`leave`), by `enter` of step 1, z.\n"), &[]);
    check(&format!("{to_b}3. `crates/c.rs` (`Door::open`), from step 1, through the trait `Seam`, z.\n"), &[]);
}

#[test]
fn a_file_that_a_walk_visits_twice_is_found() {
    let walk = "1. `crates/a.rs` (`enter`) x.\n2. `crates/b.rs` (`Bell::ring`) y.\n3. `crates/a.rs` (`enter`) z.\n";
    check(walk, &["step 3: crates/a.rs is step 1 already"]);
}

#[test]
fn a_name_that_the_file_of_its_step_does_not_have_is_found() {
    check("1. `crates/a.rs` (`gone`) x.\n", &["crates/a.rs has no gone"]);
    check("1. `crates/c.rs` (`Door::ring`) is a function of `Gate`.\n", &["crates/c.rs has no Door::ring"]);
    check("1. `crates/b.rs` (`ring`) is not free.\n", &["crates/b.rs has no ring"]);
    check("1. `crates/c.rs` (`hidden`) is of the tests.\n", &["crates/c.rs has no hidden"]);
    check("1. `crates/a.rs` (`enter`) x `nothing` and `Nothing`.\n", &["has no nothing", "has no Nothing"]);
}

#[test]
fn a_step_that_nothing_leads_to_is_found() {
    let from_b = "1. `crates/b.rs` (`other`) x.\n";
    check(&format!("{from_b}2. `crates/c.rs` (`leave`) y.\n"), &["step 2: crates/b.rs does not call"]);
    let from_a = "1. `crates/a.rs` (`enter`) x.\n";
    // Two files have a `ring`, and `a.rs` names only the one of `Bell`.
    check(&format!("{from_a}2. `crates/c.rs` (`Gate::ring`) y.\n"), &["step 2: crates/a.rs does not call"]);
    // `a.rs` calls the `route` of its own, and another `knock`.
    for other in ["route", "knock"] {
        check(&format!("{from_a}2. `crates/c.rs` (`{other}`) y.\n"), &["step 2: crates/a.rs does not call"]);
    }
    check(&format!("{from_a}2. `crates/b.rs` (`Bell::ring`), over `Door`, y.\n"), &["does not name Door"]);
    check(
        &format!("{from_a}2. `crates/b.rs` (`Bell::ring`), through the trait `Bell`, y.\n"),
        &["does not implement Bell"],
    );
    check(&format!("{from_a}2. `crates/b.rs` (`Bell::ring`), from step 2, y.\n"), &["step 2 is not before"]);
    let to_b = format!("{from_a}2. `crates/b.rs` (`Bell::ring`) y.\n");
    check(
        &format!("{to_b}3. `crates/c.rs` (`leave`), by `route` of step 1, z.\n"),
        &["crates/b.rs does not call route"],
    );
    check(&format!("{to_b}3. `crates/c.rs` (`leave`), by `gone` of step 1, z.\n"), &["crates/a.rs has no gone"]);
}

#[test]
fn a_walk_that_cannot_be_read_is_found() {
    check("1. `crates/a.rs` (`enter`) x.\n3. `crates/b.rs` (`Bell::ring`) y.\n", &["is not step 2"]);
    check("1. `crates/a.rs` enters.\n", &["names a function in parentheses"]);
    check("1. Then `crates/a.rs` (`enter`).\n", &["starts with its file"]);
    let twice = "1. `crates/a.rs` (`enter`), from step 1, by `enter` of step 1, x.\n";
    check(twice, &["comes from one other step"]);
}
