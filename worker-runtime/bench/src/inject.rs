//! `vumi inject`: messages of a file into a queue of RabbitMQ that nobody reads, each confirmed.

use crate::AnyError;
use crate::process::vumi;
use crate::report::{Report, median};
use std::fmt::Write;
use tokio::process::Command;
use vumi_testkit::rabbitmq::{RabbitMq, Version};

/// The rows of this file.
pub async fn rows(report: &mut Report, runs: usize, messages: u32) -> Result<(), AnyError> {
    let broker = RabbitMq::start(Version::V4_0).await?;
    let url = broker.url("/");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("messages.csv");
    // 600 bytes as a message, about: the rest of it is in the template.
    let content = "x".repeat(150);
    let mut text = "to,content\n".to_owned();
    for number in 0..messages {
        let _ = writeln!(text, "2772{:07},{content}", number % 1000);
    }
    std::fs::write(&file, text)?;
    let mut rates = Vec::new();
    for run in 0..runs {
        let connector = format!("inject{run}");
        let ended = Command::new(vumi()?)
            .args([
                "inject", "--kind", "outbound", "--create", "--format", "json",
            ])
            .args(["--connector", &connector, "--broker", &url])
            .arg(&file)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&ended.stdout);
        let rate = said
            .split("\"perSecond\":")
            .nth(1)
            .and_then(|rest| rest.split([',', '}']).next())
            .and_then(|number| number.trim().parse::<f64>().ok());
        let failed = || format!("{said}{}", String::from_utf8_lossy(&ended.stderr));
        rates.push(rate.filter(|_| ended.status.success()).ok_or_else(failed)?);
    }
    let rate = median(rates);
    report.row(
        "`vumi inject`, CSV into RabbitMQ 4.0",
        format!("{rate} msg/s"),
        "≥ 20000 msg/s",
        Some(rate.value >= 20_000.0),
    );
    Ok(())
}
