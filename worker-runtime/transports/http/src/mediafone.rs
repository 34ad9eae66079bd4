//! `mediafone`: SMS by Mediafone in Cameroon, described in `mediafone.yaml`.

use crate::described::{Described, Settings};
use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::transports::Mediafone;
use vumi_api::transports::generic_http::NumberForm;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = Mediafone;

    async fn build(
        config: Mediafone,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let settings = Settings::default()
            .text("url", Some(config.url))
            .text("username", Some(config.username))
            .secret("password", Some(config.password))
            .numbers(
                config.numbers_of,
                config.unclear_numbers,
                NumberForm::Digits,
            );
        Described::build(include_str!("mediafone.yaml"), settings, cx)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: mediafone}\nspec:\n  mediafone: {url: \"http://127.0.0.1:{provider}/\", username: me, password: {value: fixture-password}}\n  http: {host: 127.0.0.1, port: {port}}\n",
            peer: None,
        }
    }
}
