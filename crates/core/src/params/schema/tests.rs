use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use validator::Validate;

use super::*;
use crate::params::Params;

#[derive(Debug, Deserialize, JsonSchema, Validate)]
#[expect(dead_code, reason = "only its faults are checked")]
struct Drawing {
    tagged: Option<Tagged>,
    named: Option<Named>,
    plain: Option<Plain>,
    either: Option<Either>,
    flat: Option<Flat>,
    by_name: Option<BTreeMap<String, Vec<i64>>>,
    #[validate(range(exclusive_min = 0, max = 9))]
    above: Option<i64>,
    single: Option<f32>,
    double: Option<f64>,
    long: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its faults are checked")]
enum Tagged {
    Circle { radius: u8, width: u8 },
    Square { side: u8 },
    Group(Group),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its faults are checked")]
struct Group {
    members: Vec<Tagged>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its faults are checked")]
enum Named {
    Nothing,
    Circle { radius: u8, width: u8 },
    Both(Box<Named>, Box<Named>),
    Not(Box<Named>),
    All(Vec<Named>),
}

/// Each variant has its own description in the schema.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Plain {
    /// The first.
    One,
    /// The second.
    Two,
}

/// No mark distinguishes one form from the others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its faults are checked")]
enum Either {
    Pair { left: Box<Either>, right: Box<Either> },
    Triple { left: Box<Either>, right: Box<Either>, more: u8 },
    Named { left: Box<Either>, right: Box<Either>, name: u8 },
    Other { left: Box<Either>, right: Box<Either>, other: u8 },
    Leaf(u8),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its faults are checked")]
struct Flat {
    #[serde(flatten)]
    tagged: Tagged,
    number: u8,
}

fn faults(input: &Value) -> Vec<(String, String)> {
    let mut params = Params::default();
    params.set_json_body(input.to_string().as_bytes()).unwrap();
    let refused = params.decode::<Drawing>().expect_err("it is wrong");
    refused.details().iter().map(|detail| (detail.path.clone(), detail.code.to_string())).collect()
}

fn check(input: Value, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(path, code)| ((*path).to_owned(), (*code).to_owned())).collect();
    assert_eq!(faults(&input), expected, "{input}");
}

#[test]
fn faults_are_reported_for_the_form_that_matches_best() {
    check(
        json!({ "tagged": { "kind": "circle", "radius": "x" } }),
        &[("tagged.radius", "type"), ("tagged.width", "required")],
    );
    check(json!({ "tagged": { "kind": "square" } }), &[("tagged.side", "required")]);
    check(json!({ "tagged": { "kind": "oval" } }), &[("tagged.kind", "enum")]);
    check(json!({ "tagged": { "side": 1 } }), &[("tagged.kind", "required")]);
    check(
        json!({ "tagged": { "kind": "group", "members": [{ "kind": "square", "side": 256 }] } }),
        &[("tagged.members[0].side", "range")],
    );
    check(
        json!({ "named": { "circle": { "radius": 256, "width": "x" } } }),
        &[("named.circle.radius", "range"), ("named.circle.width", "type")],
    );
    check(json!({ "named": { "all": ["nothing", { "not": "everything" }] } }), &[("named.all[1].not", "enum")]);
    check(json!({ "plain": "three" }), &[("plain", "enum")]);
}

#[test]
fn fields_beside_the_forms_are_checked_as_well() {
    check(
        json!({ "flat": { "kind": "square", "side": 256, "number": 256 } }),
        &[("flat.number", "range"), ("flat.side", "range")],
    );
}

#[test]
fn an_unknown_form_is_reported_with_the_known_names() {
    let message = |input: Value| {
        let mut params = Params::default();
        params.set_json_body(input.to_string().as_bytes()).unwrap();
        params.decode::<Drawing>().unwrap_err().details()[0].message.to_string()
    };
    assert_eq!(message(json!({ "plain": "three" })), r#"must be one of "one", "two""#);
    assert_eq!(message(json!({ "tagged": { "kind": "oval" } })), r#"must be one of "circle", "square", "group""#);
    assert_eq!(message(json!({ "above": "x", "tagged": null })), "must be a whole number");
    assert_eq!(message(json!({ "above": 0 })), "must be more than 0 and at most 9");
}

#[test]
fn forms_within_forms_are_not_tried_in_all_their_combinations() {
    let deep = |leaf: Value, levels: usize| (0..levels).fold(leaf, |inner, _| json!({ "left": inner, "right": 1 }));
    check(json!({ "either": deep(json!(256), 1) }), &[("either.left", "range")]);
    let found = faults(&json!({ "either": deep(json!("x"), 7), "long": "x" }));
    assert!(found.contains(&(String::new(), "invalid".to_owned())), "{found:?}");
    let named = (0..8).fold(json!("wrong"), |inner, _| json!({ "not": inner }));
    let path = format!("named{}", ".not".repeat(8));
    check(json!({ "named": named }), &[(&path, "enum")]);
}

#[test]
fn numbers_beyond_a_type_are_out_of_its_range() {
    let huge: Value = serde_json::from_str("99999999999999999999999").unwrap();
    check(json!({ "long": huge, "above": huge }), &[("above", "range"), ("long", "range")]);
    let text = |query: &str| {
        let mut params = Params::default();
        params.push_query(query).unwrap();
        let refused = params.decode::<Drawing>().expect_err(query);
        refused.details().iter().map(|detail| format!("{} {}", detail.path, detail.code)).collect::<Vec<_>>()
    };
    let digits = "9".repeat(50);
    assert_eq!(text(&format!("long={digits}")), ["long range"]);
    assert_eq!(text(&format!("long=-{digits}")), ["long range"]);
    assert_eq!(text("double=1e400"), ["double range"]);
    assert_eq!(text("single=1e39"), ["single range"]);
    assert_eq!(text("single=inf&double=NaN"), ["double type", "single type"]);
}

#[test]
fn a_name_that_a_client_made_up_is_cut_in_the_error() {
    let found = faults(&json!({ "by_name": { "ä".repeat(500): "x" } }));
    assert_eq!(found, [(format!("by_name.{}", "ä".repeat(64)), "type".to_owned())]);
}
