//! Rules for names and comments of the crates, checked against their sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The crates that an application is built with.
const SHIPPED: [&str; 7] = ["macros", "core", "cluster", "server", "tasks", "supervisor", "phalanx"];

/// Type names that may have more than one definition: name and reason.
const ALLOWED_DOUBLES: [(&str, &str); 0] = [];

/// Words that no paragraph of a comment starts with: it is to start with its subject.
const HEADS: [&str; 4] = ["what", "who", "whoever", "nobody"];

/// Words that no comment and no identifier contains, because the glossary of the project has a technical term for each.
const WORDS: [&str; 19] = [
    "life",
    "lives",
    "somebody",
    "nobody",
    "whoever",
    "undelivered",
    "seat",
    "farewell",
    "speech",
    "heard",
    "told",
    "tell",
    "tells",
    "asked",
    "asking",
    "letter",
    "ear",
    "believed",
    "mend",
];

/// Words that are allowed all the same: end of the file's path, part of the line that contains the word, and reason.
const ALLOWED_LINES: [(&str, &str, &str); 2] = [
    (".rs", "max_undelivered", "a key of the settings, which existing configurations use"),
    ("cluster/src/keys.rs", "`lives`, `life`", "quotes names of keys in Redis, which nodes of two releases share"),
];

#[test]
fn type_names_are_unique_in_the_shipped_crates() {
    let mut found = doubles(&sources(&SHIPPED));
    found.retain(|name, _| ALLOWED_DOUBLES.iter().all(|(allowed, _)| allowed != name));
    let list: Vec<String> = found.iter().map(|(name, files)| format!("{name}: {}", files.join(", "))).collect();
    assert!(list.is_empty(), "{} type names have several definitions:\n{}", list.len(), list.join("\n"));
}

#[test]
fn comments_and_identifiers_use_technical_terms() {
    let found = violations();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// The violations in all crates, as `file:line: reason`.
fn violations() -> Vec<String> {
    let crates: Vec<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    violations_in(&sources(&crates), &ALLOWED_LINES)
}

/// A source file: its path below the workspace, and its text.
type Source = (String, String);

/// The Rust sources of these crates, by path.
fn sources(crates: &[impl AsRef<str>]) -> Vec<Source> {
    let mut all = Vec::new();
    for name in crates {
        let folder = root().join("crates").join(name.as_ref()).join("src");
        collect(&folder, &mut all);
    }
    all.sort();
    all
}

fn collect(folder: &Path, all: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            all.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

/// The type names that several files define at module level, with these files. Tests do not count. Several definitions in
/// one file are alternatives under different `cfg`s, and count as one.
fn doubles(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut files = BTreeMap::<String, BTreeSet<&str>>::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        for name in without_test_modules(text).into_iter().filter_map(type_name) {
            files.entry(name.to_owned()).or_default().insert(path);
        }
    }
    let several = files.into_iter().filter(|(_, files)| files.len() > 1);
    several.map(|(name, files)| (name, files.into_iter().map(str::to_owned).collect())).collect()
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The lines outside of `#[cfg(test)] mod` bodies. As rustfmt writes it, a body ends at the first brace with the indent of
/// its attribute.
fn without_test_modules(text: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        kept.push(line);
        if line.trim_start() != "#[cfg(test)]" {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        while let Some(attribute) = lines.next_if(|line| line.trim_start().starts_with("#[")) {
            kept.push(attribute);
        }
        if lines.next_if(|line| is_module_with_body(line)).is_some() {
            let end = format!("{indent}}}");
            lines.by_ref().find(|line| *line == end);
        }
    }
    kept
}

fn is_module_with_body(line: &str) -> bool {
    without_visibility(line.trim_start()).starts_with("mod ") && line.ends_with('{')
}

/// The name of the type that a line defines at module level.
fn type_name(line: &str) -> Option<&str> {
    let item = without_visibility(line);
    let name = ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|kind| item.strip_prefix(kind))?;
    name.split(|character: char| !character.is_alphanumeric() && character != '_').next()
}

fn without_visibility(item: &str) -> &str {
    let Some(rest) = item.strip_prefix("pub") else { return item };
    let rest = if rest.starts_with('(') { rest.split_once(')').map_or(rest, |(_, rest)| rest) } else { rest };
    rest.strip_prefix(' ').unwrap_or(item)
}

/// The comments that start with one of [`HEADS`], and the comments and identifiers with one of [`WORDS`].
fn violations_in(sources: &[Source], allowed: &[(&str, &str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let mut previous = None;
        for (index, line) in split(text).into_iter().enumerate() {
            let marker = line.marker();
            let starts_paragraph = marker.is_none() || marker != previous;
            // After an empty line of a comment a paragraph starts.
            previous = marker.filter(|_| !words(&line.comment).is_empty());
            let is_allowed = |word: &String| {
                let mut parts = allowed.iter().filter(|(file, ..)| path.ends_with(file)).map(|(_, part, _)| *part);
                parts.any(|part| line.text.contains(part) && words(part).contains(word))
            };
            let mut report = |word: &String, reason: String| {
                if !is_allowed(word) {
                    found.push(format!("{path}:{}: {reason}: {}", index + 1, line.text.trim()));
                }
            };
            let head = words(&line.comment).into_iter().next().unwrap_or_default();
            let content = line.comment.strip_prefix("//").map(|comment| comment.trim_start_matches(['/', '!', ' ']));
            let starts_with_head = content.is_some_and(|content| content.to_lowercase().starts_with(&head));
            if starts_paragraph && starts_with_head && HEADS.contains(&head.as_str()) {
                report(&head, format!("the comment starts with {head:?}"));
            }
            for part in [&line.code, &line.comment] {
                for word in words(part).into_iter().filter(|word| WORDS.contains(&word.as_str())) {
                    report(&word, format!("{word:?}"));
                }
            }
        }
    }
    found
}

/// A line of source, split. The content of strings is in neither part.
#[derive(Debug, Default)]
struct Line<'a> {
    text: &'a str,
    code: String,
    /// With its slashes.
    comment: String,
}

impl Line<'_> {
    /// The marker of a line that is nothing but a comment: lines with one marker form a block.
    fn marker(&self) -> Option<&'static str> {
        let text = self.text.trim_start();
        ["///", "//!", "//"].into_iter().find(|marker| self.code.trim().is_empty() && text.starts_with(marker))
    }
}

