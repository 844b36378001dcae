//! Every rule has its row in the documentation, in order, and every row its rule.

use std::fs;
use std::path::Path;

#[test]
fn rules_and_rows_of_the_documentation_are_the_same() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check-rules.md");
    let page = fs::read_to_string(page).unwrap();
    let is_id = |cell: &str| {
        let (letter, digits) = cell.split_at_checked(1).unwrap_or_default();
        ["C", "N"].contains(&letter) && digits.len() == 2 && digits.parse::<u8>().is_ok()
    };
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let id = cells.next().filter(|cell| is_id(cell))?;
        // Of a rule the page says more than its name.
        let texts: Vec<&str> = cells.collect();
        assert!(
            texts.len() >= 2 && texts.iter().all(|text| !text.is_empty()),
            "{line}"
        );
        Some(id.to_owned())
    };
    let rows_below = |heading: &str| -> Vec<String> {
        let (_, below) = page.split_once(heading).expect("the page has the heading");
        below
            .lines()
            .map_while(|line| (!line.starts_with("## ")).then(|| row(line)))
            .flatten()
            .collect()
    };
    let rows = rows_below("\n## The rules\n");
    let of_sections = vmstate_schema::Rule::ALL.iter().map(|rule| rule.id());
    let of_ends = vmstate_negotiate::Rule::ALL.iter().map(|rule| rule.id());
    let expected: Vec<&str> = of_sections.chain(of_ends).collect();
    assert_eq!(
        rows, expected,
        "the rows of docs/check-rules.md, in the order of the rules"
    );
}
