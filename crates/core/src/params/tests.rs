use std::collections::BTreeMap;

use serde_json::json;

use super::*;

#[derive(Debug, Deserialize, JsonSchema, Validate, serde::Serialize)]
struct Everything {
    flag: Option<bool>,
    count: Option<u8>,
    ratio: Option<f64>,
    text: Option<String>,
    list: Option<Vec<i64>>,
    map: Option<BTreeMap<String, i64>>,
    nested: Option<Nested>,
    kind: Option<Kind>,
    any: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema, Validate, serde::Serialize)]
struct Nested {
    a: i64,
    b: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Small,
    Large,
}

/// The decoded input without absent fields; or the codes of its faults, by path.
fn decoded(params: &Params) -> Value {
    match params.decode::<Everything>() {
        Ok(input) => {
            let Value::Object(mut fields) = serde_json::to_value(input).unwrap() else { unreachable!("a struct") };
            fields.retain(|_, value| !value.is_null());
            Value::Object(fields)
        }
        Err(error) if error.details().is_empty() => json!(error.code()),
        Err(error) => error.details().iter().map(|detail| json!([detail.path, detail.code])).collect(),
    }
}

fn query(text: &str) -> Params {
    let mut params = Params::default();
    params.push_query(text).unwrap();
    params
}

#[test]
fn text_is_parsed_as_the_requested_type() {
    let check = |text: &str, expected: Value| assert_eq!(decoded(&query(text)), expected, "{text}");
    for (text, flag) in [("true", true), ("1", true), ("on", true), ("yes", true), ("false", false), ("off", false)] {
        check(&format!("flag={text}"), json!({ "flag": flag }));
    }
    check("flag=maybe", json!([["flag", "type"]]));
    check("count=255", json!({ "count": 255 }));
    check("count=256", json!([["count", "range"]]));
    check("count=1.5", json!([["count", "type"]]));
    check("count=", json!({}));
    check("ratio=1e3", json!({ "ratio": 1000.0 }));
    check("ratio=NaN", json!([["ratio", "type"]]));
    check("ratio=inf", json!([["ratio", "type"]]));
    check("text=5&undeclared=1", json!({ "text": "5" }));
    check("list=1", json!({ "list": [1] }));
    check("list=1&list=2", json!({ "list": [1, 2] }));
    check("list[]=1&list[]=2", json!({ "list": [1, 2] }));
    check("list=1&list=x", json!([["list[1]", "type"]]));
    check("map[x]=1&map[y]=2", json!({ "map": { "x": 1, "y": 2 } }));
    check("nested[a]=1&nested[b]=c", json!({ "nested": { "a": 1, "b": "c" } }));
    check("nested[b]=c", json!([["nested.a", "required"]]));
    check("kind=small", json!({ "kind": "small" }));
    check("kind=huge", json!([["kind", "enum"]]));
    check("any=5", json!({ "any": "5" }));
    check("any[x]=5", json!({ "any": { "x": "5" } }));
    check("flag=x&count=x&list=x", json!([["count", "type"], ["flag", "type"], ["list[0]", "type"]]));
}

