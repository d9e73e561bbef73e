//! HTTP: answers to valid and invalid input, and limits.

use serde_json::json;

use crate::app::{settings, start};
use crate::client::{get, post_json, raw, request};

#[tokio::test]
async fn params_come_from_path_over_body_over_query() {
    let node = start(settings()).await;
    let addr = node.addr();
    assert_eq!(
        get(addr, "/api/echo/path?text=query&number=1.5&list=a&list=b").await.json(),
        json!({"text": "path", "number": 1.5, "list": ["a", "b"]})
    );
    let body = post_json(addr, "/api/echo?text=query&number=1", r#"{"text":"body","list":["x","y"]}"#).await;
    assert_eq!(body.json(), json!({"text": "body", "number": 1.0, "list": ["x", "y"]}));
    let form =
        request(addr, "POST /api/echo", &["content-type: application/x-www-form-urlencoded"], b"text=a+b&list=c").await;
    assert_eq!(form.json(), json!({"text": "a b", "list": ["c"]}));
    node.stop().await;
}

#[tokio::test]
async fn all_errors_of_an_input_are_reported_together_without_its_values() {
    let node = start(settings()).await;
    let answer = post_json(node.addr(), "/api/checked", r#"{"string":5,"number":"hunter2"}"#).await;
    assert_eq!(answer.status, 422);
    let expected = json!([
        {"path": "number", "code": "type", "message": "must be a whole number"},
        {"path": "string", "code": "type", "message": "must be a string"},
    ]);
    assert_eq!(answer.json()["error"]["details"], expected);
    let answer = get(node.addr(), "/api/checked?number=11").await.json();
    let codes: Vec<_> = answer["error"]["details"].as_array().unwrap().iter().map(|detail| &detail["code"]).collect();
    assert_eq!(codes, ["range", "required"]);
    let answer = get(node.addr(), "/api/checked?string=ab&number=11").await.json();
    let expected = json!([
        {"path": "number", "code": "range", "message": "must be from 1 to 10"},
        {"path": "string", "code": "length", "message": "must have 3 to 32 characters"},
    ]);
    assert_eq!(answer["error"]["details"], expected);
    node.stop().await;
}

#[tokio::test]
async fn invalid_requests_get_a_typed_error_and_the_node_keeps_serving() {
    let node = start(settings()).await;
    let addr = node.addr();
    let json = "content-type: application/json";
    for (line, headers, body, status, code) in [
        ("GET /api/nothing", &[][..], "", 404, "not_found"),
        ("GET /api/inner", &[], "", 404, "not_found"),
        ("GET /api/echo?apiVersion=99", &[], "", 404, "not_found"),
        ("GET /api/echo?apiVersion=__proto__", &[], "", 404, "not_found"),
        ("PUT /api/echo", &[], "", 405, "method_not_allowed"),
        ("POST /api/echo", &[json], "{", 400, "malformed"),
        ("POST /api/echo", &[json], "null", 400, "malformed"),
        ("POST /api/echo", &[json], "5", 400, "malformed"),
        ("POST /api/echo", &["content-type: text/plain"], "x", 415, "unsupported_media_type"),
        ("POST /api/echo", &["content-type: multipart/form-data; boundary=x"], "broken", 400, "malformed"),
        ("POST /api/upload", &[json], r#"{"file":{"path":"/etc/passwd","name":"x"}}"#, 422, "invalid_input"),
        ("POST /api/echo", &["content-type: text/plain"], "", 200, ""),
        ("POST /api/echo", &["content-type: multipart/form-data"], "", 200, ""),
        ("POST /phalanx-client.js", &[], "", 405, "method_not_allowed"),
        ("GET /api/panics", &[], "", 500, "internal"),
        ("GET /api/nap?ms=9999", &[], "", 504, "timeout"),
        ("GET /missing.txt", &[], "", 404, "not_found"),
        ("GET /..%2f..%2fetc/passwd", &[], "", 404, "not_found"),
        ("GET /ws", &[], "", 426, "upgrade_required"),
        ("GET /api/echo?callback[]=a", &["x-forwarded-for: [zz]:1"], "", 200, ""),
    ] {
        let answer = request(addr, line, headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{line} {body}");
    }
    let picture = get(addr, "/api/echo/pic.png").await;
    assert_eq!(
        (picture.header("content-type"), picture.json()),
        (Some("application/json; charset=utf-8"), json!({"text": "pic.png"}))
    );
    let upgrade =
        ["connection: upgrade, close", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: AA=="];
    assert_eq!(request(addr, "GET /elsewhere", &upgrade, b"").await.status, 404);
    assert_eq!(get(addr, "/api/outer").await.json(), json!({"text": "inner"}));
    assert_eq!(get(addr, "/api/http_only").await.json(), json!({"result": true}));
    node.stop().await;
}

#[tokio::test]
async fn sizes_and_times_are_bounded() {
    let mut config = settings();
    config.web.body_timeout = std::time::Duration::from_millis(200);
    config.web.max_body = "1KiB".parse().unwrap();
    config.web.max_upload = "4KiB".parse().unwrap();
    let node = start(config).await;
    let addr = node.addr();
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(2000));
    assert_eq!(post_json(addr, "/api/echo", &large).await.error_code(), "payload_too_large");
    let part = |size: usize| {
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n{}\r\n--b--\r\n",
            "y".repeat(size)
        )
    };
    let multipart = ["content-type: multipart/form-data; boundary=b"];
    let taken = request(addr, "POST /api/upload", &multipart, part(2000).as_bytes()).await;
    assert_eq!(
        (taken.status, taken.json()["size"].as_u64(), taken.json()["name"].as_str()),
        (200, Some(2000), Some("a.txt"))
    );
    let refused = request(addr, "POST /api/upload", &multipart, part(9000).as_bytes()).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (413, "payload_too_large"));
    let late = raw(
        addr,
        b"POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .await;
    assert_eq!(late.status, 408);
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "z".repeat(40_000));
    assert_eq!(raw(addr, head.as_bytes()).await.status, 431);
    node.stop().await;
}

#[tokio::test]
async fn head_and_options_answer_and_the_client_module_is_served() {
    let node = start(settings()).await;
    let addr = node.addr();
    let head = request(addr, "HEAD /api/echo/x", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let options = request(addr, "OPTIONS /api/echo", &[], b"").await;
    assert_eq!((options.status, options.header("allow")), (200, Some("DELETE, GET, HEAD, OPTIONS, POST")));
    let module = get(addr, "/phalanx-client.js").await;
    assert_eq!((module.status, module.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let tag = format!("if-none-match: {}", module.header("etag").unwrap());
    assert_eq!(request(addr, "GET /phalanx-client.js", &[&tag], b"").await.status, 304);
    for path in ["/phalanx-client.js", "/ws"] {
        let options = request(addr, &format!("OPTIONS {path}"), &[], b"").await;
        assert!(options.status == 200 && options.header("allow").unwrap().contains("GET"), "{options:?}");
    }
    let packed = request(addr, "GET /phalanx-client.js", &["accept-encoding: gzip"], b"").await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    node.stop().await;
}

#[tokio::test]
async fn operators_see_health_and_metrics() {
    let node = start(settings()).await;
    get(node.addr(), "/api/echo").await;
    let admin = node.admin_addr().unwrap();
    assert_eq!(get(admin, "/livez").await.body, b"ok");
    assert_eq!(get(admin, "/readyz").await.status, 200);
    let metrics = String::from_utf8(get(admin, "/metrics").await.body).unwrap();
    assert!(metrics.contains("phalanx_actions_total{action=\"echo\""), "{metrics}");
    node.stop().await;
}
