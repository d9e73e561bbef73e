//! The errors for wrong uses of the attributes: a file for each, with the compiler's message beside it.
//!
//! After a change of a message run `TRYBUILD=overwrite cargo test -p phalanx-macros --test ui` and review the diff. The
//! cases that must compile are modules of this binary, so that tests can check their definitions.

#[path = "ui/pass/actions.rs"]
mod actions;
#[path = "ui/pass/inputs.rs"]
mod inputs;
#[path = "ui/pass/shadows.rs"]
mod shadows;

#[test]
fn every_error_is_reported_at_its_span() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
