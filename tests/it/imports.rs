//! Reads the imports of a crate's modules from their source text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A source file of a crate, with the path of its module: `rooms::join`, empty for the crate's root.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Relative to the crate's `src`.
    pub(crate) file: String,
    pub(crate) module: Vec<String>,
    pub(crate) text: String,
}

/// One imported path, as segments from the crate's root, and the line it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

impl SourceFile {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let stem = file.trim_end_matches(".rs");
        let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod" || last == "lib") {
            module.pop();
        }
        Self { file: file.to_owned(), module, text: text.to_owned() }
    }

    /// The imports from its own crate: `use` items, also grouped ones, and paths that begin with `crate::` in code. Tests
    /// may import from everywhere and are left out.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let code = without_tests(&without_comments(&self.text));
        let mut imports = Vec::new();
        let mut at = 0;
        while let Some(found) = next_path(&code, at) {
            let (start, end) = found;
            let line = code[..start].matches('\n').count() + 1;
            for path in expand(code[start..end].trim()) {
                imports.extend(self.resolve(&path).map(|path| Import { line, path }));
            }
            at = end;
        }
        imports
    }

    /// The segments of a path from the crate's root; `None` if it leads to another crate.
    fn resolve(&self, path: &str) -> Option<Vec<String>> {
        let mut segments: Vec<String> = path.split("::").map(|segment| segment.trim().to_owned()).collect();
        let first = segments.remove(0);
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            // A child of this module, if the text declares it.
            child if declares(&self.text, child) => [self.module.clone(), vec![first.clone()]].concat(),
            _ => return None,
        };
        for segment in segments {
            if segment == "super" {
                base.pop();
            } else if segment != "self" && segment != "*" {
                base.push(segment);
            }
        }
        Some(base)
    }
}

fn declares(text: &str, child: &str) -> bool {
    let declared = |line: &str| line.trim_end().ends_with(&format!("mod {child};"));
    text.lines().any(|line| !line.starts_with([' ', '/']) && declared(line))
}

/// The next `use …;` or `crate::…` from `at` on: the start and the end of its path.
fn next_path(code: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &code[at..];
    let item = ["use ", "crate::"].iter().filter_map(|word| {
        let mut from = 0;
        loop {
            let found = from + rest[from..].find(word)?;
            let before = rest[..found].chars().next_back().or_else(|| code[..at].chars().next_back());
            if !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$') {
                return Some((found, *word));
            }
            from = found + word.len();
        }
    });
    let (found, word) = item.min()?;
    let start = at + found + if word == "use " { word.len() } else { 0 };
    let ends = |byte: char| match word {
        "use " => byte == ';',
        _ => !(byte.is_alphanumeric() || byte == '_' || byte == ':'),
    };
    let end = code[start..].find(ends).map_or(code.len(), |end| start + end);
    Some((start, end))
}

/// `a::{b, c::{d, e}}` becomes `a::b`, `a::c::d`, `a::c::e`. Names after `as` are dropped.
fn expand(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else {
        return vec![path.split(" as ").next().unwrap_or_default().trim().trim_end_matches(':').to_owned()];
    };
    let prefix = &path[..open];
    let (mut all, mut depth, mut part) = (Vec::new(), 0_usize, String::new());
    let inner = path[open + 1..].trim_end().trim_end_matches('}');
    // The last brace belongs to this group, unless a nested one was cut with it.
    let missing = inner.matches('{').count().saturating_sub(inner.matches('}').count());
    for letter in inner.chars().chain(std::iter::repeat_n('}', missing)).chain(std::iter::once(',')) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = std::mem::take(&mut part);
                if !item.trim().is_empty() {
                    all.extend(expand(&format!("{prefix}{}", item.trim())));
                }
                continue;
            }
            _ => {}
        }
        part.push(letter);
    }
    all
}

