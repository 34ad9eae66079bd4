//! The commands, one module each: `Arguments` are what the user writes, `run` does it.

pub mod batch;
pub mod completions;
pub mod conformance;
pub mod convert;
pub mod crds;
pub mod diff;
pub mod docs;
pub mod doctor;
pub mod erase;
pub mod explain;
pub mod inject;
pub mod journal;
pub mod ledger;
pub mod lint;
pub mod new;
pub mod parked;
pub mod render;
pub mod run;
pub mod status;
pub mod tap;
pub mod test;
pub mod top;
pub mod why;
pub mod worker;

use crate::error::CliError;

/// That a connector may have this name, before a queue of it is looked for or made.
fn connector(name: &str) -> Result<(), CliError> {
    if vumi_api::shared::is_connector(name) {
        return Ok(());
    }
    let of_queue = ["inbound", "outbound", "event"]
        .iter()
        .find_map(|flow| name.strip_suffix(flow)?.strip_suffix('.'));
    Err(CliError::validation(match of_queue {
        Some(connector) => format!(
            "{name:?} is a queue; name its connector, {connector:?}, and the flow with --kind"
        ),
        None => {
            format!("{name:?} is no name of a connector: lower case letters, digits, -, _ and dots")
        }
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_connector_is_no_queue_and_in_lower_case() {
        let why = |name| super::connector(name).map_err(|error| error.text);
        assert_eq!(why("sms.za"), Ok(()));
        let queue = why("sms.inbound").unwrap_err();
        assert!(queue.contains("its connector, \"sms\""), "{queue}");
        for name in ["Sms", "a b", "", ".inbound", "vumi/x"] {
            assert!(why(name).is_err(), "{name}");
        }
    }
}
