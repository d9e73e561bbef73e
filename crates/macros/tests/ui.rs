//! What an author reads who got an attribute wrong: one mistake a file, with what the compiler says about it.

#[test]
fn every_mistake_is_named_where_it_was_made() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
