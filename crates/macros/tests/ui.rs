//! What an author reads who got an attribute wrong: a file for each mistake, with what the compiler says about it.
//!
//! After a change of a message: `TRYBUILD=overwrite cargo test -p phalanx-macros --test ui`, and read the difference.
//! What must compile is part of this binary, so that its definitions can be looked at as well.

#[path = "ui/pass/actions.rs"]
mod actions;
#[path = "ui/pass/inputs.rs"]
mod inputs;
#[path = "ui/pass/shadows.rs"]
mod shadows;

#[test]
fn every_mistake_is_named_where_it_was_made() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
