use http::HeaderValue;

use super::*;

fn check(value: &[u8], name: Option<&str>, file_name: Option<&str>) {
    let headers = HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_bytes(value).unwrap())]);
    let expected = Disposition { name: name.map(str::to_owned), file_name: file_name.map(str::to_owned) };
    assert_eq!(Disposition::of(&headers).ok(), Some(expected), "{}", String::from_utf8_lossy(value));
}

#[test]
fn names_and_file_names_are_read_as_clients_send_them() {
    for (value, name, file_name) in [
        // Plain, unquoted, without a name, without a file.
        (&b"form-data; name=\"file\"; filename=\"a.txt\""[..], Some("file"), Some("a.txt")),
        (b"form-data; name=file; filename=a.txt", Some("file"), Some("a.txt")),
        (b"form-data;name=\"file\";filename=\"a.txt\";", Some("file"), Some("a.txt")),
        (b"form-data; name=\"text\"", Some("text"), None),
        (b"form-data; filename=\"a.txt\"", None, Some("a.txt")),
        // Names of parameters have no case.
        (b"FORM-DATA; NAME=\"file\"; FILENAME=\"a.txt\"", Some("file"), Some("a.txt")),
        (b"form-data ; Name = \"file\" ; FileName = \"a.txt\"", Some("file"), Some("a.txt")),
        // Quoted strings keep their separators and escapes.
        (b"form-data; name=\"a; filename=evil.txt\"", Some("a; filename=evil.txt"), None),
        (b"form-data; name=\"a\\\"; filename=\\\"evil.txt\"", Some("a\"; filename=\"evil.txt"), None),
        (b"form-data; filename=\"x; name=y.txt\"; name=\"file\"", Some("file"), Some("x; name=y.txt")),
        (b"form-data; name=\"file\"; filename=\"a \\\"b\\\".txt\"", Some("file"), Some("a \"b\".txt")),
        (b"form-data; name=\"a=b\"; filename=\"c=d\"", Some("a=b"), Some("c=d")),
        // A lone backslash is part of the name, an escaped one too.
        (b"form-data; name=\"file\"; filename=\"C:\\dir\\a.txt\"", Some("file"), Some("C:\\dir\\a.txt")),
        (b"form-data; name=\"file\"; filename=\"C:\\\\dir\\\\a.txt\"", Some("file"), Some("C:\\dir\\a.txt")),
        (b"form-data; name=file; filename=C:\\dir\\a.txt", Some("file"), Some("C:\\dir\\a.txt")),
        // Extended names; the plain one wins.
        (b"form-data; name=\"file\"; filename*=utf-8''%C3%A9.txt", Some("file"), Some("\u{e9}.txt")),
        (b"form-data; name=\"file\"; filename*=UTF-8'en'a%20b.txt", Some("file"), Some("a b.txt")),
        (b"form-data; name=\"file\"; filename*=iso-8859-1''%E9.txt", Some("file"), Some("\u{e9}.txt")),
        (b"form-data; name=\"file\"; filename*=unheard-of''%C3%A9.txt", Some("file"), Some("\u{e9}.txt")),
        (b"form-data; name=\"file\"; filename*=\"a.txt\"", Some("file"), Some("a.txt")),
        (b"form-data; name=\"file\"; filename*=utf-8''%C3%A9.txt; filename=\"e.txt\"", Some("file"), Some("e.txt")),
        (b"form-data; name*=utf-8''f%C3%BCr", Some("f\u{fc}r"), None),
        // UTF-8, or else Latin-1.
        (b"form-data; name=\"file\"; filename=\"caf\xc3\xa9.txt\"", Some("file"), Some("caf\u{e9}.txt")),
        (b"form-data; name=\"file\"; filename=\"caf\xe9.txt\"", Some("file"), Some("caf\u{e9}.txt")),
        // Empty and broken values.
        (b"form-data; name=\"file\"; filename=\"\"", Some("file"), Some("")),
        (b"form-data; name=\"\"", Some(""), None),
        (b"form-data; name=\"file; filename=a.txt", Some("\"file; filename=a.txt"), None),
        (b"form-data; name", None, None),
        (b"", None, None),
    ] {
        check(value, name, file_name);
    }
    assert_eq!(Disposition::of(&HeaderMap::new()).ok(), Some(Disposition::default()));
}

#[test]
fn boundaries_are_read_as_clients_send_them() {
    for (content_type, boundary) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        ("multipart/form-data; boundary=\"abc\"", Some("abc")),
        ("multipart/form-data; boundary=----=_Part_1_2.3", Some("----=_Part_1_2.3")),
        ("multipart/form-data; boundary=\"----=_Part_1_2.3\"", Some("----=_Part_1_2.3")),
        ("multipart/form-data; boundary=a?b/c", Some("a?b/c")),
        ("multipart/form-data; boundary=\"a; charset=b\"; charset=c", Some("a; charset=b")),
        ("multipart/form-data; charset=\"\"; Boundary=abc", Some("abc")),
        ("multipart/form-data;BOUNDARY=abc;", Some("abc")),
        ("multipart/form-data; boundary=\"\"", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary", None),
        ("multipart/form-data", None),
    ] {
        assert_eq!(boundary_of(content_type).as_deref(), boundary, "{content_type}");
    }
}

#[test]
fn a_header_that_costs_much_to_parse_is_refused() {
    let of = |value: &str| {
        Disposition::of(&HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_str(value).unwrap())]))
    };
    let continued = |count: usize| (0..count).map(|n| format!(";{n}*0*=a")).collect::<String>();
    for costly in [continued(33), "x".repeat(MAX_LENGTH)] {
        let refused = of(&format!("form-data; name=\"a\"{costly}")).unwrap_err();
        assert_eq!(refused.code(), "malformed");
        assert_eq!(boundary_of(&format!("multipart/form-data; boundary=a{costly}")), None);
    }
    let long = format!("form-data; name=\"a\"; filename=\"{}{}\"", "*;".repeat(32), "\u{e9}".repeat(255));
    assert_eq!(of(&long).unwrap().name.as_deref(), Some("a"));
}

#[test]
fn no_header_panics() {
    // All sequences of four pieces: continuations, charsets, quotes and escapes in every order.
    let pieces: [&[u8]; 10] = [b";", b"name", b"*", b"0", b"=", b"'", b"\"", b"\\", b"%C3", b"\xe9"];
    for mut number in 0..10_000_u32 {
        let mut value = b"form-data; filename*0*=utf-8''a; ".to_vec();
        for _ in 0..4 {
            value.extend_from_slice(pieces[(number % 10) as usize]);
            number /= 10;
        }
        let headers = HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_bytes(&value).unwrap())]);
        let _ = Disposition::of(&headers);
        let _ = boundary_of(&text_of(&value));
    }
}