/// Where the lexer is.
enum Within {
    Code,
    BlockComment,
    /// A string that this ends.
    String(String),
}

/// Splits a source into lines of code and comment.
fn split(text: &str) -> Vec<Line<'_>> {
    let mut within = Within::Code;
    let mut lines = Vec::new();
    for text in text.lines() {
        let mut line = Line { text, ..Line::default() };
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            match &within {
                Within::Code if rest.starts_with("//") => {
                    line.comment.push_str(rest);
                    rest = "";
                }
                Within::Code if rest.starts_with("/*") => {
                    within = Within::BlockComment;
                    rest = &rest[2..];
                }
                Within::Code => {
                    let after_identifier = line.code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
                    if let Some(length) = character_literal(rest) {
                        rest = &rest[length..];
                    } else if let Some((length, end)) = string_start(rest, after_identifier) {
                        line.code.push(' ');
                        within = Within::String(end);
                        rest = &rest[length..];
                    } else {
                        line.code.push(character);
                        rest = &rest[character.len_utf8()..];
                    }
                }
                Within::BlockComment => {
                    let (comment, after) =
                        rest.split_once("*/").map_or((rest, None), |(one, other)| (one, Some(other)));
                    line.comment.push_str(comment);
                    rest = after.unwrap_or_default();
                    if after.is_some() {
                        within = Within::Code;
                    }
                }
                Within::String(end) => {
                    if end == "\"" && character == '\\' {
                        rest = rest.get(2..).unwrap_or_default();
                    } else if let Some(after) = rest.strip_prefix(end.as_str()) {
                        within = Within::Code;
                        rest = after;
                    } else {
                        rest = &rest[character.len_utf8()..];
                    }
                }
            }
        }
        lines.push(line);
    }
    lines
}

/// The length of the character literal at the start; a lifetime is none.
fn character_literal(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    let start = if first == '\\' { 2 } else { first.len_utf8() };
    let end = inner.get(start..)?.find('\'')?;
    (first == '\\' || end == 0).then_some(1 + start + end + 1)
}

