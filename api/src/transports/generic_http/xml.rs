//! Where a value stands in a document of XML.

/// A path from the root element, whose own name does not count: names of elements, and at the end perhaps an attribute.
/// `a/b` is the text of the first `b` in the first `a`, `a/@c` an attribute of that `a`, `@c` one of the root, and
/// `member[name=user]/value` the value of the first member whose child `name` has the text `user`. Prefixes of namespaces
/// do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XmlPath {
    /// Elements, from outside to inside.
    pub steps: Vec<XmlStep>,
    /// The attribute that is meant; none for the element's text.
    pub attribute: Option<String>,
}

/// One element on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XmlStep {
    /// Its name, without a prefix.
    pub name: String,
    /// A child and the text that it must have.
    pub having: Option<(String, String)>,
}

impl std::str::FromStr for XmlPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            if let Some(name) = part.strip_prefix('@') {
                return match parts.next() {
                    None => Ok(Self {
                        steps,
                        attribute: Some(name_of(name)?),
                    }),
                    Some(_) => Err("an attribute is the end of a path".into()),
                };
            }
            let (name, having) = match part.strip_suffix(']').and_then(|part| part.split_once('['))
            {
                None => (part, None),
                Some((name, having)) => {
                    let (child, value) = having
                        .split_once('=')
                        .ok_or("what stands in [ ] is a child and its text: [name=user]")?;
                    (name, Some((name_of(child)?, value.to_owned())))
                }
            };
            steps.push(XmlStep {
                name: name_of(name)?,
                having,
            });
        }
        Ok(Self {
            steps,
            attribute: None,
        })
    }
}

fn name_of(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    match begins && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is no name of an element or attribute; a path is like Event/Context/@user"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let path: XmlPath = "a/b[name=x y]/@c".parse().unwrap();
        assert_eq!(path.steps.len(), 2);
        assert_eq!(path.steps[1].having, Some(("name".into(), "x y".into())));
        assert_eq!(path.attribute.as_deref(), Some("c"));
        let root: XmlPath = "@status_code".parse().unwrap();
        assert!(root.steps.is_empty());
        for (wrong, says) in [
            ("", "\"\" is no name"),
            ("/a", "\"\" is no name"),
            ("a//b", "\"\" is no name"),
            ("a/@b/c", "the end of a path"),
            ("a[b]", "a child and its text"),
            ("soap:Body", "is no name"),
            ("1a", "is no name"),
        ] {
            let error = wrong.parse::<XmlPath>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
