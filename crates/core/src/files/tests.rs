use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

/// Two roots, a secret folder next to them, and links of all kinds.
fn fixture() -> (tempfile::TempDir, PublicFiles) {
    let parent = tempfile::tempdir().unwrap();
    let at = |path: &str| parent.path().join(path);
    for folder in ["public/inner", "public/.git", "public/.well-known", "more", "secret"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    for (path, text) in [
        ("public/hello.txt", "hello"),
        ("public/inner/index.html", "<p>inner"),
        ("public/a b.txt", "space"),
        ("public/.git/config", "secret"),
        ("public/.well-known/ok.txt", "known"),
        ("more/hello.txt", "second"),
        ("more/only.txt", "only"),
        ("secret/key.txt", "secret"),
    ] {
        fs::write(at(path), text).unwrap();
    }
    symlink(at("public/hello.txt"), at("public/inside.txt")).unwrap();
    symlink(at("secret/key.txt"), at("public/outside.txt")).unwrap();
    symlink(at("secret"), at("public/folder")).unwrap();
    symlink(at("nowhere"), at("public/dangling")).unwrap();
    symlink(at("public/loop"), at("public/loop")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(at("public/pipe")).status().unwrap();
    assert!(fifo.success());
    let files = PublicFiles::new(vec![at("public"), at("more"), at("missing")]);
    (parent, files)
}

async fn text_of(files: &PublicFiles, path: &str) -> Option<String> {
    match files.open(path).await {
        Ok(mut opened) => {
            let mut text = String::new();
            opened.file.read_to_string(&mut text).await.unwrap();
            Some(text)
        }
        Err(FileError::NotFound) => None,
        Err(FileError::Io(error)) => panic!("{path}: {error}"),
    }
}

#[tokio::test]
async fn a_path_opens_regular_files_under_the_roots_only() {
    let (_folder, files) = fixture();
    for (path, expected) in [
        ("/hello.txt", Some("hello")),
        ("hello.txt", Some("hello")),
        ("//hello.txt", Some("hello")),
        ("/only.txt", Some("only")),
        ("/inner", Some("<p>inner")),
        ("/inner/", Some("<p>inner")),
        ("/a%20b.txt", Some("space")),
        ("/inside.txt", Some("hello")),
        ("/.well-known/ok.txt", Some("known")),
        ("/", None),
        ("/missing", None),
        ("/outside.txt", None),
        ("/folder/key.txt", None),
        ("/dangling", None),
        ("/loop", None),
        ("/pipe", None),
        ("/../secret/key.txt", None),
        ("/%2e%2e/secret/key.txt", None),
        ("/..%2fsecret/key.txt", None),
        ("/inner/../hello.txt", None),
        ("/%252e%252e/secret/key.txt", None),
        ("/.git/config", None),
        ("/hello.txt%00", None),
        ("/hello.txt%0a", None),
        ("/%ff", None),
        ("/..\\secret\\key.txt", None),
        ("/hello.txt/x", None),
        ("/etc/passwd", None),
        ("//etc/passwd", None),
        ("/%2fetc%2fpasswd", None),
    ] {
        assert_eq!(text_of(&files, path).await.as_deref(), expected, "{path}");
    }
    assert_eq!(text_of(&files, &"/a".repeat(5000)).await, None);
}

#[tokio::test]
async fn a_socket_receives_text_as_it_is_and_other_bytes_in_base64() {
    let (parent, files) = fixture();
    fs::write(parent.path().join("public/logo.png"), [0x89, b'P', 0xff, 0x00]).unwrap();
    let text = files.read_for_socket("hello.txt", 5, FileMessage::clone).await.unwrap();
    assert_eq!(
        (text.content.as_str(), text.encoding, text.mime.as_str(), text.length),
        ("hello", None, "text/plain", 5)
    );
    let binary = files.read_for_socket("logo.png", 100, FileMessage::clone).await.unwrap();
    assert_eq!((binary.content.as_str(), binary.encoding, binary.length), ("iVD/AA==", Some("base64"), 4));
    let refused = files.read_for_socket("hello.txt", 4, |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PayloadTooLarge);
    let thread = files.read_for_socket("hello.txt", 5, |_| std::thread::current().id()).await.unwrap();
    assert_ne!(thread, std::thread::current().id(), "it is encoded where it delays no other client");
}

#[test]
fn a_time_is_formatted_by_the_civil_calendar() {
    for (ms, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_795_402_005_198, "2026-11-23T02:46:45.198Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
    ] {
        assert_eq!(iso_8601(UNIX_EPOCH + Duration::from_millis(ms)), expected);
    }
}

#[test]
fn a_media_type_is_that_of_the_web() {
    for (name, mime) in [
        ("app.js.map", "application/json"),
        ("app.ts", "text/plain"),
        ("APP.MTS", "text/plain"),
        ("a.d.cts", "text/plain"),
        ("a.tsx", "text/plain"),
        ("a.js", "text/javascript"),
        ("a.mjs", "text/javascript"),
        ("a.css", "text/css"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.mp4", "video/mp4"),
        ("a", "application/octet-stream"),
        (".ts", "application/octet-stream"),
    ] {
        assert_eq!(mime_of(Path::new(name)), mime, "{name}");
    }
}
