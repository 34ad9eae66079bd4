//! The command line.

use crate::bounded::Deadlines;
use crate::engine::lease::Times;
use crate::run::Options;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use vumi_api::Duration;
use vumi_core::logging::LogFormat;
use vumi_plan::Settings;

/// What the operator may be told.
#[derive(clap::Parser, Debug)]
#[command(
    name = "vumi-operator",
    version,
    about = "Makes pods of Vumi's resources (vumi.dev/v1alpha1) and keeps them as they should be",
    max_term_width = 100,
    after_help = "Examples:
  vumi-operator
  vumi-operator --namespace campaigns --namespace tests --settings /etc/vumi-operator/settings.yaml
  KUBECONFIG=~/.kube/config vumi-operator --lease-namespace default --admin 127.0.0.1:9464

Several may run: all of them watch, and the one that holds the lease writes. SIGTERM and SIGINT give the lease back.
Exit codes: 0 stopped by a signal · 1 failed while running · 2 a setting is not valid · 3 no cluster, or a port is taken."
)]
pub struct Arguments {
    /// YAML file with what workers get: image, resources, podMonitor, … as for `vumi render --settings` [default: those of
    /// this version]
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Image of the runtime, whatever the settings say
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Watch this namespace; may be given several times [default: all namespaces]
    #[arg(short, long = "namespace", value_name = "NAME")]
    pub namespaces: Vec<String>,
    /// Notice at once when a Secret with the label vumi.dev/watch=true changes; takes the rights to list and watch Secrets
    #[arg(long)]
    pub watch_secrets: bool,
    /// Resources that are worked on at one time
    #[arg(long, value_name = "N", default_value = "16")]
    pub concurrency: std::num::NonZeroUsize,
    /// How long a call to the API server may take
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub call_timeout: Duration,
    /// Namespace of the lease [default: that of the pod, else of the kubeconfig]
    #[arg(long, value_name = "NAME")]
    pub lease_namespace: Option<String>,
    /// Name of the lease; operators with different settings, each for namespaces of its own, need different ones
    #[arg(long, value_name = "NAME", default_value = "vumi-operator")]
    pub lease_name: String,
    /// Name of this operator in the lease and in events [default: the host's, and a random part]
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// For so long others leave a lease alone that is not renewed
    #[arg(long, value_name = "DURATION", default_value = "17s")]
    pub lease_duration: Duration,
    /// For so long after its last renewal the holder of the lease writes
    #[arg(long, value_name = "DURATION", default_value = "12s")]
    pub lease_renew_deadline: Duration,
    /// Between attempts to renew the lease; who waits for it looks four times as often
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub lease_retry: Duration,
    /// How long one attempt may take
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub lease_attempt: Duration,
    /// Where health checks and metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9464")]
    pub admin: SocketAddr,
    /// Shape of the log on standard error: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or by part as in vumi_operator=debug,info
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_level: String,
}

impl Arguments {
    /// How long calls may take.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines::of(self.call_timeout.0)
    }

    /// What they say, with the namespace of the client where they say none.
    ///
    /// # Errors
    /// What is not valid, and what to do.
    pub fn options(&self, own_namespace: &str) -> Result<Options, String> {
        let mut settings = match &self.settings {
            Some(file) => read_settings(file)?,
            None => Settings::default(),
        };
        if let Some(image) = &self.image {
            settings.image.clone_from(image);
        }
        if self.call_timeout.0.is_zero() {
            return Err("--call-timeout must be longer than nothing".into());
        }
        let times = Times {
            duration: self.lease_duration.0,
            renew_deadline: self.lease_renew_deadline.0,
            retry: self.lease_retry.0,
            attempt: self.lease_attempt.0,
        };
        times.validate()?;
        let namespace = self.lease_namespace.as_deref().unwrap_or(own_namespace);
        let mut namespaces = self.namespaces.clone();
        namespaces.sort();
        namespaces.dedup();
        Ok(Options {
            settings,
            namespaces,
            watch_secrets: self.watch_secrets,
            concurrency: self.concurrency.get(),
            lease: (namespace.to_owned(), self.lease_name.clone()),
            times,
            identity: self.identity.clone().unwrap_or_else(identity),
        })
    }
}

fn read_settings(file: &Path) -> Result<Settings, String> {
    let place = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read the settings {place}: {error}"))?;
    serde_yaml::from_str(&text).map_err(|error| format!("the settings {place}: {error}"))
}

/// Host, which is the pod's name, and something random: a container that starts again in its pod is another one.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "vumi-operator",
        host => host,
    };
    format!("{host}-{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let arguments = Arguments::parse_from(["vumi-operator"]);
        let options = arguments.options("vumi-system").unwrap();
        assert_eq!(
            options.lease,
            ("vumi-system".to_owned(), "vumi-operator".to_owned())
        );
        let (given, default) = (options.times, Times::default());
        assert_eq!(
            (
                given.duration,
                given.renew_deadline,
                given.retry,
                given.attempt
            ),
            (
                default.duration,
                default.renew_deadline,
                default.retry,
                default.attempt
            )
        );
        assert_eq!(options.settings, Settings::default());
        assert!(options.namespaces.is_empty() && !options.watch_secrets);
    }

    #[test]
    fn times_of_the_lease_must_fit_together() {
        let arguments = Arguments::parse_from(["vumi-operator", "--lease-duration", "10s"]);
        let error = arguments.options("n").unwrap_err();
        assert!(error.contains("--lease-renew-deadline"), "{error}");
    }

    #[test]
    fn a_mistake_in_the_settings_has_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.yaml");
        std::fs::write(&file, "imagee: x\n").unwrap();
        let file = file.display().to_string();
        let arguments = Arguments::parse_from(["vumi-operator", "--settings", &file]);
        let error = arguments.options("n").unwrap_err();
        assert!(
            error.contains("operator.yaml") && error.contains("imagee"),
            "{error}"
        );
    }
}
