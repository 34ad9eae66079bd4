//! Into which parts a queue is divided as the broker has it, for whoever has no manifest to ask.

use super::layout::note_queue;
use super::plan::queue_of;
use crate::broker::Broker;
use crate::error::WorkError;
use vumi_api::shared::Class;

/// The queues of the parts of `queue` that exist on the broker, former ones included; none if it was never divided.
///
/// # Errors
/// What the broker says.
pub async fn parts_on(broker: &dyn Broker, queue: &str) -> Result<Vec<String>, WorkError> {
    let mut found = Vec::new();
    // How it is divided is written down before any part gets a message; asked for first, because each question about a
    // queue that is not there costs a channel.
    if broker.depth(&note_queue(queue)).await?.is_none() {
        return Ok(found);
    }
    partitions_on(broker, queue, &mut found).await?;
    for class in Class::ALL {
        let class = queue_of(queue, class.as_str());
        partitions_on(broker, &class, &mut found).await?;
        if broker.depth(&class).await?.is_some() {
            found.push(class);
        }
    }
    Ok(found)
}

/// Partitions are numbered without gaps, and never deleted.
async fn partitions_on(
    broker: &dyn Broker,
    queue: &str,
    found: &mut Vec<String>,
) -> Result<(), WorkError> {
    for number in 0_u32.. {
        let part = queue_of(queue, &format!("p{number}"));
        if broker.depth(&part).await?.is_none() {
            break;
        }
        found.push(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::QueueSpec;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};

    #[tokio::test]
    async fn parts_are_found_where_a_division_is_written_down() {
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let queues = [
            "t.outbound",
            "t.outbound.p0",
            "t.outbound.p1",
            "t.outbound.bulk",
            "t.outbound.interactive.p0",
            "t.outbound.p3",
        ];
        for queue in queues {
            let spec = QueueSpec::Parking(queue.to_owned());
            broker.declare(&spec).await.unwrap();
        }
        let found = parts_on(&*broker, "t.outbound").await.unwrap();
        assert_eq!(found, Vec::<String>::new(), "nothing is written down");
        let notes = QueueSpec::Parking(note_queue("t.outbound"));
        broker.declare(&notes).await.unwrap();
        let found = parts_on(&*broker, "t.outbound").await.unwrap();
        assert_eq!(
            found,
            [
                "t.outbound.p0",
                "t.outbound.p1",
                "t.outbound.interactive.p0",
                "t.outbound.bulk"
            ]
        );
    }
}
