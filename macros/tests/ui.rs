//! What the macros say to what they do not accept.

#[test]
fn every_mistake_in_a_macro_is_one_error_at_its_place() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
