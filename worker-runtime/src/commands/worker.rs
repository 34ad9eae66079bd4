//! `vumi worker`: what a pod runs. The manifests are fixed while it runs; their Secrets may rotate.

use crate::brokers::Choice;
use crate::error::CliError;
use crate::manifests;
use crate::process::{self, POD_ADMIN, Process, Setup};
use crate::stores;
use std::path::PathBuf;
use std::sync::Arc;
use vumi_api::manifest::{Texts, load};
use vumi_api::{Severity, Target};
use vumi_core::secrets::Secrets;

/// Arguments of `vumi worker`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi worker
  vumi worker --manifests ./manifests --secrets ./secrets --admin 127.0.0.1:9464
  VUMI_BROKER_URL=amqp://user:password@rabbit/ vumi worker --manifests ./manifests

The broker is the one of spec.broker.secretRef, by default the Secret vumi-broker, with connection_string or host, port,
username and password. The state store is the one of spec.state, by default the Secret vumi-redis if there is one, with
connection_string or host and optionally port, username, password and db. Secrets are files DIR/<name>/<key>, read again when they are needed: rotating one restarts nothing.
A manifest that is not valid, or a Secret that is missing, leaves the process waiting and not ready; /readyz says why.
Exit codes: 1 runtime · 3 a directory or port cannot be used · 128+signal.")]
pub struct Arguments {
    /// Directory of manifests, one worker today
    #[arg(long, value_name = "DIR", default_value = "/etc/vumi/workers")]
    pub manifests: PathBuf,
    /// Directory with one folder per Secret and one file per key
    #[arg(long, value_name = "DIR", default_value = "/etc/vumi/secrets")]
    pub secrets: PathBuf,
    /// Directory for the control socket [default: the user's runtime directory], and for the state store of a worker with
    /// `state.volume`
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What every process takes.
    #[command(flatten)]
    pub process: process::Common,
}

/// Runs until a signal ends it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::start_log(&arguments.process)?;
    let texts = manifests::read(std::slice::from_ref(&arguments.manifests))?;
    let loaded = load(&texts, Target::Local);
    process::block_on(async {
        let secrets = Secrets::new(Texts::new(), Some(arguments.secrets.clone()));
        let setup = Setup {
            default_name: loaded
                .resources
                .first()
                .map_or_else(|| "worker".into(), |loaded| loaded.resource.name.clone()),
            default_admin: POD_ADMIN.into(),
            admin_required: true,
            state: arguments.state.clone(),
            broker: Choice::Secret,
            store: stores::Choice::Secret(arguments.state.clone()),
            secrets: Arc::new(secrets),
        };
        let mut process = Process::open(&arguments.process, setup).await?;
        let supervisor = Arc::clone(&process.supervisor);
        let errors: Vec<String> = loaded
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        let start = async {
            if !errors.is_empty() || loaded.resources.is_empty() {
                // Ending would only start a crash loop: the pod stays, unready, and says why.
                let why = match errors.is_empty() {
                    true => "no worker in the manifests".to_owned(),
                    false => errors.join("\n"),
                };
                tracing::error!(why, "the manifests are not valid; waiting for new ones");
                supervisor.set_problem(Some(why));
            } else {
                let resources = loaded.resources.iter().map(|l| l.resource.clone());
                supervisor.apply(resources.collect()).await;
            }
            std::future::pending::<()>().await;
        };
        let signal = tokio::select! {
            signal = process.ended() => signal,
            () = start => return Ok(()),
        };
        Err(process.shut_down(signal).await)
    })
}
