//! What the macros accept, and what they say to what they do not.

#[test]
fn every_mistake_in_a_macro_is_one_error_at_its_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
    cases.pass("tests/ui/pass/*.rs");
}