/// The text with comments blanked; strings keep their bytes, and lines their numbers.
pub(crate) fn without_comments(text: &str) -> String {
    let blank = |line: &str| match comment_start(line) {
        Some(start) => line[..start].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(blank).collect::<Vec<_>>().join("\n")
}

/// Where a `//` begins that does not stand in a string.
fn comment_start(line: &str) -> Option<usize> {
    let (mut in_string, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'/' if !in_string && line[at..].starts_with("//") => return Some(at),
            _ => {}
        }
    }
    None
}

/// The text without `#[cfg(test)]` modules, whose lines are blanked.
pub(crate) fn without_tests(text: &str) -> String {
    let (mut kept, mut skipping, mut pending) = (Vec::new(), false, false);
    for line in text.lines() {
        if line == "#[cfg(test)]" {
            pending = true;
        } else if pending {
            skipping = line.starts_with("mod ") && line.ends_with('{');
            pending = false;
        }
        kept.push(if skipping || pending { "" } else { line });
        if skipping && line == "}" {
            skipping = false;
        }
    }
    kept.join("\n")
}

/// All source files below a folder; files of tests are left out.
pub(crate) fn sources(src: &Path) -> Vec<SourceFile> {
    let (mut files, mut folders) = (Vec::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).expect("the file can be read");
                let file = path.strip_prefix(src).expect("it is below the folder").to_string_lossy().into_owned();
                files.push(SourceFile::new(&file, &text));
            }
        }
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    files
}

/// For each file the files that it imports from: the deepest module that a path names.
pub(crate) fn edges(files: &[SourceFile]) -> BTreeMap<String, BTreeSet<String>> {
    let by_module: BTreeMap<&[String], &str> =
        files.iter().filter(|file| !file.module.is_empty()).map(|file| (&*file.module, &*file.file)).collect();
    let deepest = |path: &[String]| (1..=path.len()).rev().find_map(|length| by_module.get(&path[..length]).copied());
    let edges = files.iter().filter(|file| !file.module.is_empty()).map(|file| {
        let imported = file.imports().into_iter().filter_map(|import| deepest(&import.path).map(str::to_owned));
        (file.file.clone(), imported.filter(|other| *other != file.file).collect())
    });
    edges.collect()
}

/// The groups of files that import each other in a circle, largest first.
pub(crate) fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reachable = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = open.pop() {
            for next in edges.get(&file).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = edges.keys().map(|file| (&**file, reachable(file))).collect();
    let circle_of = |file: &str| {
        let others =
            reached[file].iter().filter(|other| reached.get(&***other).is_some_and(|back| back.contains(file)));
        others.cloned().collect::<BTreeSet<String>>()
    };
    let mut circles: Vec<BTreeSet<String>> = edges.keys().map(|file| circle_of(file)).collect();
    circles.retain(|circle| circle.len() > 1);
    circles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    circles.dedup();
    circles
}

#[test]
fn imports_are_read_from_groups_parents_children_and_paths_in_code() {
    let text = "mod child;\nuse std::fmt;\nuse crate::{a::B, c::{self, d::{E, F as G}}};\nuse super::other::X;\n\
                pub(crate) use child::Y; // use crate::comment::Z;\nfn f() { crate::id::g() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}\nuse self::child::W;\n";
    let file = SourceFile::new("rooms/mod.rs", text);
    let found: Vec<(usize, String)> =
        file.imports().into_iter().map(|import| (import.line, import.path.join("::"))).collect();
    let expected = [
        (3, "a::B"),
        (3, "c"),
        (3, "c::d::E"),
        (3, "c::d::F"),
        (4, "other::X"),
        (5, "rooms::child::Y"),
        (6, "id::g"),
        (11, "rooms::child::W"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn circles_are_found_across_files_and_parents() {
    let files = [
        SourceFile::new("a.rs", "use crate::b::B;"),
        SourceFile::new("b/mod.rs", "mod c;\nuse c::C;"),
        SourceFile::new("b/c.rs", "use super::super::a::A;"),
        SourceFile::new("d.rs", "use crate::a::A;"),
    ];
    let found = circles(&edges(&files));
    assert_eq!(found, [BTreeSet::from(["a.rs".to_owned(), "b/c.rs".to_owned(), "b/mod.rs".to_owned()])]);
}
