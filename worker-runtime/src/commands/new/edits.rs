//! Small edits of source files: a `mod` line, a `pub use` line, a row of a table. Each keeps the order that `cargo fmt`
//! keeps, and gives `None` when the file has another shape than expected.

/// Adds `mod NAME;` among the module lines, by name.
pub(super) fn add_module(text: &str, module: &str) -> Option<String> {
    let name = |line: &str| {
        line.strip_prefix("pub ")
            .unwrap_or(line)
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
            .map(str::to_owned)
    };
    insert_sorted(text, &format!("mod {module};"), module, name)
}

/// Adds `pub use MODULE::TYPE;` among the lines of this kind, by module.
pub(super) fn add_reexport(text: &str, module: &str, type_name: &str) -> Option<String> {
    let name = |line: &str| {
        line.strip_prefix("pub use ")
            .and_then(|rest| rest.split_once("::"))
            .map(|(module, _)| module.to_owned())
    };
    insert_sorted(
        text,
        &format!("pub use {module}::{type_name};"),
        module,
        name,
    )
}

/// Inserts `line` before the first line with a later name, or after the last line that has a name. Attributes belong to
/// the line below them.
fn insert_sorted(
    text: &str,
    line: &str,
    own: &str,
    name: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let later = lines
        .iter()
        .position(|l| name(l).is_some_and(|n| n.as_str() > own));
    let place = match later {
        Some(mut at) => {
            while at > 0 && lines[at - 1].starts_with("#[") {
                at -= 1;
            }
            at
        }
        None => lines.iter().rposition(|l| name(l).is_some())? + 1,
    };
    lines.insert(place, line);
    Some(lines.join("\n") + "\n")
}

/// Adds a row at the end of the worker types of the kind whose table is called `table`.
pub(super) fn add_type(text: &str, table: &str, row: &str) -> Option<String> {
    let start = text.find(&format!("types {table} {{"))?;
    let end = start + text[start..].find("\n    }\n")? + 1;
    Some(format!("{}{row}{}", &text[..end], &text[end..]))
}

/// Adds a row at the end of the family's registration table, one row per line.
pub(super) fn add_registration(text: &str, module: &str) -> Option<String> {
    let head = "WORKERS: &[Registration] = &[";
    let start = text.find(head)? + head.len();
    let end = start + text[start..].find("];")?;
    let rows = text[start..end].split(',').map(str::trim);
    let own = format!("Registration::of::<{module}::Def>()");
    let rows: String = rows
        .filter(|row| !row.is_empty())
        .chain([own.as_str()])
        .map(|row| format!("\n    {row},"))
        .collect();
    Some(format!("{}{rows}\n{}", &text[..start], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_stay_in_order() {
        let text =
            "//! x\n\nmod echo;\n#[cfg(test)]\nmod examples_test;\nmod static_reply;\n\nuse a;\n";
        let with = |module: &str| add_module(text, module).unwrap();
        assert!(with("aaa").contains("\n\nmod aaa;\nmod echo;\n"));
        assert!(with("edit").contains("mod echo;\nmod edit;\n#[cfg(test)]\nmod examples_test;\n"));
        assert!(with("quiz").contains("mod examples_test;\nmod quiz;\nmod static_reply;\n"));
        assert!(with("zoo").contains("mod static_reply;\nmod zoo;\n\nuse a;\n"));
        assert_eq!(add_module("//! nothing\n", "x"), None);
    }

    #[test]
    fn tables_get_one_row_more() {
        let one = "pub const WORKERS: &[Registration] = &[Registration::of::<telnet::Def>()];\n";
        let two = add_registration(one, "acme").unwrap();
        assert_eq!(
            two,
            "pub const WORKERS: &[Registration] = &[\n    Registration::of::<telnet::Def>(),\n    Registration::of::<acme::Def>(),\n];\n"
        );
        let three = add_registration(&two, "more").unwrap();
        assert_eq!(three.matches("Registration::of").count(), 3);
        assert_eq!(add_registration("nothing", "x"), None);
    }
}
