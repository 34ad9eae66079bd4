//! Regular expressions of schemas, rules and templates. Compiling one takes longer than all that is matched with it in a
//! manifest or a message, so that is done once per process.

use regex::{Error, Regex};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Templates may make patterns as they run: then older ones are compiled again.
const KEPT: usize = 500;

/// Whether the text has a match of the pattern.
///
/// # Errors
/// If the pattern is none.
pub(crate) fn is_match(pattern: &str, text: &str) -> Result<bool, Error> {
    static COMPILED: OnceLock<Mutex<HashMap<String, Regex>>> = OnceLock::new();
    let regex = {
        let mut compiled = COMPILED
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match compiled.get(pattern) {
            Some(regex) => regex.clone(),
            None => {
                let regex = Regex::new(pattern)?;
                if compiled.len() >= KEPT {
                    compiled.clear();
                }
                compiled.insert(pattern.to_owned(), regex.clone());
                regex
            }
        }
    };
    Ok(regex.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_matched_again_and_again() {
        for _ in 0..2 {
            assert!(is_match("^[a-z]+$", "abc").unwrap());
            assert!(!is_match("^[a-z]+$", "a1").unwrap());
            assert!(is_match("(", "").is_err());
        }
    }

    #[test]
    fn patterns_that_are_made_again_and_again_are_not_all_kept() {
        for n in 0..2 * KEPT {
            assert!(is_match(&format!("^{n}$"), &n.to_string()).unwrap());
        }
    }
}