#[test]
fn json_keeps_its_types() {
    let check = |body: &str, expected: Value| {
        let mut params = Params::default();
        params.set_json_body(body.as_bytes()).unwrap();
        assert_eq!(decoded(&params), expected, "{body}");
        let raw = RawValue::from_string(body.to_owned()).unwrap();
        assert_eq!(decoded(&Params::from_raw_json(raw).unwrap()), expected, "over a socket: {body}");
    };
    check(r#"{"flag":true,"count":7,"any":{"deep":[1,null]}}"#, json!({"flag":true,"count":7,"any":{"deep":[1,null]}}));
    check(r#"{"count":"7","flag":"true"}"#, json!([["count", "type"], ["flag", "type"]]));
    check(r#"{"list":[1,2]}"#, json!({ "list": [1, 2] }));
    check(r#"{"list":1}"#, json!([["list", "type"]]));
    check(r#"{"text":null}"#, json!({}));
}

#[test]
fn path_wins_over_body_over_query_in_every_order_of_arrival() {
    let sources: [fn(&mut Params); 3] = [
        |params| params.push_query("text=query&count=1&flag=on").unwrap(),
        |params| params.set_json_body(br#"{"text":"body","count":2}"#).unwrap(),
        |params| params.push_path("text", "path".to_owned()).unwrap(),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut params = Params::default();
        order.iter().for_each(|&source: &usize| sources[source](&mut params));
        assert_eq!(decoded(&params), json!({ "text": "path", "count": 2, "flag": true }), "{order:?}");
    }
}

#[test]
fn a_body_that_is_not_an_object_is_empty_a_list_or_malformed() {
    let check = |body: &str, expected: Result<bool, &str>| {
        let mut params = Params::default();
        let set = params.set_json_body(body.as_bytes());
        let found = set.as_ref().map(|()| params.is_empty()).map_err(|error| error.code());
        assert_eq!(found, expected, "{body}");
    };
    check("", Ok(true));
    check(" \n", Ok(true));
    check("{}", Ok(true));
    check("[1,2]", Ok(false));
    check("5", Err("malformed"));
    check("null", Err("malformed"));
    check("\"text\"", Err("malformed"));
    check("{", Err("malformed"));
}

#[test]
fn depth_and_number_of_params_are_bounded() {
    let deep = |levels: usize| format!("a{}=1", "[b]".repeat(levels));
    assert!(Params::default().push_query(&deep(7)).is_ok());
    assert_eq!(Params::default().push_query(&deep(20)).unwrap_err().code(), "malformed");
    let many = |pairs: usize| vec!["a=1"; pairs].join("&");
    assert!(Params::default().push_query(&many(MAX_PAIRS)).is_ok());
    assert_eq!(Params::default().push_query(&many(MAX_PAIRS + 1)).unwrap_err().code(), "payload_too_large");
}

#[test]
fn hidden_params_are_filtered_at_any_depth() {
    let shown = query("password=hunter2&name=ann").to_json(&|name| name == "password");
    assert_eq!(Value::Object(shown), json!({ "password": "[FILTERED]", "name": "ann" }));
    let nested = query("user[password]=hunter2&list[][password]=hunter2").to_json(&|name| name == "password");
    assert!(!Value::Object(nested).to_string().contains("hunter2"));
    let mixed = query("user=1&user[password]=hunter2&user=2").to_json(&|name| name == "password");
    assert_eq!(Value::Object(mixed), json!({ "user": ["1", { "password": "[FILTERED]" }, "2"] }));
    let mut listed = Params::default();
    listed.set_json_body(br#"{"rows":[[{"password":"hunter2"},[[{"password":"hunter2","name":"ann"}]]]]}"#).unwrap();
    let expected = json!({ "rows": [[{ "password": "[FILTERED]" }, [[{ "password": "[FILTERED]", "name": "ann" }]]]] });
    assert_eq!(Value::Object(listed.to_json(&|name| name == "password")), expected);
    assert!(!format!("{:?}", query("password=hunter2")).contains("hunter2"));
}

#[test]
fn keys_of_every_kind_under_one_name_make_one_list() {
    let shown = |text: &str| query(text).to_json(&|_| false)["a"].clone();
    assert_eq!(shown("a=1&a[b]=2&a[]=3&a[c][d]=4&a=5"), json!(["1", { "b": "2" }, "3", { "c": { "d": "4" } }, "5"]));
    assert_eq!(shown("a[b]=1&a=2&a[b]=3"), json!([{ "b": "1" }, "2", { "b": "3" }]));
    assert_eq!(shown("a[b]=1&a[b][c]=2&a[b][c]=3"), json!({ "b": ["1", { "c": "2" }, { "c": "3" }] }));
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let pairs: Vec<_> =
        (0..MAX_PAIRS).map(|n| if n % 2 == 0 { format!("a={n}") } else { format!("a[b]={n}") }).collect();
    let many = shown(&pairs.join("&"));
    assert_eq!((many.as_array().map(Vec::len), depth(&many)), (Some(MAX_PAIRS), 2));
}

#[test]
fn an_enum_is_decoded_from_every_source() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Shape {
        Circle(u8),
        Square { side: u8 },
        Nothing,
    }
    impl Validate for Shape {
        fn validate(&self) -> Result<(), validator::ValidationErrors> {
            Ok(())
        }
    }
    let body = |text: &str| {
        let mut params = Params::default();
        params.set_json_body(text.as_bytes()).unwrap();
        params
    };
    let socket = |text: &str| Params::from_raw_json(RawValue::from_string(text.to_owned()).unwrap()).unwrap();
    let check = |params: Params, expected: Shape| assert_eq!(params.decode::<Shape>().unwrap(), expected);
    check(query("circle=2&apiVersion=1"), Shape::Circle(2));
    check(query("square[side]=3"), Shape::Square { side: 3 });
    check(query("nothing="), Shape::Nothing);
    check(body(r#"{"circle":2,"apiVersion":1}"#), Shape::Circle(2));
    check(socket(r#"{"action":"draw","square":{"side":3}}"#), Shape::Square { side: 3 });
    let faults = |params: Params| format!("{:?}", params.decode::<Shape>().unwrap_err().details());
    assert!(faults(query("circle=x")).contains("must be a whole number"));
    assert!(faults(query("circle=1&nothing=")).contains("is not valid"), "two variants are none");
}

#[test]
fn the_last_of_duplicate_names_in_json_wins_on_every_transport() {
    let text = r#"{"count":1,"text":"a","count":2}"#;
    let mut params = Params::default();
    params.set_json_body(text.as_bytes()).unwrap();
    assert_eq!(decoded(&params), json!({ "count": 2, "text": "a" }));
    let raw = RawValue::from_string(text.to_owned()).unwrap();
    assert_eq!(decoded(&Params::from_raw_json(raw).unwrap()), json!({ "count": 2, "text": "a" }));
}

#[test]
fn valid_json_beyond_a_limit_is_not_reported_as_invalid() {
    let message = |text: &str| Params::default().set_json_body(text.as_bytes()).unwrap_err().message().to_owned();
    assert_eq!(message(r#"{"count":1e400}"#), "a number is beyond what can be read");
    assert_eq!(message(&"[".repeat(500)), "params nest too deeply");
    assert_eq!(message("{"), "the body is not valid JSON");
}

#[test]
fn a_body_wins_over_a_query_of_many_names() {
    let names: Vec<_> = (0..MAX_PAIRS).map(|n| format!("n{n}=query")).collect();
    let mut params = query(&names.join("&"));
    let body: Map<String, Value> = (0..100_000).map(|n| (format!("n{n}"), "body".into())).collect();
    params.set_json_body(Value::Object(body).to_string().as_bytes()).unwrap();
    assert_eq!(params.fields.len(), 100_000);
    assert!(params.fields.iter().all(|field| field.source == Source::Body));
}

#[test]
fn the_requested_version_is_parsed_alike_from_every_source() {
    let check = |requested: Value, expected: Result<Option<u32>, &str>| {
        let text = json!({ "apiVersion": requested }).to_string();
        let mut body = Params::default();
        body.set_json_body(text.as_bytes()).unwrap();
        let socket = Params::from_raw_json(RawValue::from_string(text).unwrap()).unwrap();
        for params in [body, socket] {
            assert_eq!(params.version().map_err(|error| error.kind().code()), expected, "{requested}");
        }
    };
    check(json!(2), Ok(Some(2)));
    check(json!("2"), Ok(Some(2)));
    check(json!(""), Ok(None));
    check(json!(null), Ok(None));
    for unusable in [json!("x"), json!(-1), json!(1.5), json!(true), json!([1]), json!({}), json!(1_u64 << 33)] {
        check(unusable, Err("not_found"));
    }
    assert_eq!(query("").version().unwrap(), None);
    assert_eq!(query("apiVersion=3").version().unwrap(), Some(3));
    assert_eq!(query("apiVersion=1&apiVersion=2").version().unwrap_err().code(), "not_found");
}

#[derive(Debug, Deserialize, JsonSchema, Validate, serde::Serialize)]
struct Numbers {
    top: Option<i64>,
    small: Option<u8>,
    list: Option<Vec<u32>>,
    nested: Option<Nested>,
    choice: Option<Choice>,
    either: Option<Either>,
    #[serde(flatten)]
    flat: Flat,
    float: Option<f64>,
    any: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
struct Flat {
    inner: Option<i64>,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
enum Choice {
    One(i64),
    Two { n: u16 },
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
#[serde(tag = "kind")]
enum Either {
    Count { n: u16 },
    Name { name: String },
}

/// Decodes JSON as a body and as a frame, which agree; returns the fields or the codes of the faults.
fn from_json<T: Input + serde::Serialize>(text: &str) -> Value {
    let decode = |params: &Params| match params.decode::<T>() {
        Ok(input) => {
            let Value::Object(mut fields) = serde_json::to_value(input).unwrap() else { unreachable!("a struct") };
            fields.retain(|_, value| !value.is_null());
            Value::Object(fields)
        }
        Err(error) => error.details().iter().map(|detail| json!([detail.path, detail.code])).collect(),
    };
    let mut body = Params::default();
    body.set_json_body(text.as_bytes()).unwrap();
    let frame = Params::from_raw_json(RawValue::from_string(text.to_owned()).unwrap()).unwrap();
    let (body, frame) = (decode(&body), decode(&frame));
    assert_eq!(body, frame, "{text}");
    body
}

#[test]
fn a_number_without_a_fraction_is_an_integer() {
    let check = |text: &str, expected: Value| assert_eq!(from_json::<Numbers>(text), expected, "{text}");
    check(r#"{"top":1.0}"#, json!({"top": 1}));
    check(r#"{"top":1e0,"small":2.5e1}"#, json!({"top": 1, "small": 25}));
    check(r#"{"top":-3.0}"#, json!({"top": -3}));
    check(r#"{"top":-0.0}"#, json!({"top": 0}));
    check(r#"{"list":[1.0,2,3e0]}"#, json!({"list": [1, 2, 3]}));
    check(r#"{"nested":{"a":1e0}}"#, json!({"nested": {"a": 1, "b": null}}));
    check(r#"{"choice":{"One":1.0}}"#, json!({"choice": {"One": 1}}));
    check(r#"{"choice":{"Two":{"n":7.0}}}"#, json!({"choice": {"Two": {"n": 7}}}));
    check(r#"{"either":{"kind":"Count","n":7.0}}"#, json!({"either": {"kind": "Count", "n": 7}}));
    check(r#"{"inner":5.0}"#, json!({"inner": 5}));
    check(r#"{"top":9007199254740991.0}"#, json!({"top": 9_007_199_254_740_991_i64}));
    check(r#"{"float":2.0,"any":2.0}"#, json!({"float": 2.0, "any": 2.0}));
    check(r#"{"top":1.5}"#, json!([["top", "type"]]));
    check(r#"{"top":9007199254740993.0}"#, json!([["top", "type"]]));
    check(r#"{"small":256.0}"#, json!([["small", "range"]]));
    check(r#"{"small":-1.0}"#, json!([["small", "range"]]));
    check(r#"{"list":[1.0,2.5]}"#, json!([["list[1]", "type"]]));
    check(r#"{"top":1.0,"small":"x"}"#, json!([["small", "type"]]));
    for (text, expected) in [
        ("count=1.0&list=2e0", json!({"count": 1, "list": [2]})),
        ("count=1.5", json!([["count", "type"]])),
        ("count=1e3", json!([["count", "range"]])),
        ("count=1.0&flag=x", json!([["flag", "type"]])),
        ("list=9007199254740993.0", json!([["list[0]", "type"]])),
    ] {
        assert_eq!(decoded(&query(text)), expected, "{text}");
    }
}

#[test]
fn a_version_may_be_written_as_a_float() {
    for (version, expected) in [
        (json!(1), Some(1)),
        (json!(1.0), Some(1)),
        (json!("1"), Some(1)),
        (json!("1.0"), Some(1)),
        (json!("2e0"), Some(2)),
        (json!(1.5), None),
        (json!(-1.0), None),
        (json!(1e300), None),
        (json!("1.5"), None),
        (json!("latest"), None),
    ] {
        assert_eq!(version_of(Some(&version)).ok().flatten(), expected, "{version}");
    }
}

#[derive(Debug, Deserialize, JsonSchema, Validate, serde::Serialize)]
struct Narrow {
    single: Option<f32>,
    list: Option<Vec<f32>>,
    point: Option<Point>,
    double: Option<f64>,
    loose: Option<Loose>,
    pair: Option<(f32, f32)>,
    by_number: Option<std::collections::BTreeMap<u32, f32>>,
    shape: Option<Shape>,
    any: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
enum Shape {
    Points(Vec<f32>),
    Name(String),
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
struct Point {
    x: f32,
    #[serde(flatten)]
    more: More,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
struct More {
    y: Option<f32>,
}

#[derive(Debug, Deserialize, JsonSchema, serde::Serialize)]
#[serde(untagged)]
enum Loose {
    Single { x: f32, name: String },
    Double { x: f64, code: u8 },
}

#[test]
fn a_number_beyond_f32_is_out_of_range_and_not_infinite() {
    let check = |text: &str, expected: Value| assert_eq!(from_json::<Narrow>(text), expected, "{text}");
    check(r#"{"single":1e38}"#, json!({"single": 1e38_f32}));
    check(r#"{"single":1e39}"#, json!([["single", "range"]]));
    check(r#"{"single":-1e39}"#, json!([["single", "range"]]));
    check(r#"{"list":[1,1e39]}"#, json!([["list[1]", "range"]]));
    check(r#"{"point":{"x":1e39}}"#, json!([["point.x", "range"]]));
    check(r#"{"point":{"x":1,"y":1e39}}"#, json!([["point.y", "range"]]));
    check(r#"{"double":1e39,"any":1e39}"#, json!({"double": 1e39, "any": 1e39}));
    check(r#"{"loose":{"x":1e39,"code":5}}"#, json!({"loose": {"x": 1e39, "code": 5}}));
    check(r#"{"loose":{"x":1e39,"name":"a"}}"#, json!([["loose.x", "range"]]));
    let long = vec!["1"; 5000].join(",");
    check(&format!(r#"{{"list":[{long},1e39]}}"#), json!([["list[5000]", "range"]]));
    check(r#"{"pair":[0,1e39]}"#, json!([["pair[1]", "range"]]));
    check(r#"{"by_number":{"1":0,"2":1e39}}"#, json!([["by_number.2", "range"]]));
    check(&format!(r#"{{"shape":{{"Points":[{long},1e39]}}}}"#), json!([["shape.Points[5000]", "range"]]));
    let longer = vec!["1"; 20_000].join(",");
    check(&format!(r#"{{"shape":{{"Points":[{longer},1e39]}}}}"#), json!([["", "invalid"]]));
    for text in ["single=1e39", "list=1&list=-1e39", "point[x]=1e39"] {
        let error = query(text).decode::<Narrow>().unwrap_err();
        assert_eq!(error.details()[0].code, "range", "{text}");
    }
}

#[test]
fn a_byte_order_mark_before_json_is_ignored() {
    let check = |body: &str, expected: Result<usize, &str>| {
        let mut params = Params::default();
        let read = params.set_json_body(body.as_bytes()).map(|()| params.fields.len());
        assert_eq!(read.map_err(|error| error.code().to_owned()), expected.map_err(str::to_owned), "{body:?}");
    };
    check("\u{feff}{\"a\":1}", Ok(1));
    check("\u{feff} [1]", Ok(1));
    check("\u{feff}", Ok(0));
    check("\u{feff}\u{feff}{}", Err("malformed"));
    check("{\u{feff}}", Err("malformed"));
}
