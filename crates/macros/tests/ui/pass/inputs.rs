//! Types with `#[input]` and `#[output]`.

use phalanx::prelude::*;
use phalanx::validator::Validate;

#[input]
#[derive(Clone, Debug, PartialEq)]
struct SignUp {
    #[validate(email)]
    email: String,
    #[secret]
    #[validate(length(min = 8))]
    password: String,
    #[validate(nested)]
    address: Address,
    how: How,
}

#[input]
#[derive(Clone, Debug, PartialEq)]
struct Address {
    #[validate(length(min = 1))]
    town: String,
}

/// Variants may be renamed: no validator reports them.
#[input]
#[derive(Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum How {
    ByMail,
    ByPhone { number: String },
}

#[input]
struct Page<T> {
    rows: Vec<T>,
}

#[output]
#[derive(Clone, Copy, Debug)]
#[serde(rename_all = "camelCase")]
struct Count {
    how_many: u32,
}

fn sign_up() -> SignUp {
    let address = Address { town: "Berlin".to_owned() };
    SignUp { email: "a@b.example".to_owned(), password: "12345678".to_owned(), address, how: How::ByMail }
}

#[test]
fn an_input_is_checked_by_its_rules_and_those_below_it() {
    assert!(sign_up().validate().is_ok());
    assert!(SignUp { email: "no-address".to_owned(), ..sign_up() }.validate().is_err());
    assert!(SignUp { address: Address { town: String::new() }, ..sign_up() }.validate().is_err());
    assert!(How::ByPhone { number: String::new() }.validate().is_ok());
    assert!(Page { rows: vec![0] }.validate().is_ok());
}

#[test]
fn a_secret_is_marked_in_the_schema() {
    let schema = phalanx::extend::params::input_schema::<SignUp>();
    let marked = |field: &str| schema.get("properties").and_then(|all| all[field].get("writeOnly")).is_some();
    assert!(marked("password"));
    assert!(!marked("email"));
}

#[test]
fn an_output_may_rename_its_fields() {
    let answer = phalanx::Answer::json(&Count { how_many: 3 }).expect("a count has JSON");
    let phalanx::Content::Json(text) = answer.content else { panic!("an answer of JSON") };
    assert_eq!(text, r#"{"howMany":3}"#);
}
