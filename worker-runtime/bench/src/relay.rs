//! `httpRelay` over RabbitMQ, against an endpoint in this process that answers each message with a reply.

use crate::AnyError;
use crate::report::{Report, median};
use crate::rig::{ANSWERED, Rig, Run};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_core::worker::Listener;
use vumi_http::{Answer, Head, Limits, Reply, Request, Server, Service, StatusCode};

/// Takes everything, and says so.
struct Endpoint;

#[async_trait]
impl Service for Endpoint {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, _: Request) -> Reply {
        let name = http::HeaderName::from_static("x-vumi-httprelay-reply");
        let answer = Answer::text(StatusCode::OK, "thank you");
        answer
            .with(name, http::HeaderValue::from_static("true"))
            .into()
    }
}

fn manifest(port: u16, more: &str) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: relay}}\nspec:\n  httpRelay: {{url: \"http://127.0.0.1:{port}/\"{more}}}\n  transportName: bench_in\n  backlogLimit: 10000000\n"
    )
}

/// The rows of this file.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<(), AnyError> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let port = socket.local_addr()?.port();
    let closing = CancellationToken::new();
    let until = closing.clone();
    let server = Arc::new(Server::new(Limits::default()));
    let serves = Arc::clone(&server);
    let serving = tokio::spawn(async move {
        let listener = Listener::new(Arc::new(socket));
        serves
            .serve(listener, &until, Arc::new(Endpoint), |_| {})
            .await;
    });
    let rig = Rig::new(messages).await?;
    let signing =
        ", signing: {secrets: [{value: whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}";
    for (name, more) in [("`httpRelay`", ""), ("`httpRelay`, signed", signing)] {
        let manifest = manifest(port, more);
        let mut seen = Vec::new();
        for _ in 0..runs {
            seen.push(rig.filled(|| rig.worker(&manifest, &[]), ANSWERED).await?);
        }
        let of = |value: fn(&Run) -> f64| median(seen.iter().map(value).collect());
        report.row(
            &format!("{name} against a local endpoint that replies (RabbitMQ 4.0, process)"),
            format!(
                "{} msg/s; {} µs CPU/message; {} MiB",
                of(|run| run.rate),
                of(|run| run.cpu_micros),
                of(|run| run.rss)
            ),
            "reported",
            None,
        );
    }
    closing.cancel();
    serving.await?;
    server.close().await;
    Ok(())
}
