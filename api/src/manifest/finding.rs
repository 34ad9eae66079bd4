//! One thing wrong in a manifest: where it stands, what it is, what to do. Printed as
//! `campaign.yaml:7:5 spec.telnet.prot: unknown field; did you mean port?`.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; the campaign runs.
    Warning,
    /// The resource cannot run.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One finding. Values of Secrets never appear in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Dotted code, one of [`CODES`].
    pub code: &'static str,
    /// File as it was named to [`super::load`].
    pub file: String,
    /// Line, from 1; 0 when the finding is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 with line 0.
    pub column: usize,
    /// Path to the field, such as `spec.middleware[0].name`; empty when the finding is about the document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do, where there is more to say.
    pub help: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        match self.path.as_str() {
            "" => f.write_str(": ")?,
            path => write!(f, " {path}: ")?,
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

macro_rules! codes {
    ($( $konst:ident = $name:literal, $meaning:literal; )*) => {
        $( #[doc = $meaning] pub(super) const $konst: &str = $name; )*

        /// Every code of a finding with its meaning, for `vumi explain` and the reference pages.
        pub const CODES: &[(&str, &str)] = &[$(($name, $meaning)),*];
    };
}

codes! {
    SYNTAX = "manifest.syntax", "The file is not YAML from this place on.";
    DOCUMENT = "manifest.document", "A document is not a resource: apiVersion, kind or metadata is missing or unknown.";
    IGNORED = "manifest.ignored", "A document of a kind that no worker reads; it is left alone.";
    DUPLICATE_KEY = "manifest.duplicate_key", "A key stands twice in one object; only one of them can count.";
    DUPLICATE_NAME = "manifest.duplicate_name", "Two resources of one kind have the same name.";
    UNKNOWN_FIELD = "manifest.unknown_field", "A field that does not exist here, most often a slip of the pen.";
    UNSUPPORTED = "manifest.unsupported", "A reserved field or kind that this version does not support yet.";
    MISSING_FIELD = "manifest.missing_field", "A required field is missing.";
    WRONG_TYPE = "manifest.wrong_type", "A value is of another type than its field.";
    WRONG_VALUE = "manifest.wrong_value", "A value is outside what its field allows.";
    RULE = "manifest.rule", "A rule over several fields is broken; the same rule stands in the custom resource definition.";
    INVALID = "manifest.invalid", "The worker type's own validation refuses the spec.";
    AMBIGUOUS = "manifest.ambiguous", "An unquoted word that other YAML readers, kubectl among them, take for true, false or another number.";
    QUEUE_CLASH = "campaign.queue_clash", "Two workers consume one queue: each would get a part of the messages.";
    NO_CONSUMER = "campaign.no_consumer", "Messages are published to a queue that no manifest consumes.";
    BROKER_SPLIT = "campaign.broker_split", "Two workers share a queue and use different brokers, virtual hosts or profiles: they never hear each other.";
    TIMES = "campaign.times", "Two lengths of time are possible together, and mean less than one would expect.";
    LISTEN_CLASH = "campaign.listen_clash", "Two workers of one process listen on the same address and port.";
    ORDER_BROKEN = "campaign.order_broken", "One hop of a path that keeps order does not keep it.";
    STATE_EXPECTED = "campaign.state_expected", "A worker does not start without a state store, and its manifest names none: on a cluster the Secret vumi-redis is used.";
    REPEATS_UNKNOWN = "campaign.repeats_unknown", "Requests have an id by which one that comes again would be recognised, and the manifest names no state store to remember it in: on a cluster the Secret vumi-redis is used, and without it a repeat is another message.";
    SECRET_MISSING = "campaign.secret_missing", "A referenced Secret or key is not among the manifests or is empty, or the Secret of a broker or state store holds no address.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compiler_message() {
        let mut finding = Finding {
            severity: Severity::Error,
            code: UNKNOWN_FIELD,
            file: "campaign.yaml".into(),
            line: 7,
            column: 5,
            path: "spec.telnet.prot".into(),
            message: "unknown field".into(),
            help: Some("did you mean port?".into()),
        };
        assert_eq!(
            finding.to_string(),
            "campaign.yaml:7:5 spec.telnet.prot: unknown field; did you mean port?"
        );
        finding.severity = Severity::Warning;
        finding.path.clear();
        finding.help = None;
        assert_eq!(
            finding.to_string(),
            "campaign.yaml:7:5: warning: unknown field"
        );
        finding.line = 0;
        assert_eq!(finding.to_string(), "campaign.yaml: warning: unknown field");
    }
}
