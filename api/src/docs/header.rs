//! The head of a config module: what a reference page says about a worker type beside its fields.
//! Read from the `//!` lines of the source, so that the words stand beside the code.

/// The `//!` lines of a config module: paragraphs with a title.
pub(crate) struct Header {
    /// Title and text, in order.
    pub sections: Vec<(String, String)>,
    /// Markdown after the paragraphs, from the first heading on; empty if there is none.
    pub more: String,
}

impl Header {
    /// Reads the head of a source file.
    pub fn of(source: &str) -> Self {
        let lines: Vec<&str> = source
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
            .collect();
        let heading = lines.iter().position(|line| line.starts_with("## "));
        let (paragraphs, more) = lines.split_at(heading.unwrap_or(lines.len()));
        let sections = paragraphs
            .split(|line| line.is_empty())
            .map(|paragraph| paragraph.join(" "))
            .filter_map(|paragraph| {
                let (title, text) = paragraph.split_once(": ")?;
                Some((title.to_owned(), text.to_owned()))
            })
            .collect();
        Self {
            sections,
            more: more.join("\n"),
        }
    }

    /// The text under a title.
    pub fn get(&self, title: &str) -> Option<&str> {
        let section = self.sections.iter().find(|(name, _)| name == title);
        section.map(|(_, text)| text.as_str())
    }
}

/// Codes that a header lists: the words in back-quotes.
pub(super) fn code_names(header: &Header) -> Vec<String> {
    let listed = header.get("Codes").unwrap_or_default();
    listed
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_paragraphs_with_titles() {
        let header = Header::of(
            "//! What it is: a\n//! thing.\n//!\n//! Limits: none.\n//!\n//! ## Use\n//!\n//! ```console\n//!   $ a: b\n//! ```\n\nuse x;\n//! Not: this\n",
        );
        assert_eq!(header.get("What it is"), Some("a thing."));
        assert_eq!(header.sections.len(), 2);
        assert_eq!(header.more, "## Use\n\n```console\n  $ a: b\n```");
    }
}
