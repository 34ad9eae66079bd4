//! What tests tell a running broker: through Erlang's own caller, which takes milliseconds, or through `rabbitmqctl`.
//! Everything here is what an operator or a mishap could do to it.

use super::{COOKIE, Error, RabbitMq, Version};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

impl RabbitMq {
    /// Adds a virtual host that `guest` may use, and sets its default queue type (4.0 only; 3.10 has none).
    pub async fn add_vhost(
        &self,
        name: &str,
        default_queue_type: Option<&str>,
    ) -> Result<(), Error> {
        let metadata = match default_queue_type {
            Some(kind) if self.version == Version::V4_0 => {
                format!(
                    "#{{default_queue_type => <<\"{kind}\">>, description => <<>>, tags => []}}"
                )
            }
            _ => "#{description => <<>>, tags => []}".into(),
        };
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, {metadata}, <<\"testkit\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"testkit\">>)"
        ))
        .await?;
        Ok(())
    }

    /// Deletes the queues of a virtual host that have `part` in their names.
    pub async fn delete_queues(&self, vhost: &str, part: &str) -> Result<(), Error> {
        self.eval(&format!(
            "[rabbit_amqqueue:delete(Q, false, false, <<\"testkit\">>) || Q <- rabbit_amqqueue:list(<<\"{vhost}\">>), \
             binary:match(element(4, amqqueue:get_name(Q)), <<\"{part}\">>) =/= nomatch], ok"
        ))
        .await?;
        Ok(())
    }

    /// Adds a user that may do everything on the virtual host `/`, and gives it tags, such as `monitoring`.
    pub async fn add_user(&self, name: &str, password: &str, tags: &[&str]) -> Result<(), Error> {
        let tags = tags.join(", ");
        self.eval(&format!(
            "ok = rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"{password}\">>, <<\"testkit\">>), \
             ok = rabbit_auth_backend_internal:set_tags(<<\"{name}\">>, [{tags}], <<\"testkit\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(<<\"{name}\">>, <<\"/\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"testkit\">>)"
        ))
        .await?;
        Ok(())
    }

    /// Runs `rabbitmqctl` and returns what it printed. Takes a second or two; [`RabbitMq::eval`] takes milliseconds.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let program = self.mapper.sbin()?.join("rabbitmqctl");
        self.output(
            self.command(&program)
                .arg("-n")
                .arg(&self.node)
                .arg("-q")
                .args(arguments),
        )
        .await
    }

    /// Evaluates Erlang expressions inside the broker and returns the printed result.
    pub async fn eval(&self, expressions: &str) -> Result<String, Error> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.eval_once(expressions).await {
                // Under load the broker is sometimes too slow for erl_call's own patience.
                Err(Error::Failed(why))
                    if why.contains("failed to connect to node") && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(200)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn eval_once(&self, expressions: &str) -> Result<String, Error> {
        let program = self.mapper.erlang().join("erl_call");
        let mut command = self.command(&program);
        command
            .args(["-n", &self.node, "-c", COOKIE, "-e"])
            .stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::Io("erl_call cannot be started", e))?;
        if let Some(mut input) = child.stdin.take() {
            // It reads only once it is connected; if it gives up before, its answer says why.
            let _ = input
                .write_all(format!("{expressions}.\n").as_bytes())
                .await;
        }
        let output = timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .map_err(|_| Error::Failed("the broker did not answer erl_call within 60 s".into()))?
            .map_err(|e| Error::Io("erl_call", e))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.strip_prefix("{ok, ").and_then(|s| s.strip_suffix('}')) {
            Some(value) if output.status.success() => Ok(value.to_owned()),
            _ => Err(Error::Failed(format!(
                "erl_call failed: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }

    /// Closes every client connection from the broker's side.
    pub async fn close_connections(&self) -> Result<(), Error> {
        let close = "Cs = rabbit_networking:connections(), [rabbit_networking:close_connection(P, \"closed by the test\") || P <- Cs], length(Cs)";
        let deadline = Instant::now() + Duration::from_secs(20);
        // A node that accepts connections already but is still booting sees none of them.
        while self.eval(close).await?.trim() == "0" {
            if Instant::now() > deadline {
                return Err(Error::Failed("there is no connection to close".into()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Raises or clears the memory alarm: with it, the broker reads nothing from connections that publish.
    pub async fn memory_alarm(&self, raised: bool) -> Result<(), Error> {
        let watermark = if raised { "0.000001" } else { "0.6" };
        self.eval(&format!(
            "vm_memory_monitor:set_vm_memory_high_watermark({watermark})"
        ))
        .await?;
        Ok(())
    }

    async fn output(&self, command: &mut Command) -> Result<String, Error> {
        let output = timeout(Duration::from_secs(60), command.kill_on_drop(true).output())
            .await
            .map_err(|_| Error::Failed("rabbitmqctl did not end within 60 s".into()))?
            .map_err(|e| Error::Io("rabbitmqctl cannot be started", e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Failed(format!(
            "rabbitmqctl failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}
