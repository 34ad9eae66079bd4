//! The way out of a process: whatever calls others asks here first where the call goes. A process that tests campaigns lets
//! nothing leave it ([`Outside::through`]); any other lets everything go where it is addressed.

use std::fmt;
use std::sync::Arc;

type Way = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// Where calls to others go.
#[derive(Clone, Default)]
pub struct Outside(Option<Arc<Way>>);

impl Outside {
    /// A way that says of each address where the call goes instead, or why it is not made. The sentence is shown to users and
    /// must not repeat the whole address, which may hold credentials.
    pub fn through(way: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(way)))
    }

    /// Where a call to `address` (a URL) goes instead; none if to the address itself.
    ///
    /// # Errors
    /// Why no such call is made, in a sentence.
    pub fn way(&self, address: &dyn fmt::Display) -> Result<Option<String>, String> {
        match &self.0 {
            Some(way) => way(&address.to_string()).map(Some),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "confined" } else { "open" })
    }
}