/// The length of the quote that starts a string, and the quote that ends it.
fn string_start(text: &str, after_identifier: bool) -> Option<(usize, String)> {
    if text.starts_with('"') {
        return Some((1, "\"".to_owned()));
    }
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let is_raw = !after_identifier && raw[hashes..].starts_with('"');
    is_raw.then(|| (text.len() - raw.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

/// The words of a text in lower case; `snake_case` and `CamelCase` are split.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in text.split(|character: char| !character.is_alphabetic()) {
        let characters: Vec<char> = run.chars().collect();
        let mut word = String::new();
        for (index, character) in characters.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| characters[before]);
            let after = characters.get(index + 1);
            let starts_word = before.is_some_and(char::is_lowercase)
                || before.is_some_and(char::is_uppercase) && after.is_some_and(|after| after.is_lowercase());
            if character.is_uppercase() && starts_word {
                words.push(std::mem::take(&mut word));
            }
            word.extend(character.to_lowercase());
        }
        words.push(word);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn planted(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_type_name_with_two_definitions_is_found() {
    let found = doubles(&planted(&[
        ("a.rs", "pub struct Twin;\npub(crate) enum Single {}\n#[cfg(unix)]\ntype Alternative = u8;\n"),
        ("b.rs", "pub(in crate::x) trait Twin<T> {\n    type Single;\n}\n/// struct Single\nfn single() {}\n"),
        ("c.rs", "type Twin = u8;\n#[cfg(unix)]\ntype Other = u8;\n#[cfg(not(unix))]\ntype Other = u16;\n"),
    ]));
    let files = ["a.rs", "b.rs", "c.rs"].map(str::to_owned).to_vec();
    assert_eq!(found, BTreeMap::from([("Twin".to_owned(), files)]));
}

#[test]
fn type_names_of_test_modules_are_ignored() {
    let module = "#[cfg(test)]\n#[allow(unused)]\nmod tests {\nstruct Twin;\n    mod inner {\n    }\nstruct Twin;\n}\n";
    let found = doubles(&planted(&[
        ("a.rs", "struct Twin;\nstruct Behind;\n"),
        ("b.rs", &format!("{module}#[cfg(test)]\nmod tests;\nstruct Behind;\n")),
        ("b/tests.rs", "struct Twin;\n"),
        ("b/tests/more.rs", "struct Twin;\n"),
    ]));
    let files = ["a.rs", "b.rs"].map(str::to_owned).to_vec();
    assert_eq!(found, BTreeMap::from([("Behind".to_owned(), files)]), "what follows a test module counts");
}

#[test]
fn planted_violations_are_found() {
    let check = |text: &str, expected: &[&str]| {
        let found = violations_in(&planted(&[("a.rs", text)]), &[("a.rs", "max_undelivered", "a setting")]);
        let reasons: Vec<&str> = found.iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
        assert_eq!(reasons, expected, "{text}");
    };
    check("/// What it does.", &["the comment starts with \"what\""]);
    check("//! Whoever reads.", &["the comment starts with \"whoever\"", "\"whoever\""]);
    check("let a = 1; // who waits", &["the comment starts with \"who\""]);
    check("/// A type.\n/// What follows is no start.\n// What does\n", &["the comment starts with \"what\""]);
    check("/// # Errors\n///\n/// What the caller gets.", &["the comment starts with \"what\""]);
    check("/// Whatever. `what`", &[]);
    check("/// `What` is a name.", &[]);
    check("fn was_heard(HeardHTTPLetter: Ear) {}", &["\"heard\"", "\"heard\"", "\"letter\"", "\"ear\""]);
    check("/// It lives, and `is_asked`.", &["\"lives\"", "\"asked\""]);
    check("/* somebody\nnobody */ fn tell() {}", &["\"somebody\"", "\"tell\"", "\"nobody\""]);
    check("fn learn(lifetime: &'a str, stellar: Seating) {} // mended, https://foretold", &[]);
    check("log(\"nobody // told \\\" life\"); r#\"ear \" ear\"#; ['\"', '\\'', 'ä']; \"\nlife\n\"", &[]);
    check("fn f<'a>(b: &'a str) -> char { 'x' } // told", &["\"told\""]);
    check("max_undelivered: usize, // told\nundelivered: usize,", &["\"told\"", "\"undelivered\""]);
}
