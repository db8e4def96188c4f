use std::path::Path;

use super::*;

#[test]
fn the_examples_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies");
    match check(&folder) {
        Ok(report) => println!("{report:?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_starter_is_the_scheme_of_the_examples() {
    PolicySet::load(&starter()).unwrap();
}
