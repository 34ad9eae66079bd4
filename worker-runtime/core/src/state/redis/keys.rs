//! Where everything is kept in Redis: the one place that knows a key. The table is in the header of [`super`].

use std::fmt::Write as _;

/// How keys end that say when a session began.
pub(super) const SESSION_CREATED: &str = ":session_created";

/// Keys below one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
}

impl Keys {
    /// Vumi's convention: without a prefix keys are as they are, else the separator stands between.
    pub(super) fn new(prefix: &str, separator: &str) -> Self {
        let root = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}{separator}"),
        };
        Self { root }
    }

    /// What every key begins with.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Vumi's session: the manager's prefix, here that of the worker (none where `scope` is empty), and the user.
    pub(super) fn session(&self, scope: &str, user: &str) -> String {
        format!("{}{user}", self.sessions(scope))
    }

    /// What the keys of a scope's sessions begin with.
    pub(super) fn sessions(&self, scope: &str) -> String {
        match scope {
            "" => format!("{}session:", self.root),
            scope => format!("{}{scope}:session:", self.root),
        }
    }

    /// When a user's session began, as Vumi's session length middleware keeps it.
    pub(super) fn session_created(&self, namespace: &str, user: &str) -> String {
        format!("{}{namespace}:{user}{SESSION_CREATED}", self.root)
    }

    /// Whether a key says when a session of a user began whom `is_theirs` knows. Namespaces and addresses may have colons.
    pub(super) fn is_session_created(&self, key: &str, is_theirs: impl Fn(&str) -> bool) -> bool {
        let rest = key.strip_prefix(self.root.as_str());
        let Some(rest) = rest.and_then(|rest| rest.strip_suffix(SESSION_CREATED)) else {
            return false;
        };
        rest.match_indices(':')
            .any(|(at, _)| is_theirs(&rest[at + 1..]))
    }

    /// The user of a session's key; none if it is another key.
    pub(super) fn session_user<'a>(&self, key: &'a str) -> Option<&'a str> {
        let rest = key.strip_prefix(self.root.as_str())?;
        match rest.strip_prefix("session:") {
            Some(user) => Some(user),
            None => rest.split_once(":session:").map(|(_, user)| user),
        }
    }

    /// What Vumi's failure worker keeps of a transport begins with it.
    pub(super) fn failures(&self, transport: &str) -> String {
        format!("{}failures:{transport}:", self.root)
    }

    /// What Vumi's scheduler keeps begins with it, by its default.
    pub(super) fn scheduler(&self) -> String {
        format!("{}scheduler#", self.root)
    }

    /// Keys of the journal begin with it; `J` itself counts messages by queue.
    pub(super) fn journal(&self) -> String {
        format!("{}J", self.root)
    }

    /// Keys of the ledger begin with it.
    pub(super) fn ledger(&self) -> String {
        format!("{}L:", self.root)
    }

    /// The sign of life of a worker that sends.
    pub(super) fn life(&self, worker: &str) -> String {
        format!("{}l:{}", self.ledger(), part(worker))
    }

    /// Orders for the batches of a transport.
    pub(super) fn orders(&self, account: &str) -> String {
        format!("{}o:{}", self.ledger(), part(account))
    }

    /// Keys of what was seen begin with it.
    pub(super) fn first_seen(&self) -> String {
        format!("{}F:", self.root)
    }

    /// A message of a provider.
    pub(super) fn seen(&self, scope: &str, id: &str) -> String {
        format!("{}i:{}:{}", self.first_seen(), part(scope), part(id))
    }

    /// Who may move lanes, by queue.
    pub(super) fn movers(&self) -> String {
        format!("{}:r", self.journal())
    }

    /// One token bucket.
    pub(super) fn bucket(&self, key: &str) -> String {
        format!("{}R:{key}", self.root)
    }

    /// The lives in which a message was begun again.
    pub(super) fn suspect(&self, queue: &str, id: &str) -> String {
        format!("{}S:{}:{}", self.root, part(queue), part(id))
    }

    /// What keys of suspects begin with.
    pub(super) fn suspects(&self) -> String {
        format!("{}S:", self.root)
    }

    /// Written to learn whether a store that refused writes takes them again.
    pub(super) fn probe(&self) -> String {
        format!("{}W", self.root)
    }
}

/// A name as part of a key or a stored list: what separates parts is escaped, so that two names never share a key.
pub(super) fn part(name: &str) -> String {
    let plain = |b: u8| !matches!(b, b'%' | b':' | b' ' | 0..=31 | 127);
    let mut part = String::with_capacity(name.len());
    for c in name.chars() {
        match u8::try_from(c) {
            Ok(b) if b < 128 && !plain(b) => {
                let _ = write!(part, "%{b:02x}");
            }
            _ => part.push(c),
        }
    }
    part
}

/// The name that [`part`] made this of.
pub(super) fn name(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text as `SCAN … MATCH` takes it literally.
pub(super) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vumis_layout() {
        let keys = Keys::new("kp", "#");
        assert_eq!(keys.session("", "27821"), "kp#session:27821");
        assert_eq!(keys.session("menu", "+27821"), "kp#menu:session:+27821");
        assert_eq!(keys.failures("foo"), "kp#failures:foo:");
        assert_eq!(Keys::new("", "#").failures("foo"), "failures:foo:");
        assert_eq!(keys.session_user("kp#menu:session:+27821"), Some("+27821"));
        assert_eq!(keys.session_user("kp#session:a"), Some("a"));
        assert_eq!(keys.session_user("kp#J:x"), None);
        let created = keys.session_created("pool:tag", "xmpp:a@b");
        assert_eq!(created, "kp#pool:tag:xmpp:a@b:session_created");
        assert!(keys.is_session_created(&created, |user| user == "xmpp:a@b"));
        assert!(!keys.is_session_created(&created, |user| user == "pool"));
        assert!(!keys.is_session_created("kp#t:session:a", |_| true));
    }

    proptest! {
        #[test]
        fn two_names_never_share_a_key(a in "[ -~é]{0,12}", b in "[ -~é]{0,12}") {
            let keys = Keys::new("vumi", ":");
            prop_assert_eq!(name(&part(&a)), a.clone());
            if a != b {
                prop_assert_ne!(keys.suspect(&a, &b), keys.suspect(&b, &a));
            }
        }
    }
}
