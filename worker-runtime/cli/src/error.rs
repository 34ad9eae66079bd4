//! How a command ends: one error type, its exit code, and the one place where both are decided.
//! 0 ok · 1 runtime · 2 validation · 3 environment · 128 + signal.

use std::process::ExitCode;
use vumi_core::error::WorkError;

/// Why a command did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// Exit code of the process.
    pub code: u8,
    /// What was wrong, where, and what to do, without a final period. Empty if it was said already.
    pub text: String,
}

impl CliError {
    /// Exit code of an error that came up while running.
    pub const RUNTIME: u8 = 1;
    /// Exit code of input that is not valid: manifests, names, arguments.
    pub const VALIDATION: u8 = 2;
    /// Exit code of an environment that lacks something: files, ports, a broker, another process.
    pub const ENVIRONMENT: u8 = 3;

    /// Something failed while running.
    pub fn runtime(text: impl Into<String>) -> Self {
        Self {
            code: Self::RUNTIME,
            text: text.into(),
        }
    }

    /// What was given is not valid.
    pub fn validation(text: impl Into<String>) -> Self {
        Self {
            code: Self::VALIDATION,
            text: text.into(),
        }
    }

    /// The machine lacks something: a file, a port, a broker, another process.
    pub fn environment(text: impl Into<String>) -> Self {
        Self {
            code: Self::ENVIRONMENT,
            text: text.into(),
        }
    }

    /// A file or folder that cannot be read, and what to do: one text for all commands.
    pub fn unreadable(place: impl std::fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let reason = match error.kind() {
            ErrorKind::NotFound => "it does not exist; check the path".to_owned(),
            ErrorKind::PermissionDenied => "permission denied; check its mode".to_owned(),
            ErrorKind::InvalidData => "it is not UTF-8 text; save it as UTF-8".to_owned(),
            _ => error.to_string(),
        };
        Self::environment(format!("cannot read {place}: {reason}"))
    }

    /// Ended by a signal, as a shell reports it: 130 after Ctrl-C, 143 after SIGTERM.
    pub fn signal(number: u8) -> Self {
        Self {
            code: 128_u8.saturating_add(number),
            text: String::new(),
        }
    }

    /// The same error, when its reasons are printed already.
    pub fn silent(code: u8) -> Self {
        Self {
            code,
            text: String::new(),
        }
    }

    /// Prints the text to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            crate::output::note(&format!("error: {}", self.text));
        }
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CliError {}

impl From<WorkError> for CliError {
    fn from(error: WorkError) -> Self {
        Self {
            code: error.class.exit_code(),
            text: error.advice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_core::error::ErrorClass;

    #[test]
    fn signals_and_classes_have_their_codes() {
        assert_eq!(CliError::signal(15).code, 143);
        assert_eq!(CliError::signal(2).code, 130);
        for (class, code) in [
            (ErrorClass::Config, CliError::VALIDATION),
            (ErrorClass::Connect, CliError::ENVIRONMENT),
            (ErrorClass::Bug, CliError::RUNTIME),
        ] {
            let error = WorkError::new(class, vumi_core::codes::BROKER_REFUSED, "refused");
            let error = CliError::from(error);
            assert_eq!(error.code, code);
            assert!(error.text.starts_with("refused (broker.refused); Check "));
        }
    }
}
